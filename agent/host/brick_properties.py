"""What os-brick is told of a volume: the request's own words, and what it gets wrong by itself.

Of an iSCSI volume that is named by one portal it goes by what was ever discovered there. Where not
all targets are at the same portals that is other targets' devices with the same LUN, too.
"""

from collections.abc import Mapping
from typing import Any

from agent.host.block_devices import BlockDevices
from agent.model.connection import Connection, IscsiConnection
from agent.model.device import Device

WAYS = ("target_portals", "target_iqns", "target_luns")
"""os-brick's columns of them."""


class Unshown(str):
    """Text that os-brick, which logs what it is given (debug), takes for no secret and is one."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "'***'"


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
        if connection.export not in (None, *connection.targets):
            properties["export"] = Unshown(properties["export"])
        return properties

    def to_leave(self, connection: Connection, device: Device | None) -> dict[str, Any]:
        """For a disconnect: by every session with the target, too."""
        return {**self.of(connection), **self._discovered(connection, device, all_sessions=True)}

    def ways_to_leave(
        self, connection: Connection, told: Mapping[str, Any], device: Device | None
    ) -> set[tuple[str, str]]:
        """(portal, IQN) of the sessions that nobody may need afterwards: those that os-brick is
        told of, and those with the volume's targets by which its device came for others."""
        if not isinstance(connection, IscsiConnection):
            return set()
        here = self._devices.iscsi_ways(device.identity) if device else set()
        by_others = {(portal, iqn) for portal, iqn, _ in here if iqn in connection.targets}
        return by_others | set(zip(told[WAYS[0]], told[WAYS[1]], strict=True))

    def to_extend(self, connection: Connection, device: Device) -> dict[str, Any]:
        """For an extend: os-brick makes no other path look again than those it is told of."""
        return {**self.of(connection), **self._discovered(connection, device, all_sessions=False)}

    def _discovered(
        self, connection: Connection, device: Device | None, *, all_sessions: bool
    ) -> dict[str, Any]:
        """The ways that are here, where the request names one and a connect has discovered others;
        else nothing: it names them itself."""
        if not (self._use_multipath and isinstance(connection, IscsiConnection)):
            return {}
        one = connection.one_way()
        if not one:
            return {}
        [portal], [iqn], [lun] = one.values()
        here = self._devices.iscsi_ways(device.identity) if device else set()
        asked = connection.data.lun_there
        ways = {(portal, iqn, lun), *((by, who, asked(number)) for by, who, number in here)}
        if all_sessions:
            ways |= {(by, iqn, lun) for by in self._devices.iscsi_portals(iqn)}
        return dict(zip(one, map(list, zip(*sorted(ways), strict=True)), strict=True))


def by_ways_of(connection: Connection, told: Mapping[str, Any]) -> Connection:
    """The volume by every way that os-brick is told."""
    if not isinstance(connection, IscsiConnection):
        return connection
    ways = {key: tuple(told[key]) for key in WAYS if told.get(key)}
    return connection.model_copy(update={"data": connection.data.model_copy(update=ways)})
