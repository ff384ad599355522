"""What the guest's disk shall look like, and which wishes go together."""

from collections.abc import Mapping
from itertools import product
from typing import Annotated, Literal

from pydantic import (
    Field,
    StrictInt,
    StrictStr,
    StringConstraints,
    field_validator,
    model_validator,
)

from agent.model.value import Count, Positive, Value

Bus = Literal["virtio", "scsi"]

TargetDev = Annotated[StrictStr, StringConstraints(pattern=r"^(vd|sd)[a-z]{1,3}$")]


LARGEST_BLOCK_BYTES = 2 * 1024 * 1024
"""QEMU's largest (its MAX_BLOCK_SIZE)."""

Queues = Annotated[StrictInt, Field(ge=1, le=1024)]
"""QEMU 7.2 takes a request for one more and dies of it, and the guest with it."""


QEMUS_SECTOR_BYTES = 512
"""What a guest sees where nobody says otherwise, whatever the device has (blkconf_blocksizes)."""


class BlockSize(Value):
    """Sizes in bytes that the guest shall see; ``physical`` not given is as ``logical``."""

    logical: Positive | None = None
    physical: Positive | None = None

    @field_validator("logical", "physical")
    @classmethod
    def _power_of_two(cls, size_bytes: int | None) -> int | None:
        if size_bytes is not None and (
            not 512 <= size_bytes <= LARGEST_BLOCK_BYTES or size_bytes & (size_bytes - 1)
        ):
            raise ValueError(f"must be a power of two from 512 to {LARGEST_BLOCK_BYTES} bytes")
        return size_bytes

    @model_validator(mode="after")
    def _logical_fits(self) -> "BlockSize":
        if self.logical and self.physical and self.logical > self.physical:
            raise ValueError("logical must not be larger than physical")
        return self


BootOrder = Annotated[StrictInt, Field(ge=1, le=2**31 - 1)]
"""QEMU's largest bootindex."""

LARGEST_RATE = 10**15
"""QEMU's (its THROTTLE_VALUE_MAX), for a rate and for all that a burst lets through."""

Rate = Annotated[StrictInt, Field(ge=0, le=LARGEST_RATE)]


class IoTune(Value):
    """libvirt's <iotune> names; bytes and operations a second, lengths in seconds."""

    total_bytes_sec: Rate | None = None
    read_bytes_sec: Rate | None = None
    write_bytes_sec: Rate | None = None
    total_iops_sec: Rate | None = None
    read_iops_sec: Rate | None = None
    write_iops_sec: Rate | None = None
    total_bytes_sec_max: Rate | None = None
    read_bytes_sec_max: Rate | None = None
    write_bytes_sec_max: Rate | None = None
    total_iops_sec_max: Rate | None = None
    read_iops_sec_max: Rate | None = None
    write_iops_sec_max: Rate | None = None
    total_bytes_sec_max_length: Rate | None = None
    read_bytes_sec_max_length: Rate | None = None
    write_bytes_sec_max_length: Rate | None = None
    total_iops_sec_max_length: Rate | None = None
    read_iops_sec_max_length: Rate | None = None
    write_iops_sec_max_length: Rate | None = None
    size_iops_sec: Count | None = None
    group_name: (
        Annotated[StrictStr, StringConstraints(pattern=r"^[A-Za-z0-9_.-]{1,64}$")] | None
    ) = None

    @model_validator(mode="after")
    def _total_or_split(self) -> "IoTune":
        for kind in ("bytes_sec", "iops_sec", "bytes_sec_max", "iops_sec_max"):
            split = getattr(self, f"read_{kind}") or getattr(self, f"write_{kind}")
            if getattr(self, f"total_{kind}") and split:
                raise ValueError(
                    f"total_{kind} cannot go with read_{kind} or write_{kind}: libvirt takes one"
                )
        return self

    @model_validator(mode="after")
    def _bursts(self) -> "IoTune":
        """What QEMU refuses only when the disk is plugged."""
        for side, kind in product(("total", "read", "write"), ("bytes_sec", "iops_sec")):
            name = f"{side}_{kind}"
            rate, burst, length = (
                getattr(self, f"{name}{part}") or 0 for part in ("", "_max", "_max_length")
            )
            if burst and not rate:
                raise ValueError(f"{name}_max needs {name}")
            if burst and burst < rate:
                raise ValueError(f"{name}_max cannot be lower than {name}")
            if length > 1 and not burst:
                raise ValueError(f"{name}_max_length needs {name}_max")
            if burst * max(length, 1) > LARGEST_RATE:
                # QEMU 7.2 would plug the disk without any limit, and not start with it.
                raise ValueError(f"{name}_max times {name}_max_length is over {LARGEST_RATE}")
        has_iops = self.total_iops_sec or self.read_iops_sec or self.write_iops_sec
        if self.size_iops_sec and not has_iops:
            raise ValueError("size_iops_sec needs a limit of iops")
        return self

    def limits(self) -> dict[str, int | str]:
        """The limits that were given, by libvirt's names."""
        return self.model_dump(exclude_none=True)

    def complete(self, group_name: str) -> dict[str, int | str]:
        """Every limit that there is, 0 for none: what was set before is not to stay.

        ``group_name``: of a disk that shares its limits with no other. libvirt would leave it in
        the group that it was in; one without any limit leaves by itself."""
        numbers = {name: 0 for name in IoTune.model_fields if name != "group_name"}
        group = {"group_name": group_name} if self.rates() else {}
        return {**numbers, **group, **self.limits()}

    def not_in(self, found: Mapping[str, int | str]) -> list[str]:
        """In words, what of ``found`` is otherwise than here; empty: these limits are in force.

        How long a burst lasts that nobody gave a length for is QEMU's to say."""
        wanted = self.complete("")
        names = [name for name in wanted if not name.endswith("_length") or wanted[name]]
        if self.group_name is None:
            names = [name for name in names if name != "group_name"]
        return [
            f"{name} is {found.get(name, 0)}"
            for name in names
            if found.get(name, 0) != wanted[name]
        ]

    def rates(self) -> dict[str, int]:
        """Those limits that hold something back: 0 is none, and a length is not one by itself."""
        return {
            name: value
            for name, value in self.limits().items()
            if isinstance(value, int) and value and not name.endswith("_length")
        }


class Disk(Value):
    """The guest side of an attachment; every field has a default."""

    bus: Bus = "virtio"
    target_dev: TargetDev | None = None
    type: Literal["disk", "lun"] = "disk"
    cache: Literal["none", "writeback", "writethrough", "directsync", "unsafe", "default"] = "none"
    io: Literal["native", "threads", "io_uring"] | None = None
    discard: Literal["unmap", "ignore"] | None = None
    iothread: Positive | None = None
    queues: Queues | None = None
    block_size: BlockSize | None = None
    boot_order: BootOrder | None = None
    error_policy: Literal["report", "stop", "ignore", "enospace"] | None = None
    reservations: Literal["managed"] | None = None
    iotune: IoTune | None = None

    @property
    def sector_bytes(self) -> int | None:
        """As the guest sees them; None: as the device has them."""
        if self.type == "lun":
            return None
        asked = None if self.block_size is None else self.block_size.logical
        return asked or QEMUS_SECTOR_BYTES

    @model_validator(mode="after")
    def _wishes_that_go_together(self) -> "Disk":
        for wrong in _contradictions(self):
            raise ValueError(wrong)
        return self


def _contradictions(disk: Disk) -> list[str]:
    prefix = {"virtio": "vd", "scsi": "sd"}[disk.bus]
    rules = [
        (
            disk.target_dev is not None and not disk.target_dev.startswith(prefix),
            f"target_dev of a {disk.bus} disk must start with {prefix}",
        ),
        (disk.type == "lun" and disk.bus != "scsi", "type lun needs bus scsi"),
        (
            disk.type == "lun" and disk.block_size is not None,
            "block_size cannot be set for type lun: the guest sees the device's own",
        ),
        (
            disk.type == "lun" and disk.error_policy in ("stop", "enospace"),
            f"error_policy {disk.error_policy} cannot go with type lun: QEMU dies when the guest "
            "that it has paused for a failed write is resumed; use report",
        ),
        (
            disk.reservations is not None and disk.type != "lun",
            "reservations need type lun on bus scsi",
        ),
        (
            disk.iothread is not None and disk.bus != "virtio",
            "iothread is a property of the controller for bus scsi: only virtio disks take one",
        ),
        (disk.queues is not None and disk.bus != "virtio", "queues needs bus virtio"),
    ]
    return [message for broken, message in rules if broken]
