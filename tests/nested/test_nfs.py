"""Files on an NFS export: the format is the request's, mounts go with their last user."""

import pytest

from tests.functional.orchestrator import Orchestrator
from tests.lab.guest import Guest
from tests.lab.patience import wait_until
from tests.nested.inside.agent import Agent
from tests.nested.inside.leftovers import mounts
from tests.nested.inside.nfs import VolumeFile
from tests.nested.inside.storage import Storage
from tests.nested.inside.wishes import ORDERS, share_between, wish


@ORDERS
def test_a_raw_file_is_shared(
    orchestrator: Orchestrator,
    guests: list[Guest],
    storage: Storage,
    order: tuple[int, int],
) -> None:
    volume = VolumeFile(storage.export())
    share_between(orchestrator, guests, volume, volume.connection_info(), order)


@pytest.mark.exhaustive
def test_a_qcow2_file_is_one_guests(
    orchestrator: Orchestrator, guests: list[Guest], storage: Storage
) -> None:
    volume = VolumeFile(storage.export(), format="qcow2")
    wanted = wish(guests[0], volume, volume.connection_info(), multiattach=False)
    orchestrator.attached(wanted)
    disk = guests[0].wait_for_disk(volume.volume_id)
    assert disk.size_bytes == volume.size_bytes
    guests[0].write(disk.name, "in-qcow2", offset_mib=3)
    assert orchestrator.detached(wanted)["disconnected"] is True
    assert volume.read(3).startswith(b"in-qcow2")


@pytest.mark.exhaustive
def test_a_raw_file_that_looks_like_qcow2_is_raw(
    orchestrator: Orchestrator, guests: list[Guest], storage: Storage
) -> None:
    """A guest could write a header that names any file of the host: nothing is probed."""
    volume = VolumeFile(storage.export(), format="qcow2")
    info = volume.connection_info(format="raw")
    wanted = wish(guests[0], volume, info, multiattach=False, size_bytes=None)
    del wanted["size_bytes"]
    orchestrator.attached(wanted)
    disk = guests[0].wait_for_disk(volume.volume_id)
    assert disk.size_bytes < volume.size_bytes
    orchestrator.detached(wanted)


def test_a_mount_goes_with_its_last_user_even_after_a_restart(
    orchestrator: Orchestrator,
    guests: list[Guest],
    storage: Storage,
    agent: Agent,
) -> None:
    export = storage.export()
    volumes = [VolumeFile(export), VolumeFile(export)]
    wishes = [
        wish(guest, volume, volume.connection_info())
        for guest, volume in zip(guests, volumes, strict=True)
    ]
    for wanted in wishes:
        orchestrator.attached(wanted)
    assert mounts() == {export.source}
    agent.restart()
    orchestrator.detached(wishes[0])
    assert mounts() == {export.source}
    name = guests[1].wait_for_disk(volumes[1].volume_id).name
    guests[1].write(name, "still-there")
    orchestrator.detached(wishes[1])
    wait_until(lambda: mounts() == set(), "the mount is gone", seconds=30)
