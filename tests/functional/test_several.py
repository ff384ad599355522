"""Several volumes in one request, and volumes of an instance whose domain comes later."""

import pytest

from agent.model.outcome import Answer
from tests.functional.conftest import BARE, MakeVolume
from tests.functional.orchestrator import Orchestrator, Wish, disks_of, wish
from tests.lab.guest import Guest, Shape
from tests.lab.lab import Lab
from tests.lab.loop_volume import LoopVolume

pytestmark = pytest.mark.real


def results(answer: Answer) -> dict[str, dict[str, object]]:
    """{attachment: its row}"""
    assert answer.state == "done", answer
    assert isinstance(answer.result, list)
    return {row["attachment_id"]: row for row in answer.result}


def test_a_batch_gives_the_guest_every_disk(
    orchestrator: Orchestrator, guests: list[Guest], make_volume: MakeVolume
) -> None:
    guest, volumes = guests[0], [make_volume() for _ in range(3)]
    kinds = ({"bus": "scsi"}, {}, {"target_dev": "vdx"})
    wishes = [wish(guest, one, disk=disk) for one, disk in zip(volumes, kinds, strict=True)]
    rows = results(orchestrator.finish(orchestrator.client.attach_batch(wishes)))
    assert list(rows) == [wanted["attachment_id"] for wanted in wishes]
    for volume, wanted in zip(volumes, wishes, strict=True):
        name = guest.wait_for_disk(volume.volume_id).name
        guest.write(name, f"of-{volume.volume_id[:8]}")
        assert guest.read(name) == f"of-{volume.volume_id[:8]}"
        assert len(disks_of(guest, wanted)) == 2
    for wanted in wishes:
        orchestrator.detached(wanted)


def test_a_batch_of_which_one_is_not_what_it_should_be_leaves_the_guest_alone(
    orchestrator: Orchestrator, guests: list[Guest], make_volume: MakeVolume
) -> None:
    right, wrong = make_volume(), make_volume()
    wishes = [wish(guests[0], right), wish(guests[0], wrong, size_bytes=wrong.size_bytes + 512)]
    before = guests[0].xml()
    answer = orchestrator.finish(orchestrator.client.attach_batch(wishes))
    assert answer.error is not None
    assert (answer.state, answer.error.code) == ("undone", "wrong-device")
    assert guests[0].xml() == before
    assert [row["volume_id"] for row in orchestrator.client.list_quarantine()] == [wrong.volume_id]
    assert (right.users(), wrong.users()) == ((), ())
    orchestrator.client.release_quarantine(wrong.volume_id)


def test_a_batch_that_does_not_fit_is_refused_before_storage_is_touched(
    orchestrator: Orchestrator, lab: Lab, make_volume: MakeVolume
) -> None:
    guest = lab.guest(shape=BARE)
    wishes = [wish(guest, make_volume(size_mib=8)) for _ in range(BARE.spare_ports + 1)]
    answer = orchestrator.finish(orchestrator.client.attach_batch(wishes))
    assert answer.error is not None
    assert answer.error.code == "no-free-address"
    assert "nothing was touched" in answer.error.detail
    guest.destroy()
    guest.undefine()


def test_two_instances_boot_with_one_volume_and_leave_it(
    orchestrator: Orchestrator, lab: Lab, volume: LoopVolume
) -> None:
    """Connected for both at once, defined from what that answered, run, and gone again."""
    coming = [lab.guest(start=False, shape=Shape(has_system=False)) for _ in range(2)]
    wishes = [
        wish(guest, volume, multiattach=True, disk={"boot_order": 1, "target_dev": "vda"})
        for guest in coming
    ]
    for guest in coming:
        guest.undefine()  # the lab has defined them without the disk
    client = orchestrator.client
    accepted = [
        client.connect_instance(guest.uuid, [wanted])
        for guest, wanted in zip(coming, wishes, strict=True)
    ]
    for guest, wanted, answer in zip(coming, wishes, accepted, strict=True):
        xml = results(orchestrator.finish(answer))[wanted["attachment_id"]]["disk_xml"]
        guest.shape = Shape(has_system=False, disks=(str(xml),))
        guest.define()
        guest.start()
        assert_boots_first(guest, wanted)
    assert client.audit()["findings"] == []
    assert len(volume.users()) == 2

    running = orchestrator.finish(client.disconnect_instance(coming[0].uuid))
    assert running.error is not None
    assert (running.state, running.error.code) == ("undone", "busy")
    assert len(volume.users()) == 2

    last = []
    for guest, wanted in zip(coming, wishes, strict=True):
        guest.destroy()
        guest.undefine()
        rows = results(orchestrator.finish(client.disconnect_instance(guest.uuid)))
        last.append(rows[wanted["attachment_id"]]["disconnected"])
    assert last == [False, True]


def test_what_was_connected_is_detached_from_its_running_guest(
    orchestrator: Orchestrator, lab: Lab, volume: LoopVolume
) -> None:
    guest = lab.guest(start=False, shape=BARE)
    guest.undefine()
    wanted = wish(guest, volume, disk={"bus": "scsi"})
    answer = orchestrator.finish(orchestrator.client.connect_instance(guest.uuid, [wanted]))
    xml = results(answer)[wanted["attachment_id"]]["disk_xml"]
    guest.shape = Shape(has_system=False, spare_ports=4, memory_mib=32, disks=(str(xml),))
    guest.define()
    guest.start()
    assert len(disks_of(guest, wanted)) == 2
    assert orchestrator.detached(wanted)["disconnected"] is True
    assert disks_of(guest, wanted) == []
    guest.destroy()
    guest.undefine()


def assert_boots_first(guest: Guest, wanted: Wish) -> None:
    for disk in disks_of(guest, wanted):
        assert disk.find("boot").get("order") == "1"
        assert disk.find("target").get("dev") == "vda"
        assert disk.find("shareable") is not None
