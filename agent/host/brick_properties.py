"""What os-brick is told of a volume: the request's own words, and what it gets wrong by itself.

Of an iSCSI volume that is named by one portal it goes by what was ever discovered there. Where not
all targets are at the same portals that is other targets' devices with the same LUN, too.
"""

from typing import Any

from agent.host.identity import BlockDevices
from agent.model.connection import Connection, IscsiConnection
from agent.model.device import Device


class BrickProperties:
    def __init__(
        self, devices: BlockDevices, *, use_multipath: bool, enforce_multipath: bool
    ) -> None:
        self._devices = devices
        self._use_multipath = use_multipath
        self._enforce_multipath = enforce_multipath

    def of(self, connection: Connection) -> dict[str, Any]:
        """As they came, secrets included; os-brick may do with the dict what it likes."""
        properties = connection.properties()
        if properties.get("encrypted"):
            # QEMU decrypts. os-brick would hand out a link for dm-crypt instead of the device.
            properties["encrypted"] = False
        if isinstance(connection, IscsiConnection) and not self._use_multipath:
            properties.update(connection.one_way())
        if properties.get("ns_id") is not None:
            properties["ns_id"] = str(properties["ns_id"])  # os-brick compares it with sysfs's text
        if self._use_multipath and self._enforce_multipath:
            properties["enforce_multipath"] = True
        return properties

    def to_leave(self, connection: Connection, device: Device | None) -> dict[str, Any]:
        """For a disconnect. Where a connect discovers: the paths that are here."""
        properties = self.of(connection)
        if self._use_multipath and isinstance(connection, IscsiConnection):
            properties.update(self._ways_here(connection, device))
        return properties

    def _ways_here(self, connection: IscsiConnection, device: Device | None) -> dict[str, Any]:
        """Of the device, and of all sessions with its target; empty: the request names them."""
        one = connection.one_way()
        if not one:
            return {}
        [portal], [iqn], [lun] = one.values()
        ways = self._devices.iscsi_ways(device.identity) if device else set()
        ways |= {(found, iqn, lun) for found in self._devices.iscsi_portals(iqn)}
        ways |= {(portal, iqn, lun)}
        return dict(zip(one, map(list, zip(*sorted(ways), strict=True)), strict=True))
