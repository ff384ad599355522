"""detach, from the request to the answer; and what an operator's abandoning leaves."""

from typing import Any

from tests.unit.saga.stories import (
    ONE,
    SHARED,
    TWO,
    away,
    device_stays,
    guest_is,
    plug_refused,
    reset,
    still_defined,
)
from tests.world.story import VOLUMES, attach, attached, cancel, detach, request_id
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
    device = world.record(request_id(901)).device
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
