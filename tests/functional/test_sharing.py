"""One volume, several guests at once: the main job."""

import itertools
import shutil

import pytest

from tests.functional.orchestrator import Orchestrator, disks_of, step_states, wish
from tests.functional.stranger import plug, unplug
from tests.lab.guest import Guest, GuestRefused, block_of
from tests.lab.loop_volume import LoopVolume

pytestmark = pytest.mark.real


def test_two_writers_and_a_reader_share_every_byte(
    orchestrator: Orchestrator, guests: list[Guest], volume: LoopVolume
) -> None:
    first, second, reader = guests[:3]
    wishes = [
        wish(guest, volume, multiattach=True, access_mode=mode)
        for guest, mode in ((first, "rw"), (second, "rw"), (reader, "ro"))
    ]
    for wanted in wishes:
        orchestrator.attached(wanted)
    names = {guest: guest.wait_for_disk(volume.volume_id).name for guest in (first, second, reader)}
    assert reader.wait_for_disk(volume.volume_id).read_only

    for number, writer in enumerate((first, second, first, second)):
        word = f"word-{number}-of-{writer.name}"
        writer.write(names[writer], word, offset_mib=number)
        for guest, name in names.items():
            assert guest.read(name, offset_mib=number) == word
        assert volume.read(offset_mib=number) == block_of(word)
    assert len({guest.checksum(name, count_mib=4) for guest, name in names.items()}) == 1

    with pytest.raises(GuestRefused):
        reader.write(names[reader], "forbidden", offset_mib=1)
    assert first.read(names[first], offset_mib=1) == f"word-1-of-{second.name}"

    for wanted in wishes:
        orchestrator.detached(wanted)


@pytest.mark.parametrize("order", [*itertools.permutations(range(3))], ids=str)
def test_the_last_to_leave_takes_the_volume_off_the_host(
    orchestrator: Orchestrator, guests: list[Guest], volume: LoopVolume, order: tuple[int, ...]
) -> None:
    wishes = [wish(guest, volume, multiattach=True) for guest in guests[:3]]
    for wanted in wishes:
        orchestrator.attached(wanted)
    left = list(range(3))
    for leaving in order:
        result = orchestrator.detached(wishes[leaving])
        left.remove(leaving)
        assert result["disconnected"] is (not left)
        for number in left:
            name = guests[number].wait_for_disk(volume.volume_id).name
            guests[number].write(name, f"still-{number}")
            assert guests[number].read(name) == f"still-{number}"
    for guest in guests[:3]:
        assert guest.find_disk(volume.volume_id) is None


def test_a_detach_that_is_repeated_says_who_has_the_volume_now(
    orchestrator: Orchestrator, guests: list[Guest], volume: LoopVolume
) -> None:
    """A new request for an attachment that has ended: what it says is unmapped by."""
    wishes = [wish(guest, volume, multiattach=True) for guest in guests[:2]]
    for wanted in wishes:
        orchestrator.attached(wanted)
    for _ in range(2):
        assert orchestrator.detached(wishes[0])["disconnected"] is False
    assert orchestrator.detached(wishes[1])["disconnected"] is True
    for wanted in wishes:
        assert orchestrator.detached(wanted)["disconnected"] is True


def test_a_detach_that_is_asked_again_tells_who_uses_the_volume_by_then(
    orchestrator: Orchestrator, guests: list[Guest], volume: LoopVolume
) -> None:
    """An orchestrator unmaps the volume by the answer."""
    first, second = (wish(guest, volume, multiattach=True) for guest in guests[:2])
    for wanted in (first, second):
        orchestrator.attached(wanted)
    assert orchestrator.detached(first)["disconnected"] is False
    assert orchestrator.detached(first)["disconnected"] is False
    assert len(volume.users()) == 1
    assert orchestrator.detached(second)["disconnected"] is True
    assert orchestrator.detached(first)["disconnected"] is True


def test_a_shared_disk_is_never_cached_whatever_was_asked(
    orchestrator: Orchestrator, guests: list[Guest], volume: LoopVolume
) -> None:
    wanted = wish(guests[0], volume, multiattach=True, disk={"cache": "writeback"})
    answer = orchestrator.attach(wanted)
    assert answer.state == "done", answer
    assert any("cache" in warning for warning in answer.warnings)
    caches = [disk.find("driver").get("cache") for disk in disks_of(guests[0], wanted)]
    assert caches == ["none", "none"]
    orchestrator.detached(wanted)


@pytest.mark.parametrize(("first", "second"), [(True, False), (False, True), (False, False)])
def test_an_exclusive_attachment_shares_with_nobody(
    orchestrator: Orchestrator,
    guests: list[Guest],
    volume: LoopVolume,
    first: bool,
    second: bool,
) -> None:
    there = wish(guests[0], volume, multiattach=first)
    orchestrator.attached(there)
    refused = orchestrator.attach(wish(guests[1], volume, multiattach=second))
    assert refused.error is not None
    assert refused.error.code == "sharing-conflict"
    assert guests[0].uuid in refused.error.detail
    assert len(volume.users()) == 1
    orchestrator.detached(there)


def test_a_volume_that_somebody_else_plugged_is_refused_by_the_domains_name(
    orchestrator: Orchestrator, guests: list[Guest], volume: LoopVolume
) -> None:
    """libvirt is asked, not only our journal."""
    stranger = guests[3]
    plug(stranger, volume, shareable=False)
    refused = orchestrator.attach(wish(guests[0], volume, multiattach=True))
    assert refused.error is not None
    assert refused.error.code == "sharing-conflict"
    assert stranger.name in refused.error.detail
    assert step_states(refused)["connect-volume"] == "planned"
    unplug(stranger, volume)


def test_reservations_need_a_device_that_takes_scsi_commands(
    orchestrator: Orchestrator, guests: list[Guest], volume: LoopVolume
) -> None:
    """A loop device is none. Whether this host has what else they need ``describe`` tells."""
    disk = {"bus": "scsi", "type": "lun", "reservations": "managed"}
    undone = orchestrator.attach(wish(guests[0], volume, multiattach=True, disk=disk))
    assert (undone.state, undone.error and undone.error.code) == ("undone", "unsupported")
    assert undone.error is not None
    can = shutil.which("qemu-pr-helper") is not None
    assert ("reservations" not in orchestrator.client.describe()["missing"]) is can
    assert ("takes no SCSI commands" if can else "qemu-pr-helper") in undone.error.detail
