"""ports.Connectors over simulated targets: sessions, LUNs, and the devices they become.

A target is logged in to when its first LUN is connected and logged out of when its last one goes,
as os-brick does. A volume gets a new identity each time it is exported anew, as LIO does.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from agent.errors import (
    AgentError,
    ConnectFailed,
    Invalid,
    LunMissing,
    NotAllPaths,
    Unsupported,
)
from agent.model.attachment import Attachment
from agent.model.connection import Connection, IscsiConnection, LocalConnection, RbdConnection
from agent.model.device import Device, Disconnected
from agent.model.guest_iscsi import GuestIscsiConnection
from agent.model.outcome import Problem
from agent.ports import HEADER_BYTES
from agent.steps.secret import LUKS_MAGIC, LUKS_PAYLOAD_OFFSET, LUKS_SECTOR_BYTES
from agent.steps.volume import connect
from tests.world.copied import copied
from tests.world.instants import Instants
from tests.world.locks import SimulatedLocks

Place = tuple[str, int]
"""Target and LUN; of a local device its path, and 0."""

PATHS = 2
"""Every volume is reached by so many portals; ``paths`` of them work."""


PAYLOAD_OFFSET_BYTES = 2 << 20
"""Of a LUKS header."""


@dataclass
class Lun:
    """What the storage shows at one place. ``passphrase``: it begins with a LUKS header of
    ``luks_version``, which that opens. ``credentials``: the password or key by which QEMU
    itself reaches it. ``serial``: on page 0x80, where it says one."""

    volume_id: str
    size_bytes: int = 1 << 30
    read_only: bool = False
    scsi: bool = True
    exports: int = 1
    passphrase: bytes | None = None
    credentials: bytes | None = None
    luks_version: int = 1
    serial: str | None = None

    @property
    def header(self) -> bytes:
        if self.passphrase is None:
            return bytes(HEADER_BYTES)
        start = LUKS_MAGIC + self.luks_version.to_bytes(2, "big")
        offset = PAYLOAD_OFFSET_BYTES // LUKS_SECTOR_BYTES
        return start.ljust(LUKS_PAYLOAD_OFFSET.start, b"\0") + offset.to_bytes(4, "big")

    @property
    def wwn(self) -> str:
        digits = "".join(c for c in self.volume_id if c in "0123456789abcdef")
        return f"6001405{digits[-12:]}{self.exports:04x}"


@dataclass(frozen=True)
class HostDevice:
    """One device of this host: of which place it came, and what it says of itself."""

    place: Place
    volume_id: str
    wwn: str
    size_bytes: int
    read_only: bool
    kernel_name: str

    @property
    def path(self) -> str:
        """As the request named it where it is this host's own."""
        return f"/dev/disk/by-id/wwn-0x{self.wwn}" if _is_remote(self.place) else self.place[0]

    @property
    def names(self) -> frozenset[str]:
        return frozenset({self.path, self.kernel_name})


@dataclass
class SimulatedConnectors:
    """``connect_error`` and ``disconnect_error`` are raised half way while they are set.
    ``awaits_unmap``: devices stay until the storage takes them away.

    ``in_use`` tells which domain uses one of the names. ``leftovers``: of an earlier life, the WWN
    of what is at a place, until a connect there makes the kernel look who it is. ``lags``: a path
    goes on showing the size that the volume had."""

    instants: Instants
    locks: SimulatedLocks
    in_use: Callable[[frozenset[str]], list[str]]
    luns: dict[Place, Lun] = field(default_factory=dict)
    sessions: set[str] = field(default_factory=set)
    devices: dict[Place, HostDevice] = field(default_factory=dict)
    connects: int = 0
    connect_error: AgentError | None = None
    disconnect_error: AgentError | None = None
    awaits_unmap: bool = False
    lacks: str | None = None
    paths: int = PATHS
    lags: bool = False
    leftovers: dict[Place, str] = field(default_factory=dict)
    forbids: str | None = None

    def check(self, connection: Connection) -> None:
        if _is_network(_place(connection)):
            return
        if self.lacks is not None:
            raise Unsupported(f"this host has no {self.lacks}; nothing was touched")
        if self.forbids is not None:
            raise Invalid(f"{self.forbids}; nothing was touched")

    def connect(self, attachment: Attachment) -> Device:
        self._assert_locked(attachment)
        return self.instants.call(
            "connect",
            lambda: self._connect(attachment),
            part="storage",
            refusal=ConnectFailed("no portal of the target answered"),
        )

    def disconnect(self, attachment: Attachment, device: Device | None) -> Disconnected:
        self._assert_locked(attachment)
        return self.instants.call(
            "disconnect",
            lambda: self._disconnect(attachment),
            part="storage",
            refusal=ConnectFailed("the device could not be flushed"),
        )

    def extend(self, attachment: Attachment, device: Device) -> Device:
        self._assert_locked(attachment)
        return self.instants.call(
            "extend",
            lambda: self._extend(attachment, device),
            part="storage",
            refusal=ConnectFailed("the new size could not be read"),
        )

    def find(self, connection: Connection) -> Device | None:
        place = _place(connection)
        if _is_network(place):
            return Device(path=place[0], identity={"path": place[0]}, size_bytes=0)
        if place in self.leftovers:
            wwn = self.leftovers[place]
            return Device(path=f"/dev/disk/by-id/wwn-0x{wwn}", identity={"wwn": wwn}, size_bytes=0)
        found = self.devices.get(place)
        return None if found is None else self._device(found)

    def look_again(self, attachment: Attachment, device: Device) -> Device | None:
        for found in self.devices.values():
            if found.wwn == device.identity.get("wwn"):
                return self._device(found)
        return None

    def exports(self) -> Sequence[str]:
        return ()

    def held_locks(self) -> Sequence[Mapping[str, Any]]:
        return ()

    def leave(self, export: str) -> None:
        raise AssertionError("nothing is mounted here")

    def leave_subsystem(self, device: Device) -> None:
        raise AssertionError("no namespace is shown here")

    def names(self, source: str) -> frozenset[str]:
        for device in self.devices.values():
            if source in device.names:
                return device.names
        return frozenset({source})

    def is_only_here(self, path: str) -> bool:
        return self.instants.call(
            "ask for a file system", lambda: path.startswith("/local/"), part="a file system"
        )

    def present(self, device: Device) -> bool:
        return not device.is_here or any(
            found.wwn == device.identity.get("wwn") for found in self.devices.values()
        )

    def in_place(self, device: Device) -> bool:
        return self.present(device)

    def header(self, device: Device) -> bytes:
        return self.instants.call("header", lambda: self.lun_of(device.path).header, part="storage")

    def lun_of(self, path: str) -> Lun:
        """What the device of this name holds."""
        if (path, 0) in self.luns and _is_network((path, 0)):
            return self.luns[path, 0]
        return next(
            self.luns[place] for place, device in self.devices.items() if path in device.names
        )

    def size_of(self, path: str) -> int:
        """What QEMU finds; 0: nothing."""
        if (path, 0) in self.luns and _is_network((path, 0)):
            return self.luns[path, 0].size_bytes
        return sum(one.size_bytes for one in self.devices.values() if path in one.names)

    def properties(self) -> Mapping[str, Any]:
        return {"host": "sim", "initiator": "iqn.2026-01.sim:host"}

    @property
    def targets(self) -> set[str]:
        """Of the devices that a session brought."""
        return {place[0] for place in self.devices if _is_remote(place)}

    def is_open(self, path: str) -> bool:
        """Could QEMU open it?"""
        is_shown = _is_network((path, 0)) and (path, 0) in self.luns
        return is_shown or any(path in device.names for device in self.devices.values())

    def lose_power(self) -> None:
        """The host's own: what the storage shows stays as it is."""
        self.sessions.clear()
        self.devices.clear()

    def outline(self) -> list[object]:
        errors = [self.connect_error, self.disconnect_error]
        return [
            *errors,
            self.paths,
            self.lags,
            self.leftovers,
            self.luns,
            sorted(self.sessions),
            self.devices,
        ]

    def image(self) -> dict[str, object]:
        own = (
            "luns",
            "sessions",
            "devices",
            "connects",
            "connect_error",
            "disconnect_error",
            "paths",
            "lags",
            "leftovers",
            "awaits_unmap",
            "lacks",
            "forbids",
        )
        return {name: copied(getattr(self, name)) for name in own}

    def restore(self, image: Mapping[str, object]) -> None:
        for name, value in image.items():
            setattr(self, name, copied(value))

    def _connect(self, attachment: Attachment) -> Device:
        place = _place(attachment.connection)
        if _is_network(place):  # nobody on this host looks: its size is the request's word
            told = attachment.size_bytes or 0
            return Device(path=place[0], identity={"path": place[0]}, size_bytes=told)
        if place not in self.devices:
            self.connects += 1
            if _is_remote(place):
                self.sessions.add(place[0])
            self.instants.reach(
                "within connect", part="storage", refusal=ConnectFailed("the LUN does not show")
            )
            if self.connect_error is not None:
                raise self.connect_error
            if place not in self.luns:
                raise LunMissing(f"target {place[0]} shows no LUN {place[1]}")
            self.devices[place] = self._appear(place)
        was = self.leftovers.pop(place, None)
        doubts = () if was is None else (f"/dev/sdb was at its address before, as wwn {was}",)
        return self._device(self.devices[place]).model_copy(update={"doubts": doubts})

    def _extend(self, attachment: Attachment, device: Device) -> Device:
        place = _place(attachment.connection)
        if _is_network(place):
            return device
        if place not in self.devices:
            raise ConnectFailed("the device of the volume is not on this host")
        before, lun = self.devices[place], self.luns[place]
        if self.lags and lun.size_bytes != before.size_bytes:
            raise NotAllPaths(f"a path shows {before.size_bytes}, another {lun.size_bytes}")
        self.devices[place] = replace(before, size_bytes=lun.size_bytes)
        return self._device(self.devices[place])

    def _device(self, found: HostDevice) -> Device:
        lun = self.luns.get(found.place)
        serial = {"serial": lun.serial} if lun is not None and lun.serial else {}
        return Device(
            path=found.path,
            identity={"wwn": found.wwn, **serial},
            size_bytes=found.size_bytes,
            read_only=found.read_only,
            scsi=None if lun is None else lun.scsi,
            device_info={"path": found.kernel_name},
            paths_found=self.paths,
            paths_expected=PATHS,
        )

    def _appear(self, place: Place) -> HostDevice:
        lun = self.luns[place]
        taken = {device.kernel_name for device in self.devices.values()}
        kernel_name = next(
            name for name in map("/dev/sd{}".format, "abcdefgh") if name not in taken
        )
        return HostDevice(place, lun.volume_id, lun.wwn, lun.size_bytes, lun.read_only, kernel_name)

    def _disconnect(self, attachment: Attachment) -> Disconnected:
        place = _place(attachment.connection)
        device = self.devices.get(place)
        if _is_network(place):
            users = self.in_use(frozenset({place[0]}))
            assert not users, f"{place[0]} is left while {', '.join(users)} has it"
        if device is not None:
            users = self.in_use(device.names)
            assert not users, f"{device.path} was pulled from under {', '.join(users)}"
            if self.disconnect_error is not None:
                raise self.disconnect_error
            if self.awaits_unmap:
                return Disconnected(awaiting_unmap=True)
            del self.devices[place]
            if place in self.luns:
                self.luns[place].exports += 1
            self.instants.reach(
                "within disconnect", part="storage", refusal=ConnectFailed("the session stays")
            )
        if not any(target == place[0] for target, _ in self.devices):
            self.sessions.discard(place[0])
        return Disconnected()

    def _assert_locked(self, attachment: Attachment) -> None:
        wanted = {f"target:{name}" for name in attachment.connection.targets}
        wanted.add(f"volume:{attachment.volume_id}")
        missing = wanted - set(self.locks.mine())
        assert not missing, f"a storage call without {missing}"


def _is_remote(place: Place) -> bool:
    """Reached by a session; a device of this host's own is not."""
    return not place[0].startswith("/")


def _is_network(place: Place) -> bool:
    """QEMU reaches it by itself: there is no session of this host, and no device."""
    return place[0].startswith(("iscsi:", "rbd:"))


def _place(connection: Connection) -> Place:
    if isinstance(connection, LocalConnection):
        return connection.data.device_path, 0
    if isinstance(connection, GuestIscsiConnection | RbdConnection):
        return connection.known_source, 0
    assert isinstance(connection, IscsiConnection), "simulated: iSCSI, local and RBD"
    return connection.targets[0], connection.lun


class SimulatedCalls:
    """service.reconnect.Calls: each is over as soon as it is begun."""

    def __init__(self, locks: SimulatedLocks, storage: SimulatedConnectors) -> None:
        self._locks = locks
        self._storage = storage
        self._answers: dict[str, Device | Problem] = {}

    def begin(self, attachment: Attachment, timeout_seconds: float) -> None:
        try:
            answer: Device | Problem = connect(self._locks, self._storage, attachment)
        except AgentError as error:
            answer = Problem.of(error)
        self._answers[attachment.volume_id] = answer

    def ended(self, timeout_seconds: float) -> Mapping[str, Device | Problem]:
        answers, self._answers = self._answers, {}
        return answers

    def kill(self) -> bool:
        self._answers.clear()
        return True
