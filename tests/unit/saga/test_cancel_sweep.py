"""Cancelled, or past its deadline, in every state: what can be taken back is, the rest goes on.

A caller cancels every operation of a story at one instant of its telling; or each has a deadline,
which passes at that instant. Afterwards the same things are true as after a death
(tests/world/story.py), the same request answers the same; and what was ``too-late`` to cancel was
not cancelled. Plain ``pytest`` draws a few instants, ``--rounds`` 2 some more, 3 takes
one in every state.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import pytest

from agent.model.outcome import CLOSED
from tests.unit.saga.stories import STORIES
from tests.unit.saga.stories_of_changes import CHANGES
from tests.unit.saga.stories_of_moving import MOVING
from tests.unit.saga.stories_of_networks import NETWORK
from tests.unit.saga.stories_of_several import SEVERAL
from tests.unit.saga.stories_of_swaps import SWAPS
from tests.world.story import Act, Ask, Story, Telling, Together
from tests.world.sweep import Drawn, calm, some
from tests.world.world import World

DRAWN = Drawn(few=1, many=12)
"""So many instants of each story."""

DEADLINE_SECONDS = 3600

TOLD = [
    story
    for story in STORIES + SEVERAL + CHANGES + NETWORK + SWAPS + MOVING
    if not any(ask.refused for ask in story.asks)
]
"""Whether a request is refused is a matter of what became of an earlier one."""


@dataclass
class Once:
    """Does ``act`` at the instant ``number`` of a telling."""

    telling: Telling
    act: Act
    number: int
    passed: int = 0

    def __call__(self, _name: str) -> None:
        number, self.passed = self.passed, self.passed + 1
        if number == self.number:
            self.act(self.telling.world)


def instants_of(story: Story, rounds: int, draw: random.Random) -> Sequence[int]:
    return some(calm(story).states, DRAWN, rounds, draw)


def tell(story: Story, act: Act, number: int, or_else: str, always: Act = lambda w: None) -> None:
    """``or_else`` it ends; beside others, who find what it left, in any way that fits."""
    telling = Telling.begin(story)
    telling.world.instants.watch = Once(telling, act, number)
    ends = frozenset({or_else}) if len(story.asks) == 1 else CLOSED
    try:
        telling.finish(or_else=ends, always=always)
    except BaseException as error:
        error.add_note(f"it came at instant {number}")
        raise


@dataclass
class Caller:
    """Who cancels, and remembers what was answered."""

    story: Story
    late: set[str] = field(default_factory=set)

    def __call__(self, world: World) -> None:
        for ask in self.story.asks:
            operation_id = str(ask.request["request_id"])
            known = world.journal.read(lambda book, o=operation_id: book.operation(o))
            answer = world.agent.query("cancel_operation", {"operation_id": operation_id})
            if "state" in answer:
                is_late = known is not None and known.open and known.direction == "committed"
                assert not is_late, "it can only go on, and nobody says so"
                continue
            assert answer["error"]["code"] in ("too-late", "unknown-operation"), answer
            if answer["error"]["code"] == "too-late":
                self.late.add(operation_id)

    def was_told_the_truth(self, world: World) -> None:
        for operation_id in self.late:
            assert world.record(operation_id).state != "cancelled", "it was said to be too late"


@pytest.mark.parametrize("story", TOLD, ids=str)
def test_cancelled_anywhere(story: Story, rounds: int, draw: random.Random) -> None:
    for number in instants_of(story, rounds, draw):
        caller = Caller(story)
        tell(story, caller, number, "cancelled", caller.was_told_the_truth)


def hurried(act: Act) -> Act:
    """With a deadline, where it is a command."""
    if isinstance(act, Together):
        return Together(tuple(with_deadline(ask) for ask in act.asks))
    return with_deadline(act) if isinstance(act, Ask) else act


def with_deadline(ask: Ask) -> Ask:
    return replace(ask, request={**ask.request, "deadline_seconds": DEADLINE_SECONDS})


@pytest.mark.parametrize("story", [story for story in TOLD if not story.is_timed], ids=str)
def test_past_its_deadline_anywhere(story: Story, rounds: int, draw: random.Random) -> None:
    hasty = replace(story, acts=tuple(hurried(act) for act in story.acts))

    def passes(world: World) -> None:
        world.clock.seconds += 2 * DEADLINE_SECONDS

    for number in instants_of(hasty, rounds, draw):
        tell(hasty, passes, number, "undone")
