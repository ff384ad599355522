"""A guest's disk moves between real storage while it writes, and a neighbour of it writes on."""

import hashlib
from collections.abc import Mapping
from contextlib import ExitStack
from typing import Any

import pytest

from tests.functional.orchestrator import Orchestrator, Wish
from tests.lab.guest import Guest, block_of
from tests.nested.inside.iscsi import PORTAL, SECOND_PORTAL, Target
from tests.nested.inside.leftovers import (
    assert_clean,
    controllers,
    maps,
    mounts,
    scsi_disks,
    sessions,
)
from tests.nested.inside.nfs import VolumeFile
from tests.nested.inside.storage import Storage
from tests.nested.inside.stored import MIB
from tests.nested.inside.wishes import Volume, wish
from tests.nested.test_storm import writing

BYTES_A_SECOND = 4 * MIB
"""Of 32 MiB: so that the guest writes meanwhile."""


class Moving:
    """One guest's disk, from volume to volume."""

    def __init__(
        self, orchestrator: Orchestrator, guest: Guest, volume: Volume, info: Mapping[str, Any]
    ) -> None:
        self._orchestrator, self._guest, self._first = orchestrator, guest, volume
        self._wanted = wish(guest, volume, info, multiattach=False)
        orchestrator.attached(self._wanted)
        self._disk = guest.wait_for_disk(volume.volume_id).name
        self._moves = 0

    def to(self, volume: Volume, info: Mapping[str, Any]) -> None:
        """Under the guest that writes to its first 8 MiB."""
        self._moves += 1
        self._guest.write(self._disk, f"move-{self._moves}", offset_mib=8 + self._moves)
        before = self._still()
        new = wish(self._guest, volume, info, multiattach=False)
        with writing(self._guest, self._first) as trouble:
            answer = self._orchestrator.swap(
                self._wanted, new, bandwidth_bytes_per_second=BYTES_A_SECOND
            )
        assert (answer.state, answer.warnings, trouble) == ("done", (), []), answer
        assert self._still() == before
        self._guest.write(self._disk, f"moved-{self._moves}", offset_mib=20)
        self._wanted = new

    def lies_on(self, volume: Volume) -> None:
        """All that the guest has."""
        count_mib = volume.size_bytes // MIB
        stored = hashlib.sha256(volume.read(0, volume.size_bytes)).hexdigest()
        assert stored == self._guest.checksum(self._disk, count_mib=count_mib)
        assert volume.read(8 + self._moves) == block_of(f"move-{self._moves}")
        assert volume.read(20) == block_of(f"moved-{self._moves}")

    def _still(self) -> str:
        return self._guest.checksum(self._disk, offset_mib=8, count_mib=24)

    def ends(self) -> None:
        assert self._orchestrator.detached(self._wanted)["disconnected"] is True
        self._guest.wait_for_no_disk(self._first.volume_id)


class Neighbour(ExitStack):
    """Another guest's disk on LUN 0 of the target, which it writes and verifies throughout."""

    def __init__(
        self, orchestrator: Orchestrator, guest: Guest, storage: Storage, target: Target
    ) -> None:
        super().__init__()
        self._orchestrator = orchestrator
        backing = storage.backing()
        target.map(0, backing)
        info = target.connection_info(0, multipath=len(target.portals) > 1)
        self._wanted: Wish = wish(guest, backing, info, multiattach=False)
        orchestrator.attached(self._wanted)
        self._trouble = self.enter_context(writing(guest, backing))

    def ends(self) -> None:
        self.close()
        assert self._trouble == []
        self._orchestrator.detached(self._wanted)


@pytest.mark.exhaustive
@pytest.mark.usefixtures("multipath")
def test_from_lun_to_lun_of_one_target_by_two_paths(
    orchestrator: Orchestrator, guests: list[Guest], storage: Storage
) -> None:
    target = storage.target(portals=(PORTAL, SECOND_PORTAL))
    old, new = storage.backing(), storage.backing()
    target.map(3, old)
    target.map(11, new)
    with Neighbour(orchestrator, guests[1], storage, target) as neighbour:
        moving = Moving(orchestrator, guests[0], old, target.connection_info(3, multipath=True))
        before = maps()
        moving.to(new, target.connection_info(11, multipath=True))
        moving.lies_on(new)
        assert len(maps()) == len(before) == 2
        assert maps() != before
        assert len(scsi_disks()) == 4
        moving.ends()
        assert sessions() == {target.iqn}
        neighbour.ends()
    assert_clean()


@pytest.mark.usefixtures("single_path")
class TestAcrossProtocols:
    @pytest.mark.exhaustive
    def test_from_a_lun_to_files_and_back(
        self, orchestrator: Orchestrator, guests: list[Guest], storage: Storage
    ) -> None:
        """Raw, then qcow2 of another export."""
        target, old, back = storage.target(), storage.backing(), storage.backing()
        target.map(3, old)
        target.map(11, back)
        raw = VolumeFile(storage.export())
        image = VolumeFile(storage.export(), format="qcow2")
        with Neighbour(orchestrator, guests[1], storage, target) as neighbour:
            moving = Moving(orchestrator, guests[0], old, target.connection_info(3))
            moving.to(raw, raw.connection_info())
            moving.lies_on(raw)
            assert (sessions(), len(scsi_disks())) == ({target.iqn}, 1)
            moving.to(image, image.connection_info())
            assert mounts() == {image.export.source}
            moving.to(back, target.connection_info(11))
            moving.lies_on(back)
            assert (mounts(), len(scsi_disks())) == (set(), 2)
            moving.ends()
            neighbour.ends()
        assert_clean()

    @pytest.mark.exhaustive
    def test_from_a_lun_to_a_namespace_and_back(
        self, orchestrator: Orchestrator, guests: list[Guest], storage: Storage
    ) -> None:
        target, backing = storage.lun()
        subsystem, namespace = storage.subsystem(), storage.namespace()
        subsystem.map(1, namespace)
        moving = Moving(orchestrator, guests[0], backing, target.connection_info(0))
        moving.to(namespace, subsystem.connection_info(1))
        moving.lies_on(namespace)
        assert (sessions(), controllers()) == (set(), {subsystem.nqn})
        moving.to(backing, target.connection_info(0))
        moving.lies_on(backing)
        assert (sessions(), controllers()) == ({target.iqn}, set())
        moving.ends()
        assert_clean()
