"""How far what an operation waits for has come: in its answer, told in percents, gone with it."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import ClassVar

import pytest

from agent.journal.record import Record
from agent.model.outcome import Progress
from agent.saga.plan import Commit, Learnt, Parked, Plan, Scene
from agent.saga.settle import Settler
from tests.unit.journal.rows import record
from tests.world.world import World

TOTAL = 1000


@dataclass(frozen=True)
class Long(Commit):
    """Each look finds one of ``amounts``; after the last one it is over."""

    name: ClassVar[str] = "long"
    amounts: list[int] = field(default_factory=list)

    def apply(self, scene: Scene) -> Learnt | Parked:
        if not self.amounts:
            return {}
        far = Progress(done=self.amounts.pop(0), total=TOTAL, unit="bytes", rate=2.0)
        return Parked("the copy", scene.host.clock.now() + 5, progress=far)


@pytest.fixture
def world() -> Iterator[World]:
    world = World()
    world.start()
    yield world
    world.close()


def looks(world: World, amounts: list[int]) -> Iterator[Record]:
    """An operation as it is after each look."""
    plan = Plan((), Long(amounts), (), result=lambda _: {}, on_done=lambda *_: None)
    asked = record(steps=("long",), commit=0, not_after=9e12, created_at=world.clock.now())
    row = world.journal.write(lambda book: book.add(asked))
    settler = Settler(world.host, world.journal)
    while row.open:
        world.clock.seconds += 5
        row = settler.advance(row, plan)
        written = world.record(row.operation_id)
        assert written.but(parts=()) == row.but(parts=()), "it would be forgotten with the agent"
        yield written


def test_it_is_in_the_answer_until_the_end(world: World) -> None:
    answers = [row.answer() for row in looks(world, [0, 500])]
    assert [answer.state for answer in answers] == ["waiting", "waiting", "done"]
    assert [answer.progress and answer.progress.done for answer in answers] == [0, 500, None]
    assert answers[1].wire()["progress"] == {
        "done": 500,
        "total": TOTAL,
        "unit": "bytes",
        "rate": 2.0,
        "eta_seconds": None,
        "dirty_rate": None,
        "downtime_milliseconds": None,
    }


def test_it_is_told_once_a_percent(world: World) -> None:
    for _ in looks(world, [0, 1, 9, 10, 19, 20, 1000]):
        pass
    told = [
        (letter["event_type"], letter["progress"] and letter["progress"]["done"])
        for letter in world.letters()
    ]
    assert told == [
        ("attachment.attach.start", None),
        *(("attachment.attach.progress", done) for done in (0, 10, 20, 1000)),
        ("attachment.attach.end", None),
    ]
    assert len({letter["event_id"] for letter in world.letters()}) == len(told)
