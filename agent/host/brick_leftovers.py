"""What a disconnect of os-brick has left of a volume: looked for, and taken away where it is ours.

os-brick removes the paths that it sees at the volume's address, and the map that is on them. Paths
that come later stay, and so does a map whose paths went before: then nothing leads to it. Of a
session whose node record is gone iscsiadm says that it found nothing, and os-brick lets it be.
"""

import logging
import os
from collections.abc import Callable, Collection, Iterable, Sequence

from agent.errors import ConnectFailed
from agent.host.block_devices import BlockDevices
from agent.host.brick_locks import OsBrickLocks
from agent.host.brick_trail import ISCSI_NOTHING_FOUND, Execute, Trail
from agent.model.connection import Connection, Lane
from agent.model.device import Device, Disconnected

LOG = logging.getLogger(__name__)

FLUSH_SECONDS = 60
"""How long multipath may take for a map without paths. os-brick's five minutes are for data that
has yet to be written, and no other SCSI volume is connected meanwhile."""

LOGOUT_SECONDS = 30
"""Of a session without a device; iscsid's own limit is half of it."""


class Leftovers:
    """``remove`` takes SCSI devices away, as brick_library.remove_scsi_devices."""

    def __init__(
        self,
        devices: BlockDevices,
        locks: OsBrickLocks,
        remove: Callable[[Sequence[str], Execute], None],
    ) -> None:
        self._devices = devices
        self._locks = locks
        self._remove = remove

    def remove(self, connection: Connection, device: Device, trail: Trail) -> None:
        """Of the volume that our own connect found: what came after os-brick had looked, or by
        portals that the request does not name, and a map that has outlived its paths. What
        something is built on stays.  Raises what os-brick raises, also where a map is open."""
        if not self._ours_alone(device):
            return
        with self._locks.hold(connection.lane):
            left = self._ours_alone(device)  # anew: names are given away while one waits
            if left:
                names = ", ".join(sorted(left))
                LOG.warning("%s came late, by another way, or outlived its paths: removed", names)
            maps = {name for name in left if name.startswith("dm-")}
            if paths := sorted(left - maps):
                self._remove(paths, trail.execute)
            self._remove_empty(maps, trail)

    def log_out(self, lane: Lane, ways: Collection[tuple[str, str]], trail: Trail) -> None:
        """Of the sessions with these targets, by these portals, that show nothing. Their node
        records would have them back at the next boot.  Raises what os-brick raises."""
        if not self._devices.empty_sessions(ways):
            return
        with self._locks.hold(lane):  # no other program logs in, and has yet to scan
            for number, (portal, iqn) in self._devices.empty_sessions(ways).items():
                LOG.warning("iSCSI session %s shows nothing any more: logged out", number)
                self._iscsiadm(trail, "session", "-r", number, "--logout")
                self._iscsiadm(trail, "node", "-T", iqn, "-p", portal, "--op", "delete")

    def refuse_left(self, connection: Connection, device: Device | None) -> Disconnected:
        """Has the volume gone? os-brick can end well and leave the device.

        Raises ConnectFailed: it has not, and nothing else is to be waited for."""
        left = self._devices.find(device.identity) if device else None
        if device is None or left is None:
            return Disconnected()
        if connection.stays_until_unmapped:
            return Disconnected(awaiting_unmap=True)
        built = ", ".join(self._devices.built_on(device.identity))
        raise ConnectFailed(
            f"{left} is still on this host"
            + (f", held by {built}" if built else "")
            + "; it is tried again: see what uses it ('lsof', 'multipath -ll')"
        )

    def _iscsiadm(self, trail: Trail, *command: str) -> None:
        """It says that a session is there for some moments after that has gone."""
        trail.execute(
            *("iscsiadm", "-m", *command),
            run_as_root=True,
            check_exit_code=[0, ISCSI_NOTHING_FOUND],
            attempts=5,
            delay_on_retry=True,
            timeout=LOGOUT_SECONDS,
        )

    def _ours_alone(self, device: Device) -> set[str]:
        """Kernel names of what is here of it; none where something is built on it."""
        if "path" in device.identity or self._devices.built_on(device.identity):
            return set()
        return {os.path.basename(node) for node in self._devices.all_of(device.identity)}

    def _remove_empty(self, maps: Iterable[str], trail: Trail) -> None:
        """Device-mapper itself refuses for one that somebody has open."""
        for node in sorted(filter(self._devices.is_empty_map, maps)):
            name = self._devices.map_name(node)
            trail.execute("multipath", "-f", name, run_as_root=True, timeout=FLUSH_SECONDS)
