"""What os-brick's answer is: a device with a name that lasts, an identity, and its paths.

os-brick finds a device at an address and says its kernel name. Whether it was there before, as
whose it was known, and how many of the paths it should have it does not say.
"""

import glob
import json
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from agent.errors import ConnectFailed, NotAllPaths, SharingConflict
from agent.host.block_devices import BlockDevices, Found
from agent.host.brick_trail import Trail
from agent.host.image import look_at_image
from agent.model.attachment import Attachment
from agent.model.connection import (
    Connection,
    FibreChannelConnection,
    IscsiConnection,
    LocalConnection,
    NvmeConnection,
    VendorConnection,
)
from agent.model.device import Device, conflict

SCSI = (IscsiConnection, FibreChannelConnection)

PATH_LOOKS = 20
PATH_PAUSE_SECONDS = 0.5
"""Paths that are logged in come into the map within moments: so often and far between one looks."""


class DeviceReader:
    """Reads the devices of connected volumes. ``pause`` passes the time until another look."""

    def __init__(
        self,
        devices: BlockDevices,
        *,
        use_multipath: bool,
        enforce_multipath: bool,
        settle: Callable[[], None],
        pause: Callable[[float], None] = time.sleep,
    ) -> None:
        self._devices = devices
        self._use_multipath = use_multipath
        self._enforce_multipath = enforce_multipath
        self._settle = settle
        self._pause = pause

    def at_address(self, connection: Connection) -> list[Found]:
        """What is at the volume's address on this host now, whoever made it."""
        return [found for pattern in _by_path(connection) for found in self._devices.at(pattern)]

    def of(
        self, attachment: Attachment, info: Mapping[str, Any], before: Sequence[Found], trail: Trail
    ) -> Device:
        """Of what os-brick answered; ``before`` was at the address when it was called.

        Raises ConnectFailed, NotAllPaths, LunMissing, SharingConflict, Invalid."""
        connection = attachment.connection
        path = _text(info["path"])
        if connection.source_type == "file":
            image = look_at_image(path, connection.source_format)
            return Device(
                path=path,
                identity={"path": path},
                size_bytes=image.size_bytes,
                read_only=image.read_only,
                device_info=plain(info),
            )
        found = self._look(path)
        if isinstance(connection, SCSI):
            self._devices.ask_again(found)
        if isinstance(connection, (*SCSI, NvmeConnection)):
            found = self._wait_for_paths(path, attachment, trail)
        if not found.size_bytes:
            raise ConnectFailed(
                f"{path} shows 0 bytes: the volume is not ready, or this is a path on standby; it "
                "is taken back: look at the storage side, and try again"
            )
        stable = path if isinstance(connection, LocalConnection) else self._stable(found, path)
        device = Device(
            path=stable,
            identity=dict(found.identity),
            size_bytes=found.size_bytes,
            read_only=found.read_only,
            scsi=found.scsi,
            device_info=plain(info),
            doubts=tuple(self._doubts(connection, found, before)),
            **_subsystem(connection),
        )
        use = None if attachment.read_only else self._devices.use_by_host(found.node)
        if use is not None:
            raise SharingConflict(
                f"{stable} is {use} on this host itself, and the guest would write to it: unmount "
                "it here, and see docs/operate on what keeps the host's hands off; or attach it "
                "with access_mode ro"
            )
        counted = self.count_paths(attachment, device, found)
        self._refuse_missing_paths(attachment, counted, found)
        return counted

    def at(self, connection: Connection, found: Found) -> Device:
        """Of what is there without a connect of ours that is known."""
        return Device(
            path=self._devices.stable_name(found) or found.node,
            identity=dict(found.identity),
            size_bytes=found.size_bytes,
            read_only=found.read_only,
            scsi=found.scsi,
            device_info={"type": "block", "path": found.node},
            **_subsystem(connection),
        )

    def count_paths(self, attachment: Attachment, device: Device, found: Found) -> Device:
        """The device with the paths that it has now, against the portals of the request."""
        ways = attachment.connection.ways
        expected = self.paths_expected(attachment)
        working, missing = found.paths, frozenset[str]()
        if expected > 1 and found.ways:
            working, missing = len(ways & found.ways), ways - found.ways
        return device.model_copy(
            update={
                "paths_found": working,
                "paths_expected": expected,
                "paths_missing": tuple(sorted(missing)),
            }
        )

    def grown(self, connection: Connection, device: Device) -> Device:
        """The device with the size that all of its paths show.

        Raises NotAllPaths, ConnectFailed; LunMissing, Invalid of a file."""
        if connection.source_type == "file":
            image = look_at_image(device.path, connection.source_format)
            return device.model_copy(update={"size_bytes": image.size_bytes})
        shown = self._shown(device)
        if not shown:
            raise ConnectFailed(
                f"{device.path} is not on this host, so nothing can be extended; nothing was done "
                "to any guest: see 'attachctl audit'"
            )
        _refuse_different(device, shown)
        return device.model_copy(update={"size_bytes": shown[0].size_bytes})

    def refuse_lagging(self, device: Device) -> None:
        """Raises NotAllPaths if one path shows less than another: no map is larger than it."""
        _refuse_different(device, [found for found in self._shown(device) if not found.is_map])

    def _shown(self, device: Device) -> list[Found]:
        nodes = self._devices.all_of(device.identity)
        return [found for node in nodes if (found := self._devices.look(node))]

    def _look(self, path: str) -> Found:
        found = self._devices.look(path)
        if found is None:
            raise ConnectFailed(
                f"os-brick answered {path}, and no block device is there; it is taken back: see "
                "the kernel's log of this host"
            )
        return found

    def _wait_for_paths(self, path: str, attachment: Attachment, trail: Trail) -> Found:
        """os-brick answers as soon as there is a map, or a controller shows the namespace; others
        follow. By a portal that let nobody in none will come."""
        connection = attachment.connection
        coming = self.paths_expected(attachment) - len(trail.closed_ways)
        found = self._look(path)
        if isinstance(connection, NvmeConnection):
            [nqn] = connection.targets
            coming = min(coming, sum(way.is_live for way in self._devices.controllers(nqn)))
        gathers = found.is_map or (isinstance(connection, NvmeConnection) and found.ways)
        for _ in range(PATH_LOOKS if gathers else 0):
            if found.paths >= coming:
                break
            self._pause(PATH_PAUSE_SECONDS)
            found = self._look(path)
        return found

    def _refuse_missing_paths(self, attachment: Attachment, device: Device, found: Found) -> None:
        if attachment.require_all_paths and device.degraded:
            raise NotAllPaths(
                f"{device.paths_found} of {device.paths_expected} paths of {found.node} work, and "
                f"require_all_paths is set ({device.degraded}); nothing was plugged: look at "
                "'multipath -ll' and the storage network"
            )
        scsi = isinstance(attachment.connection, SCSI)
        if scsi and self._use_multipath and self._enforce_multipath and not found.is_map:
            raise NotAllPaths(
                f"multipathd made no map of {found.node}, and multipath is enforced; nothing was "
                "plugged: see 'multipath -ll' and what multipath.conf leaves out"
            )

    def paths_expected(self, attachment: Attachment) -> int:
        """By the portals of the request, where this host uses more than one; of Fibre Channel, by
        those that it sees."""
        connection = attachment.connection
        if not (self._use_multipath or attachment.require_all_paths):
            return 1
        if isinstance(connection, FibreChannelConnection):
            return connection.paths_here(self._devices.fc_ports())
        return connection.paths if isinstance(connection, NvmeConnection | IscsiConnection) else 1

    def _doubts(
        self, connection: Connection, found: Found, before: Sequence[Found]
    ) -> Iterator[str]:
        """What says that a device of an earlier life is still there, or is a part of this one.

        The kernel reads anew who a LUN is (see ask_again), but what a guest or the host has
        cached of the volume that it was, and a map that was made for it, stay (CVE-2023-2088)."""
        for was in before:
            if conflict(was.identity, found.identity):
                yield f"{was.node} was at its address before, as {_words(was)}"
        for path in self._devices.strangers(found):
            yield f"its path {path.node} is {_words(path)}"
        for now in self.at_address(connection):
            if conflict(now.identity, found.identity):
                yield f"{now.node} is at its address, as {_words(now)}"

    def _stable(self, found: Found, path: str) -> str:
        stable = self._devices.stable_name(found, is_settled=False)
        if stable is None:
            self._settle()
            stable = self._devices.stable_name(found)
        if stable is None and os.path.islink(path):
            stable = path  # vendors make names of their own
        if stable is None:
            raise ConnectFailed(
                f"udev gave {found.node} no name in /dev/disk/by-id, and its kernel name may mean "
                "another device tomorrow; it is taken back: see 'udevadm info' of the device"
            )
        return stable


def _refuse_different(device: Device, shown: Sequence[Found]) -> None:
    if len({found.size_bytes for found in shown}) > 1:
        sizes = ", ".join(sorted(f"{found.node} {found.size_bytes}" for found in shown))
        raise NotAllPaths(
            f"the paths of {device.path} show different sizes in bytes ({sizes}); nothing was "
            "done to any guest: see 'multipath -ll' and the storage side, then send it again"
        )


def device_info(connection: Connection, device: Device, today: str | None) -> dict[str, Any]:
    """os-brick's own answer of the connect, with a path that is true today: by it, and by how it
    is written, os-brick decides what to flush. A vendor's own link names the volume for ever."""
    then = device.device_info
    info = {key: value for key, value in then.items() if key != "path"}
    if today is None and isinstance(connection, VendorConnection):
        return dict(then) if then.get("path") == device.path else info
    if today is not None:
        known = (str(then.get("path")), device.path)
        info["path"] = next((path for path in known if os.path.realpath(path) == today), today)
    return info


def network_device(attachment: Attachment) -> Device:
    """Nobody on this host has looked at the image: its size is the request's word."""
    source = attachment.connection.known_source
    assert source is not None, "a network disk is where the request says"
    return Device(path=source, identity={"path": source}, size_bytes=attachment.size_bytes or 0)


def plain(info: Mapping[str, Any]) -> dict[str, Any]:
    """os-brick's answer as the journal can keep it."""
    found: dict[str, Any] = json.loads(json.dumps(info, default=_text))
    return found


def _subsystem(connection: Connection) -> dict[str, Any]:
    if not isinstance(connection, NvmeConnection):
        return {}
    [nqn] = connection.targets
    return {"subsystem": nqn, "portals": tuple(sorted(connection.ways))}


def _text(value: object) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


def _words(found: Found) -> str:
    return " ".join(f"{name} {value}" for name, value in found.identity.items())


def _by_path(connection: Connection) -> Iterator[str]:
    """udev's names in /dev/disk/by-path of a SCSI volume's devices (systemd, udev-builtin-path_id).

    None of NVMe: the kernel itself removes a namespace whose identity has changed."""
    if isinstance(connection, IscsiConnection):
        for portal, iqn, lun in connection.addresses:
            name = _lun_name(connection.data.lun_here(lun))
            yield f"*ip-{glob.escape(portal)}-iscsi-{glob.escape(iqn)}-lun-{name}"
    if isinstance(connection, FibreChannelConnection):
        for wwn, lun in connection.addresses:
            yield f"*-fc-0x{glob.escape(wwn)}-lun-{_lun_name(connection.data.lun_here(lun))}"


def _lun_name(lun: int) -> str:
    if lun < 256:
        return str(lun)
    return f"0x{lun & 0xFFFF:04x}{lun >> 16 & 0xFFFF:04x}00000000"
