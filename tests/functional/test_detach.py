"""detach: the guest lets go, the definition forgets, the volume leaves the host; in this order."""

import uuid

import libvirt
import pytest

from tests.functional.conftest import BARE, MakeVolume
from tests.functional.orchestrator import Orchestrator, alias_of, disks_of, step_states, wish
from tests.functional.stranger import alias, is_plugged, plug, unplug
from tests.lab.guest import Guest
from tests.lab.lab import Lab
from tests.lab.loop_volume import LoopVolume
from tests.lab.patience import wait_until

pytestmark = pytest.mark.real


@pytest.mark.parametrize("bus", ["virtio", "scsi"])
def test_nothing_is_left_of_a_disk(
    orchestrator: Orchestrator, guests: list[Guest], volume: LoopVolume, bus: str
) -> None:
    wanted = wish(guests[0], volume, disk={"bus": bus})
    orchestrator.attached(wanted)
    guests[0].wait_for_disk(volume.volume_id)
    result = orchestrator.detached(wanted)
    assert result == {"disconnected": True, "awaiting_unmap": False, "instance_present": True}
    assert disks_of(guests[0], wanted) == []
    assert guests[0].find_disk(volume.volume_id) is None
    volume.assert_unused()


def test_the_others_of_a_guest_stay(
    orchestrator: Orchestrator, guests: list[Guest], make_volume: MakeVolume
) -> None:
    volumes = [make_volume() for _ in range(3)]
    wishes = [wish(guests[0], volume) for volume in volumes]
    for wanted in wishes:
        orchestrator.attached(wanted)
    orchestrator.detached(wishes[1])
    for volume in (volumes[0], volumes[2]):
        name = guests[0].wait_for_disk(volume.volume_id).name
        guests[0].write(name, "stays")
        assert guests[0].read(name) == "stays"
    orchestrator.detached(wishes[0])
    orchestrator.detached(wishes[2])


def test_a_disk_held_open_in_the_guest_leaves_all_the_same(
    orchestrator: Orchestrator, guests: list[Guest], volume: LoopVolume
) -> None:
    wanted = wish(guests[0], volume)
    orchestrator.attached(wanted)
    name = guests[0].wait_for_disk(volume.volume_id).name
    guests[0].hold(name)
    orchestrator.detached(wanted)
    guests[0].let_go(name)


def test_a_paused_guest_keeps_its_disk_until_it_goes_on(
    orchestrator: Orchestrator, guests: list[Guest], volume: LoopVolume
) -> None:
    guest = guests[1]
    wanted = wish(guest, volume)
    orchestrator.attached(wanted)
    guest.wait_for_disk(volume.volume_id)
    guest.pause()
    try:
        accepted = orchestrator.ask_to_detach(wanted)
        waiting = orchestrator.wait_for_state(accepted, "waiting")
        assert waiting.waiting_for is not None
        assert "the guest to release" in waiting.waiting_for
        assert len(disks_of(guest, wanted)) == 2, "the definition forgot it first"
        assert len(volume.users()) == 1
    finally:
        guest.resume()
    assert orchestrator.finish(accepted).state == "done"


def test_of_a_guest_that_is_shut_off_the_definition_forgets(
    orchestrator: Orchestrator, lab: Lab, volume: LoopVolume
) -> None:
    guest = lab.guest(shape=BARE, start=False)
    wanted = wish(guest, volume)
    orchestrator.attached(wanted)
    orchestrator.detached(wanted)
    assert disks_of(guest, wanted) == []
    guest.undefine()


def test_a_transient_guest_lets_go(
    orchestrator: Orchestrator, lab: Lab, volume: LoopVolume
) -> None:
    guest = lab.guest(shape=BARE, is_persistent=False)
    wanted = wish(guest, volume, disk={"bus": "scsi"})
    orchestrator.attached(wanted)
    assert orchestrator.detached(wanted)["instance_present"] is True
    guest.destroy()


@pytest.mark.parametrize("is_persistent", [True, False], ids=["undefined", "transient-ended"])
def test_when_the_instance_is_gone_the_volume_leaves_the_host(
    orchestrator: Orchestrator, lab: Lab, volume: LoopVolume, is_persistent: bool
) -> None:
    guest = lab.guest(shape=BARE, is_persistent=is_persistent)
    wanted = wish(guest, volume)
    orchestrator.attached(wanted)
    guest.destroy()
    if is_persistent:
        guest.undefine()
    result = orchestrator.detached(wanted)
    assert result == {"disconnected": True, "awaiting_unmap": False, "instance_present": False}


@pytest.mark.parametrize(
    "half",
    [libvirt.VIR_DOMAIN_AFFECT_LIVE, libvirt.VIR_DOMAIN_AFFECT_CONFIG],
    ids=["running guest", "definition"],
)
def test_a_disk_in_one_half_leaves_too(
    orchestrator: Orchestrator, guests: list[Guest], volume: LoopVolume, half: int
) -> None:
    wanted = wish(guests[0], volume, disk={"bus": "scsi"})
    orchestrator.attached(wanted)
    guests[0].domain.detachDeviceAlias(alias_of(wanted), half)
    # Not both at once: libvirt 9.0.0 forgets to close the device when two ask QEMU for it.
    wait_until(lambda: len(disks_of(guests[0], wanted)) == 1, "one half is left", seconds=10)
    orchestrator.detached(wanted)
    assert disks_of(guests[0], wanted) == []


def test_detached_once_more_it_is_already_so(
    orchestrator: Orchestrator, guests: list[Guest], volume: LoopVolume
) -> None:
    wanted = wish(guests[0], volume)
    orchestrator.attached(wanted)
    orchestrator.detached(wanted)
    assert orchestrator.detached(wanted)["disconnected"] is True


def test_what_this_agent_never_saw_needs_the_whole_attachment(
    orchestrator: Orchestrator, guests: list[Guest], volume: LoopVolume
) -> None:
    """Plugged by an agent whose journal is lost: alias and serial say that it is ours."""
    guest = guests[0]
    plug(guest, volume)
    attachment_id = alias(volume).removeprefix("ua-")
    wanted = {**wish(guest, volume, multiattach=True), "attachment_id": attachment_id}

    refused = orchestrator.detach(wanted)
    assert refused.state == "refused"
    assert refused.error is not None
    assert refused.error.code == "unknown-attachment"
    assert is_plugged(guest, volume)

    assert orchestrator.detached(wanted, attachment=wanted)["disconnected"] is True
    assert not is_plugged(guest, volume)


def test_a_disk_with_our_alias_and_another_serial_is_not_touched(
    orchestrator: Orchestrator, guests: list[Guest], make_volume: MakeVolume
) -> None:
    guest, other, ours = guests[0], make_volume(), make_volume()
    plug(guest, other)
    attachment_id = alias(other).removeprefix("ua-")
    wanted = {**wish(guest, ours), "attachment_id": attachment_id}
    accepted = orchestrator.ask_to_detach(wanted, attachment=wanted)
    answer = orchestrator.finish(accepted)
    assert answer.state == "undone"
    assert answer.error is not None
    assert answer.error.code == "wrong-device"
    assert other.volume_id in answer.error.detail
    assert step_states(answer)["disconnect-volume"] == "planned"
    assert is_plugged(guest, other)
    unplug(guest, other)


def test_the_instance_must_be_the_attachments(
    orchestrator: Orchestrator, guests: list[Guest], volume: LoopVolume
) -> None:
    wanted = wish(guests[0], volume)
    orchestrator.attached(wanted)
    refused = orchestrator.client.detach(wanted["attachment_id"], str(uuid.uuid4()))
    assert refused.state == "refused"
    assert refused.error is not None
    assert refused.error.code == "invalid"
    assert guests[0].uuid in refused.error.detail
    orchestrator.detached(wanted)
