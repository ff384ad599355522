"""detach, from the request to the answer; and what an operator's abandoning leaves."""

from typing import Any

from agent.operations import plan_of
from tests.unit.saga.stories import (
    ONE,
    SHARED,
    TWO,
    away,
    device_stays,
    guest_is,
    leave_alone,
    lose_journal,
    occupy,
    plug_refused,
    reset,
    still_defined,
)
from tests.world.story import (
    VOLUMES,
    attach,
    attached,
    attachment,
    cancel,
    detach,
    disconnect_instance,
    request_id,
)
from tests.world.world import World


def result(world: World, request: int = 1) -> dict[str, Any]:
    found = world.record(request_id(request)).result
    assert found is not None
    return found


def test_the_last_user_disconnects(world: World) -> None:
    world.domains.add(TWO)
    attached(world, 1, **SHARED)
    attached(world, 2, instance=2, **SHARED)
    detach(1)(world)
    world.run()
    assert result(world)["disconnected"] is False
    detach(2, 2, instance=2)(world)
    world.run()
    assert result(world, 2)["disconnected"] is True
    assert world.storage.devices == {}


def test_a_guest_that_went_is_not_present(world: World) -> None:
    attached(world)
    world.domains.undefine(ONE)
    detach(1)(world)
    world.run()
    assert result(world) == {
        "disconnected": True,
        "awaiting_unmap": False,
        "instance_present": False,
    }


def test_the_definition_keeps_the_disk_until_the_guest_lets_go(world: World) -> None:
    attached(world)
    guest_is("stubborn")(world)
    detach(1)(world)
    world.run()
    still_defined(world)
    reset(world)
    world.run()
    assert "ua-att-1" not in (world.domains.guests[ONE].inactive or "")


def test_a_quarantined_device_stays_and_the_answer_says_so(world: World) -> None:
    attached(world)
    device = world.record(request_id(901)).part.device
    assert device is not None
    world.journal.write(lambda book: book.quarantine(VOLUMES[0], device, "odd", 0.0))
    detach(1)(world)
    world.run()
    record = world.record(request_id(1))
    assert record.result is not None
    assert record.result["disconnected"] is False
    assert record.warnings == (
        f"volume {VOLUMES[0]} is quarantined: its device stays on this host",
    )


# asked again, when the attachment has ended


def ask_again(world: World, request: int, number: int = 1, *, instance: int = 1) -> dict[str, Any]:
    detach(request, number, instance=instance)(world)
    world.run()
    return result(world, request)


def test_an_ended_attachment_says_whether_others_use_the_volume(world: World) -> None:
    world.domains.add(TWO)
    attached(world, 1, **SHARED)
    attached(world, 2, instance=2, **SHARED)
    assert ask_again(world, 1)["disconnected"] is False
    assert ask_again(world, 2)["disconnected"] is False
    assert ask_again(world, 3, 2, instance=2)["disconnected"] is True
    assert ask_again(world, 4)["disconnected"] is True


def test_an_ended_attachment_says_when_a_stranger_has_the_device(world: World) -> None:
    """A disk that another tool plugged is found by where the volume was."""
    attached(world)
    device = world.record(request_id(901)).part.device
    assert device is not None
    assert ask_again(world, 1)["disconnected"] is True
    world.domains.add(TWO)
    world.domains.define(
        TWO,
        f"<disk type='block' device='disk'><source dev='{device.path}'/>"
        "<target dev='vdq' bus='virtio'/></disk>",
    )
    assert ask_again(world, 2)["disconnected"] is False


def test_an_ended_attachment_is_not_disconnected_while_the_last_user_tries(world: World) -> None:
    world.domains.add(TWO)
    attached(world, 1, **SHARED)
    attached(world, 2, instance=2, **SHARED)
    ask_again(world, 1)
    device_stays(world)
    detach(2, 2, instance=2)(world)
    world.run()
    assert world.record(request_id(2)).state == "unsettled"
    assert ask_again(world, 3)["disconnected"] is False
    assert ask_again(world, 4)["disconnected"] is False, "two who ask do not wait for each other"


def test_an_ended_attachment_of_a_quarantined_volume_is_not_disconnected(world: World) -> None:
    attached(world)
    device = world.record(request_id(901)).part.device
    assert device is not None
    world.journal.write(lambda book: book.quarantine(VOLUMES[0], device, "odd", 0.0))
    ask_again(world, 1)
    assert ask_again(world, 2)["disconnected"] is False
    assert "quarantined" in world.record(request_id(2)).warnings[0]


def test_of_a_volume_that_is_not_known_any_more_nothing_is_claimed(world: World) -> None:
    world.journal.write(lambda book: book.raise_fence("att-1", newest=None, detached=None, now=0.0))
    assert ask_again(world, 1)["disconnected"] is False
    assert "send the whole attachment" in world.record(request_id(1)).warnings[0]


UNPROVEN = "no disconnect of it was proven"


def test_an_ended_attachment_is_not_disconnected_by_an_operator_who_gives_up(world: World) -> None:
    """The device is still here, and nobody will take it away unasked."""
    attached(world)
    device_stays(world)
    detach(1)(world)
    world.run()
    abandon(world)
    world.agent.query("release_quarantine", {"volume_id": VOLUMES[0]})
    assert ask_again(world, 2)["disconnected"] is False
    assert UNPROVEN in world.record(request_id(2)).warnings[0]
    world.grant_everything()
    detach(3, attachment=attachment())(world)
    world.run()
    assert result(world, 3)["disconnected"] is True
    assert world.storage.devices == {}
    assert ask_again(world, 4)["disconnected"] is True


def test_what_may_have_been_here_before_the_journal_was_is_not_disconnected(world: World) -> None:
    attached(world)
    lose_journal(world)
    world.journal.write(lambda book: book.disconnected(VOLUMES[0]))
    occupy(world)
    detach(1, attachment=attachment())(world)
    world.run()
    assert world.record(request_id(1)).state == "undone"
    leave_alone(world)
    assert ask_again(world, 2)["disconnected"] is False
    assert UNPROVEN in world.record(request_id(2)).warnings[0]


def test_what_was_never_connected_is_disconnected(world: World) -> None:
    plug_refused(world)
    attach(1)(world)
    attach(2, 2, volume=9, instance=9)(world)
    world.run()
    assert [record.state for record in world.records()] == ["undone", "undone"]
    assert ask_again(world, 3)["disconnected"] is True
    assert ask_again(world, 4, 2, instance=9)["disconnected"] is True


def test_a_device_that_went_with_a_power_loss_is_disconnected(world: World) -> None:
    attached(world)
    device_stays(world)
    detach(1)(world)
    world.run()
    abandon(world)
    world.agent.query("release_quarantine", {"volume_id": VOLUMES[0]})
    world.storage.devices.clear()
    assert ask_again(world, 2)["disconnected"] is True


def test_an_ended_attachment_says_whether_the_storage_has_unmapped_the_volume(world: World) -> None:
    attached(world)
    world.storage.awaits_unmap = True
    assert ask_again(world, 1) == {
        "disconnected": True,
        "awaiting_unmap": True,
        "instance_present": True,
    }
    assert ask_again(world, 2)["awaiting_unmap"] is True
    world.storage.devices.clear()
    assert ask_again(world, 3)["awaiting_unmap"] is False


def test_an_ended_attachment_is_asked_about_in_the_lane_of_its_storage(world: World) -> None:
    """It may wait for the volume's lock, which a storage call that hangs holds."""
    attached(world)
    ask_again(world, 1)
    ask_again(world, 2)
    looks = plan_of(world.record(request_id(2))).steps[-1]
    assert (looks.name, looks.lane) == ("look-for-users", "scsi")


# abandoned by the operator


def abandon(world: World, request: int = 1) -> dict[str, Any]:
    return world.agent.query("abandon_operation", {"operation_id": request_id(request)})


def quarantine(world: World) -> list[str]:
    return list(world.journal.read(lambda book: book.quarantined()))


def test_a_waiting_detach_that_is_abandoned_leaves_the_attachment(world: World) -> None:
    attached(world)
    guest_is("stubborn")(world)
    detach(1)(world)
    world.run()
    assert abandon(world)["state"] == "undone"
    held = world.journal.read(lambda book: book.attachment("att-1"))
    assert held is not None
    assert held.promised
    assert quarantine(world) == []
    detach(2)(world)
    reset(world)
    world.run()
    assert result(world, 2)["disconnected"] is True


def test_a_device_that_an_abandoned_detach_leaves_is_quarantined(world: World) -> None:
    attached(world)
    device_stays(world)
    detach(1)(world)
    world.run()
    answer = abandon(world)
    assert (answer["state"], answer["result"]["disconnected"]) == ("done", False)
    assert answer["error"]["code"] == "connect-failed"
    assert quarantine(world) == VOLUMES[:1]


def test_what_has_left_before_it_is_abandoned_is_free(world: World) -> None:
    """Of two volumes one has gone, proven, and the other is on a sick array."""
    attached(world)
    attached(world, 2, volume=2)
    world.domains.undefine(ONE)

    def fall_sick(world: World) -> None:
        world.meanwhile["before disconnect"] = device_stays

    world.meanwhile["before disconnect"] = fall_sick
    disconnect_instance(1)(world)
    world.run()
    assert list(world.storage.devices) != []
    assert abandon(world)["state"] == "done"
    assert quarantine(world) == VOLUMES[1:2]


def test_a_shared_device_that_others_use_is_not_quarantined(world: World) -> None:
    world.domains.add(TWO)
    attached(world, 1, **SHARED)
    attached(world, 2, instance=2, **SHARED)
    away(world)
    detach(1)(world)
    world.run()
    abandon(world)
    assert quarantine(world) == []


def test_a_device_that_an_abandoned_undoing_leaves_is_quarantined(world: World) -> None:
    plug_refused(world)
    device_stays(world)
    attach(1)(world)
    world.run()
    assert world.record(request_id(1)).state == "unsettled"
    assert abandon(world)["state"] == "undone"
    assert quarantine(world) == VOLUMES[:1]


def test_an_attach_that_is_abandoned_before_it_touched_anything_leaves_nothing(
    world: World,
) -> None:
    away(world)
    attach(1)(world)
    world.run()
    answer = abandon(world)
    assert (answer["state"], answer["error"]["code"]) == ("undone", "cancelled")
    assert quarantine(world) == []
    assert world.storage.connects == 0


def test_what_waits_for_an_abandoned_operation_goes_on(world: World) -> None:
    attached(world)
    guest_is("stubborn")(world)
    detach(1)(world)
    attach(2)(world)
    world.run()
    assert world.record(request_id(2)).state == "waiting"
    abandon(world)
    world.run()
    assert world.record(request_id(2)).state == "done"


def test_a_closed_operation_cannot_be_abandoned_nor_cancelled(world: World) -> None:
    attached(world)
    detach(1)(world)
    world.run()
    assert abandon(world)["state"] == "done"
    cancel(1)(world)
    assert world.record(request_id(1)).state == "done"
