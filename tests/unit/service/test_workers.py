"""What reaches an operation on its way to the workers, and what they say of it."""

import threading
from typing import Any

import pytest

from agent.errors import Unavailable
from agent.saga.plan import Lane
from agent.saga.settle import DEATHS_BEFORE_UNDOING
from agent.service.lanes import whole_pool
from agent.service.workers import JOURNAL_RETRY_SECONDS, on_whose_behalf
from tests.unit.saga.stories import SHARED
from tests.unit.saga.stories_of_several import two_guests
from tests.world.instants import Crash
from tests.world.story import (
    INSTANCES,
    attach,
    attached,
    cancel,
    detach,
    migrate,
    moment,
    request_id,
)
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

    def test_one_that_goes_on_for_longer_dies_no_death(self, world: World) -> None:
        """Ordered three times, it would be taken for one that kills the agent."""

        def stop_and_die(world: World) -> None:
            assert not world.agent.workers.stop(0)
            raise Crash("it is over")

        attach(1)(world)
        for _ in range(DEATHS_BEFORE_UNDOING):
            world.meanwhile["before connect"] = stop_and_die
            with pytest.raises(Crash):
                world.run()
            world.die()
            world.start()
        assert world.record(request_id(1)).deaths == 0
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


class TestUnwanted:
    """What waits behind a storage call of its instance that does not end."""

    @pytest.fixture
    def lanes(self, world: World) -> dict[Lane, Tasks]:
        attached(world, 3, volume=2)
        lanes = in_lanes(world)
        attach(1)(world)
        let(lanes, "guest")
        return lanes

    @pytest.mark.parametrize("number", [1, 3], ids=["its own attachment", "another"])
    def test_is_cancelled_at_once(
        self, world: World, lanes: dict[Lane, Tasks], number: int
    ) -> None:
        detach(2, number)(world)
        cancel(2)(world)
        let(lanes, "guest")
        assert world.record(request_id(2)).state == "cancelled"
        assert world.record(request_id(1)).open
        let(lanes, *LANES)
        assert world.record(request_id(1)).state == "done"
        assert len(world.storage.devices) == 2

    def test_is_cancelled_also_on_its_way_to_the_queue(
        self, world: World, lanes: dict[Lane, Tasks]
    ) -> None:
        world.meanwhile["after write"] = cancel(2)
        detach(2, 3)(world)
        let(lanes, "guest")
        assert world.record(request_id(2)).state == "cancelled"

    @pytest.mark.parametrize(
        ("end", "state"),
        [({"not_after": moment(60)}, "expired"), ({"deadline_seconds": 60}, "undone")],
        ids=["not_after", "deadline"],
    )
    def test_ends_when_it_is_late(
        self, world: World, lanes: dict[Lane, Tasks], end: dict[str, Any], state: str
    ) -> None:
        detach(2, 3, **end)(world)
        world.clock.seconds += 61
        world.agent.workers.ring()
        let(lanes, "guest")
        assert world.record(request_id(2)).state == state
        assert world.record(request_id(1)).open

    def test_is_wanted_again_where_the_clock_was_set_back(
        self, world: World, lanes: dict[Lane, Tasks]
    ) -> None:
        detach(2, 3, not_after=moment(60))(world)
        world.clock.seconds += 61
        world.agent.workers.ring()
        world.clock.set_back(30)
        let(lanes, "guest")
        assert world.record(request_id(2)).state == "accepted", "it has no turn yet"
        let(lanes, *LANES)
        world.domains.let_guests_act()
        let(lanes, *LANES)
        assert world.record(request_id(2)).state == "done"

    def test_is_closed_later_where_the_journal_cannot_be_written(
        self, world: World, lanes: dict[Lane, Tasks]
    ) -> None:
        def cannot_be_written(_world: World) -> None:
            raise Unavailable("the journal", "simulated")

        detach(2, 3)(world)
        cancel(2)(world)
        world.meanwhile["before write"] = cannot_be_written
        let(lanes, "guest")
        assert world.record(request_id(2)).open
        world.clock.seconds += JOURNAL_RETRY_SECONDS
        world.agent.workers.ring()
        let(lanes, "guest")
        assert world.record(request_id(2)).state == "cancelled"

    def test_can_be_abandoned(self, world: World, lanes: dict[Lane, Tasks]) -> None:
        detach(2, 3)(world)
        answer = world.agent.query("abandon_operation", {"operation_id": request_id(2)})
        assert answer["state"] == "undone"
        let(lanes, *LANES)
        assert world.record(request_id(1)).state == "done"
        assert len(world.storage.devices) == 2, "nothing of it was done"
        assert world.journal.read(lambda book: book.quarantined()) == {}


def is_away(_world: World) -> None:
    raise Unavailable("storage", "simulated")


class TestUnwantedBehindASilentTarget:
    """Another instance's volume of the same target is being connected, and that does not end."""

    @pytest.fixture
    def lanes(self, world: World) -> dict[Lane, Tasks]:
        lanes = in_lanes(world)
        world.domains.add(INSTANCES[1])
        attach(1, 1, **SHARED)(world)
        let(lanes, "guest")
        return lanes

    def behind(self, world: World, lanes: dict[Lane, Tasks], **end: Any) -> None:
        attach(2, 2, instance=2, envelope=end, **SHARED)(world)
        let(lanes, "guest")
        assert world.record(request_id(2)).state == "running"

    def test_is_cancelled_at_once(self, world: World, lanes: dict[Lane, Tasks]) -> None:
        self.behind(world, lanes)
        cancel(2)(world)
        let(lanes, "guest")
        assert world.record(request_id(2)).state == "cancelled"
        let(lanes, *LANES)
        assert world.record(request_id(1)).state == "done"
        assert len(world.storage.devices) == 1

    def test_ends_when_it_is_late(self, world: World, lanes: dict[Lane, Tasks]) -> None:
        self.behind(world, lanes, deadline_seconds=60)
        world.clock.seconds += 61
        world.agent.workers.ring()
        let(lanes, "guest")
        assert world.record(request_id(2)).state == "undone"
        assert world.record(request_id(1)).open

    def test_what_may_be_here_is_taken_back_in_its_own_lane(self, world: World) -> None:
        """A try before has been intended: that takes the target, and may take its time."""
        lanes = in_lanes(world)
        world.domains.add(INSTANCES[1])
        world.meanwhile["before connect"] = is_away
        attach(2, 2, instance=2, **SHARED)(world)
        let(lanes, "guest", "scsi")
        assert world.record(request_id(2)).state == "waiting"
        attach(1, 1, **SHARED)(world)
        let(lanes, "guest")
        world.clock.seconds += 60
        world.agent.workers.ring()
        let(lanes, "guest")
        asked = len(world.instants.passed)
        cancel(2)(world)
        let(lanes, "guest")
        assert not [name for name in world.instants.passed[asked:] if "connect" in name]
        assert world.record(request_id(2)).direction == "undoing"
        let(lanes, *LANES)
        assert world.record(request_id(2)).state == "cancelled"

    def test_lets_its_instance_go_on(self, world: World, lanes: dict[Lane, Tasks]) -> None:
        self.behind(world, lanes)
        attach(3, 3, instance=2, volume=2)(world)
        let(lanes, "guest")
        assert world.record(request_id(3)).state == "accepted"
        cancel(2)(world)
        let(lanes, "guest")
        assert world.record(request_id(3)).state == "running"


def test_what_has_begun_waits_for_its_turn_also_when_it_is_cancelled(world: World) -> None:
    lanes = in_lanes(world)
    world.domains.is_away = True
    attach(1)(world)
    let(lanes, "guest")
    world.domains.is_away = False
    attach(2, 2, volume=2)(world)
    let(lanes, "guest")
    cancel(1)(world)
    let(lanes, "guest")
    waiting = world.record(request_id(1))
    assert (waiting.open, waiting.direction, waiting.cancel_wanted) == (True, "forward", True)
    let(lanes, *LANES)
    assert world.record(request_id(1)).state == "cancelled"
    assert world.record(request_id(2)).state == "done"


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
