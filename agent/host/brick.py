"""ports.Connectors by os-brick: a volume becomes a device of this host, and leaves it.

os-brick finds and removes devices; it does not say whether the device is the volume, hands out
names that mean something else tomorrow (/dev/sdb), and hides why it failed. Here its answer is
turned into a name that lasts and an identity read from the kernel, and the host is looked at
after each disconnect. os-brick's own locks stay as they are (docs/connections.rst).
"""

import logging
import os
import shutil
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from os_brick.privileged import rootwrap

from agent.errors import Unavailable, Unsupported
from agent.host.block_devices import BlockDevices
from agent.host.brick_device import SCSI, DeviceReader, device_info, network_device
from agent.host.brick_find import Finder
from agent.host.brick_leaving import Leaving
from agent.host.brick_leftovers import Leftovers
from agent.host.brick_library import (
    keep_to_the_target,
    os_brick_connector,
    os_brick_properties,
    remove_scsi_devices,
    settle_udev,
    spare_what_is_here,
)
from agent.host.brick_locks import OsBrickLocks
from agent.host.brick_properties import BrickProperties
from agent.host.brick_refusals import (
    FOREIGN,
    connect_refusal,
    disconnect_refusal,
    extend_refusal,
    no_lsscsi,
    no_multipath,
    reason_of,
)
from agent.host.brick_trail import PACKAGES, TOOLS, Execute, Trail
from agent.host.brick_vendors import never_seen
from agent.host.header import read_header
from agent.host.local_paths import LocalPaths
from agent.host.mounts import Mounts, with_retry
from agent.host.nvme import NvmeControllers
from agent.host.own_mounts import OwnMounts
from agent.model.attachment import Attachment
from agent.model.connection import (
    Connection,
    FibreChannelConnection,
    IscsiConnection,
    LocalConnection,
    NfsConnection,
    NvmeConnection,
    VendorConnection,
)
from agent.model.device import Device, Disconnected

LOG = logging.getLogger(__name__)

LEAST_SCANS = {"fibre_channel": 5}
"""os-brick scans a fabric again every two seconds; udev needs some of them for a device's name."""


class BrickConnectors:
    """ports.Connectors of this host.

    ``mount_needed`` says whether a disk or promise names a file below a mounted directory; without
    it NFS mounts stay for ever. ``mount_notes``: as OwnMounts. ``who`` says on whose behalf the
    calling thread asks, ``on_wait`` is told of waits for os-brick's locks. The other keywords are
    this host's settings, and after them what tests replace: os-brick, and the trees in which
    devices are looked for.
    """

    def __init__(
        self,
        *,
        host: str,
        my_ip: str,
        use_multipath: bool,
        enforce_multipath: bool,
        device_scan_attempts: int,
        nfs_mount_point_base: str,
        nfs_mount_options: str,
        local_allowed_paths: Sequence[str],
        lock_timeout_seconds: float = 600.0,
        who: Callable[[], str] = lambda: threading.current_thread().name,
        mount_needed: Callable[[str], bool] | None = None,
        on_wait: Callable[[str, float], None] = lambda kind, seconds: None,
        mount_notes: Path | None = None,
        factory: Callable[..., Any] = os_brick_connector,
        initiator: Callable[..., Mapping[str, Any]] = os_brick_properties,
        execute: Execute = rootwrap.execute,
        devices: BlockDevices | None = None,
        mounts: Mounts | None = None,
        settle: Callable[[], None] = settle_udev,
        pause: Callable[[float], None] = time.sleep,
        remove: Callable[[Sequence[str], Execute], None] = remove_scsi_devices,
        which: Callable[[str], str | None] = shutil.which,
    ) -> None:
        self._host = host
        self._my_ip = my_ip
        self._use_multipath = use_multipath
        self._enforce_multipath = enforce_multipath
        self._device_scan_attempts = device_scan_attempts
        self._mounts = mounts or Mounts(nfs_mount_point_base, mount_needed, OwnMounts(mount_notes))
        self.is_only_here = self._mounts.is_only_here
        self._mount_options = with_retry(nfs_mount_options)
        self._factory = factory
        self._initiator = initiator
        self._execute = execute
        self._devices = devices or BlockDevices()
        self._asked = BrickProperties(
            self._devices, use_multipath=use_multipath, enforce_multipath=enforce_multipath
        )
        self._local = LocalPaths(local_allowed_paths, self._devices)
        self._nvme = NvmeControllers(self._devices)
        self._locks = OsBrickLocks(lock_timeout_seconds, who, on_wait)
        self._reader = DeviceReader(
            self._devices,
            use_multipath=use_multipath,
            enforce_multipath=enforce_multipath,
            settle=settle,
            pause=pause,
        )
        self._finder = Finder(self._devices, self._reader, self._nvme, self._mounts)
        self._pause = pause
        self._leaving = Leaving(self._devices, self._reader, self._nvme, pause)
        self._leftovers = Leftovers(self._devices, self._locks, remove)
        self._which = which
        self._mutex = threading.Lock()

    # ports.Connectors

    def check(self, connection: Connection) -> None:
        if connection.source_type == "network":
            return  # QEMU's affair, which libvirt knows (guest_checks)
        protocol = connection.driver_volume_type
        if isinstance(connection, LocalConnection):
            self._local.check_device(connection.data.device_path)
        if isinstance(connection, VendorConnection):
            self._check_vendor(connection)
        if isinstance(connection, FibreChannelConnection) and not self._devices.fc_ports():
            raise Unsupported(
                "this host has no Fibre Channel HBA (/sys/class/fc_host is empty); nothing was "
                "touched"
            )
        multipath = ("multipathd",) if self._use_multipath and isinstance(connection, SCSI) else ()
        for tool in (*TOOLS.get(protocol, ()), *multipath):
            if self._which(tool) is None:
                raise Unsupported(
                    f"this host cannot connect {protocol}: it has no {tool}; nothing was touched: "
                    f"install {PACKAGES[tool]}"
                )

    def connect(self, attachment: Attachment) -> Device:
        connection = attachment.connection
        self.check(connection)
        if connection.source_type == "network":
            return network_device(attachment)
        if connection.export is not None:
            self._mounts.make_base()
        trail = Trail(self._execute)
        before = self._reader.at_address(connection)
        with self._locks.guard(attachment), self._mounts.made(connection.export):
            connector = self._connector(connection, trail)
            try:
                info = self._connect(connector, connection, trail)
            except FOREIGN as error:
                if self._lacks_multipath(connector, connection):
                    raise no_multipath(connection) from error
                raise connect_refusal(error, connection, trail) from error
        LOG.info("os-brick connected %s: %s", attachment.volume_id, info)
        return self._reader.of(attachment, info, before, trail)

    def disconnect(self, attachment: Attachment, device: Device | None) -> Disconnected:
        connection = attachment.connection
        if connection.source_type == "network" or isinstance(connection, LocalConnection):
            return Disconnected()  # nothing of it was made by us
        if connection.source_type == "file":
            if connection.export is not None:
                # os-brick never does
                self._mounts.leave(connection.export, connection.target_names)
            return Disconnected()
        trail = Trail(self._execute)
        today = self._leaving.usable_today(device)
        with self._locks.guard(attachment):
            try:
                told = self._asked.to_leave(connection, device)
                ways = self._asked.ways_to_leave(connection, told, device)
                if not self._leaving.is_anothers(attachment, told, device, today):
                    connector = self._connector(connection, trail)
                    info = (
                        device_info(connection, device, today)
                        if device is not None
                        else never_seen(connector, connection, told, self._devices, self._pause)
                    )
                    self._locks.call(
                        connection.lane,
                        connector.disconnect_volume,
                        told,
                        info,
                        check=lambda: self._leaving.refuse_changed(attachment, told, device, today),
                    )
                if isinstance(connection, SCSI) and device is not None:
                    self._leftovers.remove(connection, device, trail)
                if ways:
                    self._leftovers.log_out(connection.lane, ways, trail)
                if isinstance(connection, NvmeConnection):
                    with self._locks.hold(connection.lane):
                        self._nvme.leave_empty(connection.targets[0], connection.ways, trail)
            except FOREIGN as error:
                raise disconnect_refusal(error, connection, trail) from error
        return self._leftovers.refuse_left(connection, device)

    def extend(self, attachment: Attachment, device: Device) -> Device:
        connection = attachment.connection
        if connection.source_type == "network":
            return device
        if connection.source_type == "block" and not isinstance(connection, LocalConnection):
            self._rescan(connection, device)
        return self._reader.grown(connection, device)

    def find(self, connection: Connection) -> Device | None:
        return self._finder.find(connection)

    def look_again(self, attachment: Attachment, device: Device) -> Device | None:
        expected = max(device.paths_expected, self._reader.paths_expected(attachment))
        found = self._devices.look_for(device.path, device.identity) if expected > 1 else None
        if found is None:
            return device if self.present(device) else None
        return self._reader.count_paths(attachment, device, found)

    def exports(self) -> Sequence[str]:
        return self._mounts.exports()

    def leave(self, export: str) -> None:
        self._mounts.leave_ours(export)

    def leave_subsystem(self, device: Device) -> None:
        with self._locks.hold("nvme"):
            self._nvme.leave_subsystem(device, Trail(self._execute))

    def held_locks(self) -> Sequence[Mapping[str, Any]]:
        return self._locks.held()

    def names(self, source: str) -> frozenset[str]:
        if self._mounts.hold(source):
            return frozenset((source,))  # one name each, and a dead server would hang a stat
        return self._devices.names(source)

    def present(self, device: Device) -> bool:
        return self.in_place(device) or self._devices.find(device.identity) is not None

    def in_place(self, device: Device) -> bool:
        if not device.is_here:
            return True  # QEMU reaches it over the network
        if self._mounts.hold(device.path):
            return self._mounts.is_mounted(os.path.dirname(device.path))  # a stat may hang
        if self._devices.is_far(device.path):
            return True  # by the table of mounts, as well
        found = self._devices.look(device.path)
        if found is None:
            return False
        return self._devices.shows(found.identity, found.node, device.identity)

    def header(self, device: Device) -> bytes:
        return read_header(device.path)

    def properties(self) -> Mapping[str, Any]:
        with self._mutex:  # os-brick may make a host NQN
            try:
                return self._initiator(
                    my_ip=self._my_ip,
                    multipath=self._use_multipath,
                    enforce_multipath=self._enforce_multipath,
                    host=self._host,
                )
            except FOREIGN as error:
                raise Unavailable(
                    "the initiator of this host", reason_of(error, Trail(self._execute))
                ) from error

    # os-brick

    def _connector(self, connection: Connection, trail: Trail) -> Any:
        """A new one for each call: it costs microseconds, os-brick's Fibre Channel one keeps the
        state of a call on itself, and each has a trail of its own."""
        protocol = connection.driver_volume_type
        options: dict[str, Any] = {
            "use_multipath": self._use_multipath,
            "device_scan_attempts": max(self._device_scan_attempts, LEAST_SCANS.get(protocol, 1)),
            "execute": trail.execute,
        }
        if connection.export is not None:
            options[f"{protocol}_mount_point_base"] = self._mounts.base
            options["conn"] = {"mount_point_base": self._mounts.base}
        if isinstance(connection, NfsConnection):
            options["nfs_mount_options"] = self._mount_options
        return self._factory(protocol.upper(), **options)

    def _connect(self, connector: Any, connection: Connection, trail: Trail) -> Any:
        """os-brick's answer."""
        spare_what_is_here(connector)
        if self._use_multipath and isinstance(connection, IscsiConnection) and connection.one_way():
            keep_to_the_target(connector, connection.targets[0])
        arguments = (connector.connect_volume, self._asked.of(connection))
        if not isinstance(connection, NvmeConnection):
            return self._locks.call(connection.lane, *arguments)
        with (
            self._locks.hold(connection.lane),
            self._nvme.undone_if_it_fails(connection, trail),
        ):
            return self._locks.call(connection.lane, *arguments)

    def _check_vendor(self, connection: VendorConnection) -> None:
        if connection.driver_volume_type == "gpfs":  # a file that is on this host anyway
            self._local.check_file(connection.properties().get("device_path"))
        trail = Trail(self._execute)
        try:
            self._connector(connection, trail)
        except FOREIGN as error:
            raise Unsupported(
                f"this host cannot connect {connection.driver_volume_type}: "
                f"{reason_of(error, trail)}; nothing was touched: install and configure the "
                "vendor's software"
            ) from error

    def _rescan(self, connection: Connection, device: Device) -> None:
        """Also before other programs' connects: os-brick makes multipathd read all anew."""
        trail, node = Trail(self._execute), self._devices.find(device.identity)
        properties = self._asked.to_extend(connection, device)
        if isinstance(connection, NvmeConnection):
            properties["device_path"] = node  # by itself os-brick may not know which one it is
        if isinstance(connection, SCSI) and self._which("lsscsi") is None:
            raise no_lsscsi()
        extend_volume = self._connector(connection, trail).extend_volume
        try:
            self._locks.extend(connection.lane, extend_volume, properties)
        except (*FOREIGN, NotImplementedError) as error:
            self._reader.refuse_lagging(device)
            raise extend_refusal(error, connection, trail) from error

    # what is there

    def _lacks_multipath(self, connector: Any, connection: Connection) -> bool:
        is_enforced = self._asked.of(connection).get("enforce_multipath")
        return bool(self._use_multipath and is_enforced and not connector.supports_multipath())
