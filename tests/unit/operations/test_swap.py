"""swap: what is refused before anything is touched, and what a caller sees of it."""

from typing import Any

import pytest

from agent.model.disk import IoTune
from agent.saga.plan import Scene
from agent.steps.copy import PivotDisk
from tests.unit.operations.asking import ask, refused
from tests.unit.saga.stories import ONE, SHARED, TWO
from tests.unit.saga.stories_of_changes import GIB, free, occupied
from tests.unit.saga.stories_of_swaps import SOLE, goes_on, on, stalls
from tests.world.copies import TURNS
from tests.world.story import (
    VOLUMES,
    attach,
    attached,
    cancel,
    detach,
    extend,
    let_pass,
    request_id,
    set_iotune,
    swap,
    volume,
)
from tests.world.world import World


@pytest.mark.parametrize(
    ("different", "code", "words"),
    [
        ({"instance": 2}, "invalid", "new.instance_id"),
        (SHARED, "invalid", "new.multiattach"),
        ({"access_mode": "ro"}, "invalid", "new.access_mode"),
        ({"volume": 1}, "invalid", "new.volume_id"),
        ({"disk": {"bus": "scsi"}}, "invalid", "new.disk"),
        ({"size_bytes": GIB - 512}, "invalid", "is less than"),
        ({"new": 1}, "invalid", "new.attachment_id"),
    ],
)
def test_what_a_swap_does_not_change_is_refused(
    world: World, different: dict[str, Any], code: str, words: str
) -> None:
    attached(world)
    found, detail = refused(world, swap(1, **different))
    assert found == code
    assert words in detail


def test_a_lun_stays_where_it_is(world: World) -> None:
    attached(world, disk={"bus": "scsi", "type": "lun"})
    assert refused(world, swap(1))[0] == "unsupported"


def test_an_older_generation_is_stale(world: World) -> None:
    attached(world, generation=3)
    assert refused(world, swap(1, envelope={"generation": 2}))[0] == "stale"
    assert refused(world, swap(2))[0] == "stale"
    assert ask(world, swap(3, envelope={"generation": 3}))["state"] == "done"
    assert refused(world, attach(4, generation=3))[0] == "stale", "it has ended by the swap"


def test_an_undone_swap_fences_nothing(world: World) -> None:
    attached(world, generation=3)
    stalls(world)
    ask(world, swap(1, envelope={"generation": 3}))
    cancel(1)(world)
    world.run()
    assert world.record(request_id(1)).state == "cancelled"
    assert ask(world, attach(2, generation=3))["state"] == "done", "it is in place"


def test_only_the_sender_knows_the_other_hosts(world: World) -> None:
    attached(world, **SHARED)
    error = swap(1, **SHARED).send(world)["error"]
    assert (error["code"], error["retriable"]) == ("sharing-conflict", False)
    assert ask(world, swap(2, envelope=SOLE, **SHARED))["state"] == "done"


@pytest.mark.parametrize("number", [1, 2])
def test_who_else_has_a_volume_here_keeps_it_from_being_swapped(world: World, number: int) -> None:
    world.domains.add(TWO)
    attached(world, 1, **SHARED)
    attached(world, 3, instance=2, volume=number, **SHARED)
    assert refused(world, swap(1, envelope=SOLE, **SHARED))[0] == "sharing-conflict"


def test_while_it_copies_everything_that_it_concerns_is_busy(world: World) -> None:
    world.domains.add(TWO)
    attached(world, 1, **SHARED)
    stalls(world)
    ask(world, swap(1, envelope=SOLE, **SHARED))
    for other in (
        attach(2, 3, instance=2, **SHARED),
        attach(3, 3, instance=2, volume=2, **SHARED),
        attach(4, **SHARED),
        detach(5),
        detach(6, 2),
        extend(7, 2 * GIB),
        extend(8, 2 * GIB, volume=2),
        set_iotune(9, {"total_iops_sec": 5}),
        swap(10, 1, 4, volume=3, envelope=SOLE, **SHARED),
        swap(11, 2, 4, volume=3, envelope=SOLE, **SHARED),
    ):
        assert refused(world, other)[0] == "busy", other


def test_after_the_pivot_it_is_too_late(world: World) -> None:
    attached(world)
    world.meanwhile["before redefine"] = lambda w: None
    world.copies.loses_definition = True
    world.meanwhile["after pivot"] = lambda w: setattr(w.domains, "is_away", True)
    answer = ask(world, swap(1))
    world.domains.is_away = False
    let_pass(5)(world)
    assert world.record(request_id(1)).state == "done", answer
    again = world.agent.query("cancel_operation", {"operation_id": request_id(1)})
    assert again["state"] == "done"


def test_it_tells_how_far_it_is(world: World) -> None:
    attached(world)
    stalls(world)
    answer = ask(world, swap(1))
    assert (answer["state"], answer["waiting_for"]) == (
        "waiting",
        f"the copy of vda to volume {VOLUMES[1]}",
    )
    world.domains.guests[ONE].copies["vda"] = 1
    let_pass(5)(world)
    progress = world.record(request_id(1)).answer().wire()["progress"]
    assert progress == {
        "done": GIB // 3,
        "total": GIB,
        "unit": "bytes",
        "rate": GIB // 3 / 5,
        "eta_seconds": pytest.approx(10.0, rel=0.01),
        "dirty_rate": None,
        "downtime_milliseconds": None,
    }
    goes_on(world)
    world.run()
    assert world.record(request_id(1)).answer().wire()["progress"] is None
    told = [letter["event_type"] for letter in world.letters()]
    assert told.count("attachment.swap.progress") >= 2


def test_the_disk_keeps_its_limits(world: World) -> None:
    attached(world, disk={"iotune": {"total_iops_sec": 7}})
    ask(world, swap(1))
    (held,) = world.journal.read(lambda book: book.attachments())
    assert held.attachment.disk.iotune == IoTune(total_iops_sec=7)


def test_a_libvirt_without_them_refuses_synchronous_writes(world: World) -> None:
    attached(world)
    volume(world, 2)
    world.domains.missing = ("synchronous-writes",)
    answer = ask(world, swap(1, envelope={"synchronous_writes": True}))
    assert (answer["state"], answer["error"]["code"]) == ("undone", "unsupported")
    assert "nothing was touched" in answer["error"]["detail"]


def test_the_audit_finds_nothing_amiss_before_and_after(world: World) -> None:
    attached(world)
    volume(world, 2, size_bytes=2 * GIB)
    stalls(world)
    ask(world, swap(1))
    assert world.agent.query("audit", {})["findings"] == []
    goes_on(world)
    world.run()
    assert world.record(request_id(1)).state == "done"
    assert world.agent.query("audit", {})["findings"] == []
    (disk,) = world.agent.query("get_instance", {"instance_id": ONE})["disks"]
    assert (disk["attachment_id"], disk["serial"]) == ("att-2", VOLUMES[0])


def test_what_has_a_slice_of_its_volume_does_not_grow_until_it_starts_anew(world: World) -> None:
    attached(world)
    volume(world, 2, size_bytes=2 * GIB)
    ask(world, swap(1))
    (row,) = ask(world, extend(2, 2 * GIB, volume=2))["result"]
    assert row["error"]["code"] == "unsupported"
    assert "starts anew" in row["error"]["detail"]
    world.domains.destroy(ONE)
    world.domains.start(ONE)
    assert world.domains.guests[ONE].sizes["vda"] == 2 * GIB


def copied(world: World) -> None:
    """The copy is ready, and the agent has not looked since."""
    attached(world)
    stalls(world)
    ask(world, swap(1))
    goes_on(world)
    for _ in range(TURNS):
        world.copies.act()


def test_what_was_pivoted_by_hand_has_gone_over_whatever_became_of_the_guest(world: World) -> None:
    copied(world)
    world.copies.pivot(ONE, "vda")
    world.domains.destroy(ONE)
    world.run()
    assert world.record(request_id(1)).state == "done"
    on(2)(world)


def test_a_pivot_that_ends_while_it_is_looked_for_has_happened(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """libvirt gives the description at once, and what else it is asked when the pivot is over."""
    copied(world)
    look = world.domains.look

    def look_beside_a_pivot(instance_id: str) -> Any:
        found = look(instance_id)
        if world.domains.guests[ONE].copies:
            world.copies.pivot(ONE, "vda")
        return found

    record = world.record(request_id(1))
    [part] = [part for part in record.parts if part.attachment_id == "att-2"]
    assert part.attachment is not None
    scene = Scene(world.host, record.operation_id, {**record.known, **part.known})
    monkeypatch.setattr(world.domains, "look", look_beside_a_pivot)
    assert PivotDisk(part.attachment).happened(scene)


def test_of_a_domain_that_went_with_the_pivot_nobody_says_that_it_did_not_happen(
    world: World,
) -> None:
    """Who was told "undone" would delete the volume that has the last writes."""
    attached(world)
    world.meanwhile["after pivot"] = lambda w: w.domains.guests.pop(ONE)
    answer = ask(world, swap(1))
    assert answer["state"] == "unsettled"
    assert "either volume may have the last writes" in answer["error"]["detail"]
    assert len(world.storage.devices) == 2


def test_what_was_pivoted_by_hand_is_not_cancelled_in_silence(world: World) -> None:
    """Who was told "cancelled" would take the new volume from under the guest."""
    copied(world)
    world.copies.pivot(ONE, "vda")
    cancel(1)(world)
    world.run()
    record = world.record(request_id(1))
    assert record.open
    assert record.trouble is not None
    assert "already" in record.trouble.detail


def test_a_guest_that_has_stopped_says_so(world: World) -> None:
    attached(world)
    stalls(world)
    ask(world, swap(1))
    world.domains.destroy(ONE)
    world.run()
    error = world.record(request_id(1)).cause
    assert error is not None
    assert error.code == "copy-failed"
    assert "was stopped" in error.detail


def test_a_job_of_the_domain_ends_no_copy(world: World) -> None:
    attached(world)
    stalls(world)
    ask(world, swap(1))
    occupied(ONE)(world)
    let_pass(5)(world)
    record = world.record(request_id(1))
    assert (record.state, "migration" in (record.waiting_for or "")) == ("waiting", True)
    free(ONE)(world)
    goes_on(world)
    let_pass(20)(world)
    assert world.record(request_id(1)).state == "done"
    on(2)(world)


def test_nor_does_one_when_it_is_ready(world: World) -> None:
    attached(world)
    world.meanwhile["before pivot"] = occupied(ONE)
    ask(world, swap(1))
    assert world.record(request_id(1)).open
    free(ONE)(world)
    let_pass(20)(world)
    assert world.record(request_id(1)).state == "done"
    on(2)(world)


def test_an_agent_that_is_started_anew_meanwhile_adopts_the_copy(world: World) -> None:
    attached(world)
    stalls(world)
    ask(world, swap(1))
    occupied(ONE)(world)
    world.die()
    world.start()
    world.run()
    let_pass(20)(world)
    assert world.record(request_id(1)).state == "waiting"
    free(ONE)(world)
    goes_on(world)
    let_pass(20)(world)
    assert world.record(request_id(1)).state == "done"


def test_a_copy_that_libvirt_has_yet_to_begin_is_taken_back_as_well(world: World) -> None:
    attached(world)
    world.copies.hangs = True
    ask(world, swap(1))
    cancel(1)(world)
    world.run()
    assert world.record(request_id(1)).open, "nobody knows what libvirt will do"
    world.copies.hangs = False
    let_pass(120)(world)
    assert world.record(request_id(1)).state == "cancelled"
    assert world.domains.guests[ONE].copies == {}
    on(1)(world)
