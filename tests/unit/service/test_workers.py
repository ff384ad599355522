"""What reaches an operation on its way to the workers, and what they say of it."""

import threading
from typing import Any

import pytest

from agent.saga.plan import Lane
from agent.service.workers import on_whose_behalf, whole_pool
from tests.unit.saga.stories_of_several import two_guests
from tests.world.story import attach, attached, cancel, migrate, request_id
from tests.world.world import LANES, Tasks, World


def in_lanes(world: World) -> dict[Lane, Tasks]:
    """The agent anew; its tasks wait, lane by lane, for a thread of the test's."""
    world.die()
    lanes = {lane: Tasks() for lane in LANES}
    world.start(lanes)
    return lanes


def let(lanes: dict[Lane, Tasks], *names: Lane) -> None:
    """These lanes have threads, until there is nothing to do in them."""
    while any(lanes[name].do_next() for name in names):
        pass


def test_a_cancel_between_the_commit_of_its_request_and_its_first_step_counts(
    world: World,
) -> None:
    world.meanwhile["after write"] = cancel(1)
    attach(1)(world)
    world.run()
    assert world.record(request_id(1)).state == "cancelled"


def test_whoever_waits_for_a_lock_is_told_by_its_operation(world: World) -> None:
    seen = []
    world.meanwhile["before connect"] = lambda _: seen.append(on_whose_behalf())
    attach(1)(world)
    world.run()
    assert seen == [f"attach {request_id(1)}"]


def goes_on_in_its_next_life(world: World, request: int) -> None:
    world.die()
    world.start()
    world.run()
    assert world.record(request_id(request)).state == "done"


class TestStop:
    def test_what_waits_for_a_thread_is_given_back(self, world: World) -> None:
        lanes = in_lanes(world)
        attach(1)(world)
        let(lanes, "guest")
        before = world.record(request_id(1))
        world.agent.quiesce()
        let(lanes, "scsi")
        assert world.storage.connects == 0
        assert world.record(request_id(1)) == before
        assert world.agent.workers.stop(0), "nothing runs"
        goes_on_in_its_next_life(world, 1)

    def test_a_step_that_runs_ends_and_none_follows_it(self, world: World) -> None:
        world.meanwhile["before plug"] = lambda w: w.agent.quiesce()
        attach(1)(world)
        world.run()
        left = world.record(request_id(1))
        states = {step.name: step.state for step in left.answer().steps}
        assert (states["plug-disk"], states["plug-other-half"]) == ("done", "planned")
        assert not left.executing, "its next life would count a death"
        goes_on_in_its_next_life(world, 1)

    def test_what_is_accepted_meanwhile_is_for_the_next_start(self, world: World) -> None:
        world.agent.quiesce()
        attach(1)(world)
        world.run()
        assert world.record(request_id(1)).state == "accepted"
        goes_on_in_its_next_life(world, 1)

    def test_nobody_is_let_wait(self, world: World) -> None:
        in_lanes(world)
        attach(1)(world)
        answers = list[dict[str, Any]]()
        asked = {"operation_id": request_id(1), "timeout_seconds": 30}
        waiter = threading.Thread(target=lambda: answers.append(world.agent.wait(asked)))
        waiter.start()
        world.agent.quiesce()
        waiter.join(15)
        assert [answer["state"] for answer in answers] == ["accepted"]
        waiter.join()


def test_hosts_that_do_not_answer_take_no_thread_that_a_guest_needs(world: World) -> None:
    two_guests(world)
    attached(world)
    world.far.leased["att-1"] = "mig-1"
    lanes = in_lanes(world)
    migrate(1, 1)(world)
    attach(2, 2, instance=2, volume=2)(world)
    let(lanes, "guest", "scsi")
    assert world.record(request_id(2)).state == "done"
    for _ in range(9):  # there, over all that it waits for
        assert not [name for name in world.instants.passed if "peer" in name]
        let(lanes, "peers")
        world.instants.passed.clear()
        world.road.act()
        let(lanes, "guest", "scsi")
    assert world.record(request_id(1)).state == "done"


def refuse(thread: threading.Thread) -> None:
    raise RuntimeError("can't start new thread")


def test_a_pool_asks_the_host_for_no_thread_later_on(monkeypatch: pytest.MonkeyPatch) -> None:
    pool = whole_pool(3, "lane")
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse)
        assert [pool.submit(int, number).result(60) for number in range(9)] == list(range(9))
    pool.shutdown()


def test_a_pool_of_a_host_without_threads_leaves_none_behind(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    start, begun = threading.Thread.start, list[threading.Thread]()

    def start_two(thread: threading.Thread) -> None:
        if len(begun) == 2:
            refuse(thread)
        begun.append(thread)
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", start_two)
    with pytest.raises(RuntimeError):
        whole_pool(3, "lane")
    for thread in begun:
        thread.join(60)
        assert not thread.is_alive()
