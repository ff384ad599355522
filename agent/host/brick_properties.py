"""What os-brick is told of a volume: the request's own words, and what it gets wrong by itself.

Of an iSCSI volume that is named by one portal it goes by what was ever discovered there. Where not
all targets are at the same portals that is other targets' devices with the same LUN, too.
"""

from typing import Any

from agent.host.identity import BlockDevices
from agent.model.connection import Connection, IscsiConnection
from agent.model.device import Device

IscsiPath = tuple[str, str, int]
"""Portal, IQN, and the LUN as the kernel numbers it."""

WAYS = ("target_portals", "target_iqns", "target_luns")
"""os-brick's columns of them."""


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
        return self._by_paths(connection, self._sessions_with(connection) | self._paths_of(device))

    def as_left(self, connection: Connection, device: Device) -> Connection:
        """The volume by every way that ``to_leave`` names."""
        if not isinstance(connection, IscsiConnection):
            return connection
        named = self.to_leave(connection, device)
        ways = {key: tuple(named[key]) for key in WAYS if named.get(key)}
        return connection.model_copy(update={"data": connection.data.model_copy(update=ways)})

    def to_extend(self, connection: Connection, device: Device) -> dict[str, Any]:
        """For an extend: os-brick makes no other path look again than those it is told of."""
        return self._by_paths(connection, self._paths_of(device))

    def _by_paths(self, connection: Connection, paths: set[IscsiPath]) -> dict[str, Any]:
        """With ``paths`` beside the one that the request names, where it names one and a connect
        has discovered others."""
        properties = self.of(connection)
        if not (self._use_multipath and isinstance(connection, IscsiConnection)):
            return properties
        if one := connection.one_way():
            [portal], [iqn], [lun] = one.values()
            asked = connection.data.lun_there
            ways = {(portal, iqn, lun), *((by, who, asked(here)) for by, who, here in paths)}
            columns = map(list, zip(*sorted(ways), strict=True))
            properties.update(zip(one, columns, strict=True))
        return properties

    def _paths_of(self, device: Device | None) -> set[IscsiPath]:
        return self._devices.iscsi_ways(device.identity) if device else set()

    def _sessions_with(self, connection: Connection) -> set[IscsiPath]:
        """All sessions with its target."""
        if not isinstance(connection, IscsiConnection):
            return set()
        [(_, iqn, lun), *_] = connection.addresses
        number = connection.data.lun_here(lun)
        return {(portal, iqn, number) for portal in self._devices.iscsi_portals(iqn)}
