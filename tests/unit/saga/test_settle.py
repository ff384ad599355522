"""How one operation moves, told as what happens to it and what its caller sees."""

from collections.abc import Callable, Iterator

import pytest

from agent.errors import ConnectFailed, Unsupported
from agent.operations import plan_of
from agent.saga.settle import DEATHS_BEFORE_UNDOING, Settler
from agent.saga.transitions import RETRY_SECONDS
from tests.unit.saga.stories import (
    ONE,
    away,
    back,
    device_stays,
    guest_is,
    host,
    plug_refused,
    plugged,
    reset,
)
from tests.world.instants import Crash
from tests.world.story import Act, attach, attached, cancel, detach, let_pass, moment, request_id
from tests.world.world import WatchedJournal, World


@pytest.fixture
def world() -> Iterator[World]:
    world = World()
    world.start()
    yield world
    world.close()


def begin(world: World, *acts: Act) -> None:
    for act in acts:
        act(world)
        world.run()


def answer(world: World, request: int = 1) -> dict[str, object]:
    return world.agent.query("get_operation", {"operation_id": request_id(request)})


def dies_at(instant: str, times: int) -> Callable[[str], None]:
    """Until it has died so often there."""
    left = times

    def watch(name: str) -> None:
        nonlocal left
        if name == instant and left:
            left -= 1
            raise Crash(name)

    return watch


def lives(world: World) -> None:
    """One after the other, until the agent stays alive."""
    for _ in range(20):
        try:
            if world.is_alive:
                world.run()
            else:
                world.start()
                world.run()
            return
        except Crash:
            world.die()
    raise AssertionError("it dies for ever")


def states(world: World, request: int = 1) -> list[object]:
    mine = [body for body in world.letters() if body["operation_id"] == request_id(request)]
    return [body["state"] for body in mine]


# what a caller sees


def test_steps_tell_how_far_it_is_and_whose_they_are(world: World) -> None:
    begin(world, host(), lambda w: setattr(w, "meanwhile", {"before plug": away}), attach(1))
    assert answer(world)["steps"] == [
        {"name": name, "state": state, "attachment_id": "att-1"}
        for name, state in (
            ("check-guest", "done"),
            ("connect-volume", "done"),
            ("verify-identity", "done"),
            ("plug-disk", "intended"),
            ("plug-other-half", "planned"),
            ("note-in-domain", "planned"),
        )
    ]


def test_what_is_undone_shows_which_steps_were_taken_back(world: World) -> None:
    begin(world, host())
    world.storage.connect_error = ConnectFailed("no portal answered")
    begin(world, attach(1))
    found = answer(world)
    assert found["state"] == "undone"
    assert found["error"] == {
        "code": "connect-failed",
        "retriable": True,
        "detail": "no portal answered; what had been done was undone",
    }
    assert [step["state"] for step in found["steps"]] == [  # type: ignore[attr-defined]
        "reverted",
        "reverted",
        "planned",
        "planned",
        "planned",
        "planned",
    ]


def test_nothing_was_touched_is_said_only_where_it_is_true(world: World) -> None:
    begin(world, attach(1))
    error = answer(world)["error"]
    assert error == {
        "code": "unknown-instance",
        "retriable": False,
        "detail": f"libvirt on sim has no domain {ONE}; nothing was touched",
    }
    assert world.storage.connects == 0


@pytest.mark.parametrize(
    "says",
    [
        "this host cannot connect iscsi: it has no iscsiadm; nothing was touched: install it",
        "it was not plugged and stays here, quarantined: look at it",
    ],
)
def test_what_state_things_are_in_is_said_once(world: World, says: str) -> None:
    begin(world, host())
    world.storage.connect_error = Unsupported(says)
    begin(world, attach(1))
    assert answer(world)["error"] == {"code": "unsupported", "retriable": False, "detail": says}


def test_a_wait_says_for_what_and_is_told_once(world: World) -> None:
    begin(world, plugged(), guest_is("stubborn"), detach(1), let_pass(1000))
    assert answer(world)["state"] == "waiting"
    assert answer(world)["waiting_for"] == "the guest to release vda"
    assert states(world) == ["running", "waiting"]
    begin(world, reset)
    assert states(world) == ["running", "waiting", "done"]


def commits(world: World) -> int:
    journal = world.journal
    assert isinstance(journal, WatchedJournal)
    return journal.commits


def test_while_libvirt_is_away_a_look_that_learns_nothing_writes_nothing(world: World) -> None:
    begin(world, plugged(), away, detach(1), attach(2, 2, volume=2), let_pass(10))
    before = commits(world)
    begin(world, let_pass(3600))
    assert commits(world) == before
    begin(world, back)
    assert (answer(world, 1)["state"], answer(world, 2)["state"]) == ("done", "done")


@pytest.mark.parametrize("direction", ["undoing", "committed", "doubtful"])
def test_nor_does_one_on_the_way_back_or_onward(world: World, direction: str) -> None:
    if direction == "undoing":
        begin(world, host(), plug_refused)
        world.meanwhile["before forget"] = away
        begin(world, attach(1))
    elif direction == "doubtful":
        begin(world, host(), plug_refused)
        world.meanwhile["before plug"] = away
        begin(world, attach(1), cancel(1))
    else:
        begin(world, plugged())
        world.meanwhile["before forget"] = away
        begin(world, detach(1))
    begin(world, let_pass(10))
    assert answer(world)["state"] == "waiting"
    before = commits(world)
    begin(world, let_pass(3600))
    assert commits(world) == before
    begin(world, back)
    assert not world.record(request_id(1)).open


def test_after_a_restart_it_is_written_once_more_that_it_waits(world: World) -> None:
    begin(world, plugged(), away, detach(1), let_pass(10))
    world.die()
    world.start()
    world.run()
    record = world.record(request_id(1))
    assert record.wake_at is not None
    assert record.waiting_for is not None
    assert states(world) == ["running", "waiting"], "it was told already"


def test_behind_an_earlier_one_a_look_that_learns_nothing_writes_nothing(world: World) -> None:
    begin(world, plugged(), guest_is("stubborn"))
    detach(1)(world)
    attach(2)(world)
    world.run()
    begin(world, lambda w: setattr(w.domains, "is_away", True), let_pass(10))
    before = commits(world)
    begin(world, let_pass(3600))
    assert commits(world) == before


def test_two_waits_for_different_things_are_told_both(world: World) -> None:
    begin(world, plugged(), guest_is("stubborn"), away, detach(1))
    assert answer(world)["waiting_for"] == ("libvirt (simulated: it is away)")
    begin(world, back)
    assert answer(world)["waiting_for"] == "the guest to release vda"
    assert states(world) == ["running", "waiting", "waiting"]


def test_what_must_succeed_is_tried_again_with_longer_and_longer_pauses(world: World) -> None:
    begin(world, plugged(), device_stays, detach(1))
    pauses = []
    for _ in range(len(RETRY_SECONDS) + 1):
        before = world.clock.seconds
        world.pass_time()
        pauses.append(world.clock.seconds - before)
    assert tuple(pauses) == (*RETRY_SECONDS, RETRY_SECONDS[-1])
    assert answer(world)["state"] == "unsettled"
    assert states(world) == ["running", "waiting", "unsettled"], "the same trouble is told once"


# direction


def test_a_step_that_kills_the_agent_three_times_is_undone(world: World) -> None:
    begin(world, host())
    world.instants.watch = dies_at("after plug", DEATHS_BEFORE_UNDOING)
    world.domains.plug_never_lands = True
    attach(1)(world)
    lives(world)
    found = world.record(request_id(1))
    assert found.state == "undone"
    assert found.cause is not None
    assert "killed 3 times" in found.cause.detail
    assert world.storage.devices == {}


def test_a_step_that_killed_the_agent_twice_goes_on_forward(world: World) -> None:
    begin(world, host())
    world.instants.watch = dies_at("after plug", DEATHS_BEFORE_UNDOING - 1)
    attach(1)(world)
    lives(world)
    assert world.record(request_id(1)).state == "done"


def test_an_undoing_that_kills_the_agent_backs_off(world: World) -> None:
    """Or it would die again as soon as it is started, and serve nobody."""
    begin(world, host(), plug_refused)
    world.instants.watch = dies_at("before disconnect", DEATHS_BEFORE_UNDOING)
    attach(1)(world)
    lives(world)
    record = world.record(request_id(1))
    assert (record.state, record.direction) == ("unsettled", "undoing")
    assert record.trouble is not None
    assert "killed 3 times" in record.trouble.detail
    world.pass_time()
    assert world.record(request_id(1)).state == "undone"


def test_time_parked_counts_no_deaths(world: World) -> None:
    begin(world, plugged(), guest_is("stubborn"), detach(1))
    for _ in range(5):
        world.die()
        world.start()
        world.run()
    record = world.record(request_id(1))
    assert (record.state, record.deaths) == ("waiting", 0)


def test_an_unplug_that_kills_the_agent_is_never_undone_but_backs_off(world: World) -> None:
    begin(world, plugged())
    world.instants.watch = dies_at("before unplug", DEATHS_BEFORE_UNDOING)
    detach(1)(world)
    lives(world)
    record = world.record(request_id(1))
    assert (record.state, record.direction) == ("unsettled", "forward")
    world.instants.watch = lambda name: None
    while world.pass_time():
        pass
    assert world.record(request_id(1)).state == "done"


def test_to_ask_whether_the_commit_happened_may_kill_it_as_well(world: World) -> None:
    begin(world, host(), plug_refused)
    seen: list[str] = []

    def watch(name: str) -> None:
        seen.append(name)
        if name == "before look" and "before plug" in seen:
            raise Crash(name)

    world.instants.watch = watch
    attach(1)(world)
    lives(world)
    assert answer(world)["state"] == "unsettled"
    world.instants.watch = lambda name: None
    while world.pass_time():
        pass
    assert answer(world)["state"] == "undone"
    assert world.storage.devices == {}


def test_what_kills_the_agent_is_left_alone_for_a_while_by_events_and_restarts(
    world: World,
) -> None:
    begin(world, plugged())
    world.instants.watch = dies_at("before unplug", DEATHS_BEFORE_UNDOING)
    detach(1)(world)
    lives(world)
    world.agent.workers.stir_all()
    world.run()
    world.die()
    world.start()
    world.run()
    assert world.domains.guests[ONE].asked == 0
    assert answer(world)["state"] == "unsettled"
    world.pass_time()
    assert answer(world)["state"] == "done"


def test_a_restart_looks_at_once_however_long_the_wait_was_to_be(world: World) -> None:
    begin(world, plugged(), guest_is("stubborn"), detach(1), let_pass(200))
    world.die()
    world.domains.reset(ONE)
    world.start()
    world.run()
    assert world.record(request_id(1)).state == "done"


# cancel, deadline, not_after


def test_a_cancel_is_too_late_once_the_guest_may_have_been_asked(world: World) -> None:
    begin(world, plugged(), guest_is("stubborn"), detach(1))
    refusal = world.agent.query("cancel_operation", {"operation_id": request_id(1)})
    assert refusal["error"]["code"] == "too-late"
    begin(world, reset)
    assert world.record(request_id(1)).state == "done"


def test_a_cancel_of_a_closed_operation_changes_nothing(world: World) -> None:
    begin(world, host(), attach(1), cancel(1))
    assert answer(world)["state"] == "done"


def test_a_cancel_that_comes_while_a_step_runs_is_heard_when_it_parks(world: World) -> None:
    begin(world, host())

    def while_it_looks(w: World) -> None:
        away(w)
        cancel(1)(w)

    world.meanwhile["before all"] = while_it_looks
    begin(world, attach(1))
    assert answer(world)["state"] == "cancelled"


def test_a_cancel_between_two_steps_of_one_lane_is_heard_before_the_second(world: World) -> None:
    begin(world, host())

    def after_the_intent_to_verify(w: World) -> None:
        w.meanwhile["after write"] = cancel(1)

    def when_connected(w: World) -> None:
        w.meanwhile["after write"] = after_the_intent_to_verify

    world.meanwhile["after connect"] = when_connected
    begin(world, attach(1))
    assert answer(world)["state"] == "cancelled"
    steps = {step["name"]: step["state"] for step in answer(world)["steps"]}
    assert steps["verify-identity"] == "reverted"
    assert steps["plug-disk"] == "planned"


def test_a_deadline_is_kept_while_it_waits(world: World) -> None:
    begin(world, host(), away, attach(1, envelope={"deadline_seconds": 30}), let_pass(29))
    assert answer(world)["state"] == "waiting"
    begin(world, let_pass(4))
    found = world.record(request_id(1))
    assert found.state == "undone"
    assert found.cause is not None
    assert found.cause.code == "deadline"
    assert found.cause.retriable


def test_an_attach_expires_only_while_nothing_is_touched(world: World) -> None:
    begin(world, host(), lambda w: setattr(w, "meanwhile", {"before plug": away}))
    begin(world, attach(1, envelope={"not_after": moment(5)}), let_pass(60), back)
    assert answer(world)["state"] == "done"


def test_behind_a_parked_detach_an_attach_waits_until_it_expires(world: World) -> None:
    begin(world, plugged(), guest_is("stubborn"))
    detach(1)(world)
    attach(2, envelope={"not_after": moment(300)})(world)
    world.run()
    assert (
        answer(world, 2)["waiting_for"] == f"the end of detach {request_id(1)} of this attachment"
    )
    begin(world, let_pass(301))
    assert answer(world, 2)["state"] == "expired"
    assert answer(world, 1)["state"] == "waiting"


def test_others_of_the_instance_pass_a_parked_detach(world: World) -> None:
    begin(world, plugged(), guest_is("stubborn"), detach(1), attach(2, 2, volume=2))
    assert (answer(world, 1)["state"], answer(world, 2)["state"]) == ("waiting", "done")


def test_a_guest_that_refuses_is_asked_again_and_not_for_ever(world: World) -> None:
    begin(world, plugged(), guest_is("refusing"), detach(1))
    assert world.domains.guests[ONE].asked == 1, "the refusal wakes it, and it does not ask"
    begin(world, let_pass(75))
    assert world.domains.guests[ONE].asked == 5
    begin(world, let_pass(600))
    assert world.domains.guests[ONE].asked == 15
    assert answer(world)["state"] == "waiting"


def test_a_second_attach_connects_nothing_and_answers_the_same(world: World) -> None:
    begin(world, host(), attach(1), attach(2))
    assert answer(world, 1)["result"] == answer(world, 2)["result"]
    assert world.storage.connects == 1
    attached(world)


def test_the_end_of_an_operation_wakes_what_waits_for_it(world: World) -> None:
    begin(world, plugged(), device_stays)
    detach(1)(world)
    attach(2)(world)
    world.run()
    assert (answer(world, 1)["state"], answer(world, 2)["state"]) == ("unsettled", "waiting")
    world.grant_everything()
    world.pass_time()
    assert (answer(world, 1)["state"], answer(world, 2)["state"]) == ("done", "done")


class Timed:
    """The operation of request 1, moved by hand; ``told`` is what was told of its steps."""

    def __init__(self, world: World) -> None:
        self.told: list[tuple[str, str, float]] = []
        settler = Settler(world.host, world.journal, lambda *step: self.told.append(step))
        row = world.record(request_id(1))
        for _ in range(9):
            row = settler.advance(row, plan_of(row)) if row.open else row


def test_how_long_each_step_took_is_told(world: World) -> None:
    def slowly(w: World) -> None:
        w.clock.seconds += 7

    begin(world, host())
    world.meanwhile["before connect"] = slowly
    attach(1)(world)
    told = Timed(world).told
    assert told[:2] == [("check-guest", "done", 0), ("connect-volume", "done", 7)]
    assert {outcome for _, outcome, _ in told} == {"done"}
    assert [name for name, _, _ in told] == list(world.record(request_id(1)).steps)


def test_of_a_step_that_is_not_done_what_it_met_is_told(world: World) -> None:
    begin(world, host())
    world.storage.connect_error = ConnectFailed("simulated")
    attach(1)(world)
    assert [step[:2] for step in Timed(world).told] == [
        ("check-guest", "done"),
        ("connect-volume", "failed"),
        ("connect-volume", "reverted"),
        ("check-guest", "reverted"),
    ]


def test_one_that_waits_is_no_failure(world: World) -> None:
    begin(world, host())
    attached(world, 2)
    away(world)
    detach(1, 2)(world)
    assert {step[:2] for step in Timed(world).told} == {("check-disk", "unavailable")}
    back(world)
    guest_is("stubborn")(world)
    assert ("unplug-disk", "parked") in {step[:2] for step in Timed(world).told}
