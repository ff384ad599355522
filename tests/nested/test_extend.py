"""Real storage grows under guests that run: by every path, or by none."""

from pathlib import Path
from typing import Any

import pytest

from tests.functional.orchestrator import Orchestrator, Wish
from tests.lab.guest import Guest
from tests.lab.patience import wait_until
from tests.nested.inside.iscsi import PORTAL, SECOND_PORTAL, Firewall, Target
from tests.nested.inside.leftovers import scsi_disks
from tests.nested.inside.nfs import VolumeFile
from tests.nested.inside.nvme import ADDRESSES
from tests.nested.inside.storage import Storage
from tests.nested.inside.stored import MIB
from tests.nested.inside.wishes import Volume, wish

LARGER = 48
BLOCK = Path("/sys/block")


def attached_to_both(
    orchestrator: Orchestrator,
    guests: list[Guest],
    volume: Volume,
    info: dict[str, Any],
    **more: Any,
) -> list[Wish]:
    wishes = [wish(guest, volume, info, **more) for guest in guests]
    for wanted in wishes:
        orchestrator.attached(wanted)
    return wishes


def all_see_it(
    orchestrator: Orchestrator, guests: list[Guest], wishes: list[Wish], volume_id: str
) -> None:
    """One request grows the disk of each guest, and they share what is new; then it goes."""
    rows = orchestrator.extended(volume_id, LARGER * MIB)
    for wanted in wishes:
        row = rows[wanted["attachment_id"]]
        assert (row["guest_size_bytes"], row["error"]) == (LARGER * MIB, None)
    names = [guest.wait_for_size(volume_id, LARGER * MIB) for guest in guests]
    guests[0].write(names[0], "behind", offset_mib=LARGER - 1)
    assert guests[-1].read(names[-1], offset_mib=LARGER - 1) == "behind"
    for wanted in wishes:
        orchestrator.detached(wanted)


def nobody_sees_it(
    orchestrator: Orchestrator, guests: list[Guest], volume_id: str, size_bytes: int
) -> None:
    answer = orchestrator.finish(orchestrator.client.extend(volume_id, LARGER * MIB))
    assert answer.error is not None
    assert (answer.state, answer.error.code) == ("undone", "not-all-paths"), answer.error
    for guest in guests:
        guest.wait_for_size(volume_id, size_bytes)


@pytest.mark.usefixtures("single_path")
@pytest.mark.exhaustive
def test_a_lun(orchestrator: Orchestrator, guests: list[Guest], storage: Storage) -> None:
    target, backing = storage.lun(4)
    wishes = attached_to_both(orchestrator, guests, backing, target.connection_info(4))
    backing.grow(LARGER)
    all_see_it(orchestrator, guests, wishes, backing.volume_id)


@pytest.mark.usefixtures("multipath")
class TestMultipath:
    @pytest.mark.exhaustive
    def test_a_map_of_two_paths(
        self, orchestrator: Orchestrator, guests: list[Guest], storage: Storage
    ) -> None:
        target, backing = storage.lun(portals=(PORTAL, SECOND_PORTAL))
        info = target.connection_info(0, multipath=True)
        wishes = attached_to_both(orchestrator, guests, backing, info)
        backing.grow(LARGER)
        all_see_it(orchestrator, guests, wishes, backing.volume_id)

    @pytest.mark.exhaustive
    def test_a_path_that_shows_the_old_size(
        self, orchestrator: Orchestrator, guests: list[Guest], storage: Storage
    ) -> None:
        """The other node of the array is a little behind."""
        first, second = storage.target(), storage.target(portals=(SECOND_PORTAL,))
        backing = storage.backing()
        first.map(0, backing)
        second.map(0, backing, backing.late_node())
        before = backing.size_bytes
        info = by_both(first, second)
        wishes = attached_to_both(orchestrator, guests, backing, info)
        assert len(scsi_disks()) == 2
        backing.grow(LARGER)
        nobody_sees_it(orchestrator, guests, backing.volume_id, before)
        backing.late_node_learns()
        all_see_it(orchestrator, guests, wishes, backing.volume_id)

    @pytest.mark.exhaustive
    def test_a_path_that_does_not_work(
        self,
        orchestrator: Orchestrator,
        guests: list[Guest],
        storage: Storage,
        firewall: Firewall,
    ) -> None:
        target, backing = storage.lun(portals=(PORTAL, SECOND_PORTAL))
        before = backing.size_bytes
        info = target.connection_info(0, multipath=True)
        wishes = attached_to_both(orchestrator, guests, backing, info)
        firewall.reject(SECOND_PORTAL)
        backing.grow(LARGER)
        nobody_sees_it(orchestrator, guests, backing.volume_id, before)
        firewall.open()
        wait_until(lambda: states() == {"running"}, "all paths are back", seconds=120)
        all_see_it(orchestrator, guests, wishes, backing.volume_id)


def states() -> set[str]:
    """Of the SCSI disks, by the kernel's word."""
    return {(BLOCK / name / "device/state").read_text().strip() for name in scsi_disks()}


def by_both(first: Target, second: Target) -> dict[str, Any]:
    """LUN 0 of two targets, as one volume."""
    lists = {
        "target_portals": [*first.portals, *second.portals],
        "target_iqns": [first.iqn, second.iqn],
        "target_luns": [0, 0],
    }
    return first.connection_info(0, **lists)


@pytest.mark.usefixtures("single_path")
@pytest.mark.exhaustive
def test_a_lun_that_guests_reach_by_themselves(
    orchestrator: Orchestrator, guests: list[Guest], storage: Storage
) -> None:
    """Each by an initiator of its own: the host has no device of it."""
    target, backing = storage.lun(4, chap=("user", "secret-of-chap"))
    info = target.connection_info(4)
    wishes = attached_to_both(orchestrator, guests, backing, info, initiator="instance")
    backing.grow(LARGER)
    all_see_it(orchestrator, guests, wishes, backing.volume_id)


@pytest.mark.exhaustive
def test_a_namespace(orchestrator: Orchestrator, guests: list[Guest], storage: Storage) -> None:
    subsystem, namespace = storage.subsystem(addresses=ADDRESSES), storage.namespace()
    subsystem.map(1, namespace)
    info = subsystem.connection_info(1)
    wishes = attached_to_both(orchestrator, guests, namespace, info)
    subsystem.grow(1, LARGER)
    all_see_it(orchestrator, guests, wishes, namespace.volume_id)


@pytest.mark.exhaustive
def test_a_raw_file(orchestrator: Orchestrator, guests: list[Guest], storage: Storage) -> None:
    """QEMU makes it larger, once."""
    volume = VolumeFile(storage.export())
    wishes = attached_to_both(orchestrator, guests, volume, volume.connection_info())
    all_see_it(orchestrator, guests, wishes, volume.volume_id)
    assert volume.file.stat().st_size == LARGER * MIB


@pytest.mark.exhaustive
def test_a_qcow2_file(orchestrator: Orchestrator, guests: list[Guest], storage: Storage) -> None:
    volume = VolumeFile(storage.export(), format="qcow2")
    wanted = wish(guests[0], volume, volume.connection_info(), multiattach=False)
    orchestrator.attached(wanted)
    all_see_it(orchestrator, guests[:1], [wanted], volume.volume_id)
    assert volume.file.stat().st_size < volume.size_bytes
