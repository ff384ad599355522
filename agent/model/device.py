"""What a connected volume is on this host."""

import re
from collections.abc import Mapping
from typing import Any

from pydantic import StrictStr, model_validator

from agent.model.value import Count, Value

_PREFIX = re.compile(r"^(0x|naa\.|eui\.|uuid\.|t10\.)")
DEGRADED = "degraded"
"""How the warning of a device with missing paths begins: ``degraded n/m``."""

BACKED = " ("
"""Between the name of a loop device and the file behind it, in its ``path`` identity."""

_SAME_NUMBER = ("wwn", "nguid", "eui64", "uuid")
_STRONGEST_FIRST = (*_SAME_NUMBER, "serial", "path")


class Device(Value):
    """A host block device, file or network image; valid until reboot.

    ``path`` is what the disk XML names and is stable (/dev/disk/by-id/…, never /dev/sdX);
    for a network disk it is ``rbd:pool/image``, or target and initiator. ``identity`` is what the
    device says of itself ({name: value}; names as in model.attachment.Identity, and ``path`` where
    it has nothing better). ``device_info`` is os-brick's, handed back at disconnect: without it
    os-brick skips the flush. ``scsi``: it takes SCSI commands, as a guest's ``lun`` must; None:
    nobody has looked. ``paths_missing`` names the portals without one, where that is known.
    ``subsystem``: NVMe over fabrics, its NQN, reached by ``portals``. ``doubts``: what was seen
    that says it is another volume's.
    """

    path: StrictStr
    identity: dict[str, str]
    size_bytes: Count
    read_only: bool = False
    scsi: bool | None = None
    device_info: dict[str, Any] = {}
    paths_found: Count = 1
    paths_expected: Count = 1
    paths_missing: tuple[StrictStr, ...] = ()
    subsystem: StrictStr | None = None
    portals: tuple[StrictStr, ...] = ()
    doubts: tuple[StrictStr, ...] = ()

    @model_validator(mode="before")
    @classmethod
    def _by_the_name_that_lasts(cls, given: Any) -> Any:
        """A device that says nothing of itself is the one that os-brick's own link leads to, and
        not whatever has its kernel name after the next boot: also where an older agent wrote that.
        """
        if not isinstance(given, dict):
            return given
        path, identity = given.get("path"), given.get("identity")
        info = given.get("device_info")
        if not (
            isinstance(identity, dict) and isinstance(info, dict) and set(identity) == {"path"}
        ):
            return given
        is_link = path == info.get("path") and BACKED not in str(identity["path"])
        return {**given, "identity": {"path": path}} if is_link else given

    @property
    def is_here(self) -> bool:
        """On this host, and not what a guest reaches over the network by itself."""
        return self.path.startswith("/")

    @property
    def shown(self) -> str:
        """Its identity, in words."""
        return ", ".join(f"{name} {value}" for name, value in sorted(self.identity.items()))

    @property
    def degraded(self) -> str | None:
        """In words; None: all paths work."""
        if self.paths_found >= self.paths_expected:
            return None
        missing = f": no path by {', '.join(self.paths_missing)}" if self.paths_missing else ""
        return f"{DEGRADED} {self.paths_found}/{self.paths_expected}{missing}"


class Disconnected(Value):
    """The volume is off this host.

    ``awaiting_unmap``: its device stays visible until the storage side unmaps it (NVMe, of a
    subsystem that other volumes use; PowerFlex; LightOS); it is flushed and nothing uses it.
    """

    awaiting_unmap: bool = False


def same_identity(expected: Mapping[str, str], found: Mapping[str, str]) -> list[str]:
    """Why a device that says ``found`` of itself is not the ``expected`` one; empty: it is.

    Every expected name must be shown. A name that the device does not show is proven by one that
    means the same number (an NVMe namespace may show its nguid as its wwn, ``eui.…``).
    """
    return [wrong for name, value in expected.items() if (wrong := _mismatch(name, value, found))]


def same_device(one: Mapping[str, str], other: Mapping[str, str]) -> bool:
    """Do they say so of themselves? The strongest name that both give decides: numbers are unique
    in the world, while an array may answer the serial of its own for every LUN (SPC, page 80h)."""
    strongest = next((name for name in _STRONGEST_FIRST if name in one and name in other), None)
    return strongest is not None and one[strongest] == other[strongest]


def conflict(one: Mapping[str, str], other: Mapping[str, str]) -> bool:
    """Do two devices say different things of themselves? What only one says is none, and a kernel
    name says nothing."""
    return any(one[name] != other[name] for name in one.keys() & other.keys() - {"path"})


def _mismatch(name: str, value: str, found: Mapping[str, str]) -> str | None:
    wanted = plain_identity(value)
    if is_blank(value):
        return f"the expected {name} is empty or all zeros, which names no device"
    if name in found:
        same = plain_identity(found[name]) == wanted
        return None if same else f"{name} is {found[name]}, expected {value}"
    if name in _SAME_NUMBER and wanted in (
        plain_identity(found[other]) for other in _SAME_NUMBER if other in found
    ):
        return None
    shown = ", ".join(f"{other} {found[other]}" for other in sorted(found)) or "nothing"
    return f"the device shows no {name} (expected {value}); it shows {shown}"


def is_blank(identity: str) -> bool:
    """Empty or all zeros: what cheap targets show, and names no device."""
    return not plain_identity(identity).strip("0")


def plain_identity(value: str) -> str:
    """One spelling for every way in which tools write the same identity.

    Case, 0x, the prefixes of sysfs (naa. eui. uuid. t10.), dashes, colons and spaces do not count;
    nor does the type digit that udev and multipath put before a number (3: NAA, 2: EUI-64).
    """
    plain = re.sub(r"[\s:_-]+", "", _PREFIX.sub("", value.strip().lower()))
    if re.fullmatch(r"[23]([0-9a-f]{16}|[0-9a-f]{32})", plain):
        return plain[1:]
    return plain
