"""Who has a lane's threads: what waits for a target has none."""

import threading
from collections.abc import Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import get_args

import pytest

from agent.saga.plan import Lane, Step
from agent.service.lanes import Lanes
from tests.lab.patience import PATIENCE
from tests.unit.saga.stories import SHARED
from tests.world.storage import Lun
from tests.world.story import VOLUMES, attach, attach_batch, attachment, request_id
from tests.world.world import LANES, Tasks, World

LONG_SECONDS = 10.0 * PATIENCE


@dataclass(frozen=True)
class Asked(Step):
    target: str

    @property
    def lane(self) -> Lane:
        return "mounts"

    @property
    def targets(self) -> tuple[str, ...]:
        return (self.target,) if self.target else ()


@dataclass
class Server:
    """Answers once it is let to; ``served`` in the order in which it was asked."""

    answers: threading.Event = field(default_factory=threading.Event)
    served: list[int] = field(default_factory=list)
    idle: threading.Event = field(default_factory=threading.Event)

    def ask(self, number: int, last: int) -> None:
        assert self.answers.wait(LONG_SECONDS)
        self.served.append(number)
        if number == last:
            self.idle.set()


@pytest.fixture
def lanes() -> Iterator[Lanes]:
    pools: dict[Lane, Executor] = {lane: ThreadPoolExecutor(2) for lane in get_args(Lane)}
    yield Lanes(pools)
    for pool in pools.values():
        pool.shutdown()


def test_a_silent_target_has_one_thread_however_much_is_asked_of_it(lanes: Lanes) -> None:
    silent, healthy = Server(), Server()
    healthy.answers.set()
    for number in range(8):
        lanes.submit(Asked("silent"), silent.ask, number, 7)
    lanes.submit(Asked("healthy"), healthy.ask, 0, 0)
    assert healthy.idle.wait(LONG_SECONDS)
    assert silent.served == []
    silent.answers.set()
    assert silent.idle.wait(LONG_SECONDS)
    assert silent.served == list(range(8))


def test_a_task_that_fails_lets_the_next_one_go(lanes: Lanes) -> None:
    def fail() -> None:
        raise RuntimeError("a defect of ours")

    server = Server()
    server.answers.set()
    lanes.submit(Asked("one"), fail)
    lanes.submit(Asked("one"), server.ask, 0, 0)
    assert server.idle.wait(LONG_SECONDS)


def test_what_has_no_target_waits_for_threads_alone(lanes: Lanes) -> None:
    both = threading.Barrier(2)
    met = [threading.Event(), threading.Event()]

    def meet(number: int) -> None:
        both.wait(LONG_SECONDS)
        met[number].set()

    for number in range(2):
        lanes.submit(Asked(""), meet, number)
    assert all(one.wait(LONG_SECONDS) for one in met)


def test_volumes_of_one_target_are_connected_one_after_the_other(world: World) -> None:
    """Each has its thread when the one before has ended, and all of them come."""
    world.domains.add("00000000-0000-4000-8000-000000000002")
    attach(1, 1, **SHARED)(world)
    attach(2, 2, instance=2, **SHARED)(world)
    world.run()
    assert [world.record(request_id(number)).state for number in (1, 2)] == ["done", "done"]


def test_a_batch_gives_its_thread_away_before_another_target(world: World) -> None:
    """Or who waits for the first would wait for the second, which may be dead."""
    world.storage.luns["iqn.sim:other", 4] = Lun(VOLUMES[3])
    data = {"target_portal": "192.0.2.9:3260", "target_iqn": "iqn.sim:other", "target_lun": 4}
    other = {"driver_volume_type": "iscsi", "data": data}
    both = attachment(1), attachment(4, volume=4, connection_info=other)
    world.die()
    lanes = {lane: Tasks() for lane in LANES}
    world.start(lanes)
    attach_batch(1, *both)(world)
    while lanes["guest"].do_next():
        pass
    assert lanes["scsi"].do_next()
    assert len(world.storage.devices) == 1
    assert lanes["scsi"].do_next()
    assert len(world.storage.devices) == 2
