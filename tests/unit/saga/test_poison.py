"""A call that kills the agent whenever it is made, forward or on the way back, holds up nobody.

The operation that makes it dies with the agent a few times and then stands back, with longer and
longer pauses; the agent gets to everything else. Once the call is harmless every story ends.
"""

import random
from collections import Counter

import pytest

from agent.saga.settle import DEATHS_BEFORE_UNDOING
from tests.unit.saga.stories import STORIES
from tests.world.instants import Crash
from tests.world.story import Ask, Story, Telling
from tests.world.sweep import Drawn, calm, some

DRAWN = Drawn(few=1, many=12)
"""So many of each story's calls."""

DEATHS_AT_MOST = 60
"""Then the call is harmless: the pauses between two tries are told often enough."""

TOLD = [
    story
    for story in STORIES
    if not any(ask.refused for ask in story.asks)
    and [type(act) for act in story.acts].count(Ask) <= 1
]
"""Where a second request comes later, what is open by then decides whether it is taken."""


@pytest.mark.parametrize("story", TOLD, ids=str)
def test_a_call_that_kills(story: Story, rounds: int, draw: random.Random) -> None:
    calls = sorted({name for name in calm(story).passed if not name.endswith(" write")})
    for call in some(calls, DRAWN, rounds, draw):
        tell_with_poison(story, call)


def tell_with_poison(story: Story, call: str) -> None:
    """Forward and back, each operation may die a few times before it stands back."""
    telling = Telling.begin(story)
    world, deaths = telling.world, Counter[float]()
    at_once = 2 * DEATHS_BEFORE_UNDOING * len(story.asks)

    def watch(name: str) -> None:
        if name == call and deaths.total() < DEATHS_AT_MOST:
            deaths[world.clock.seconds] += 1
            raise Crash(name)

    world.instants.watch = watch
    world.instants.faults[-1] = "crash"  # how it ends is another matter
    telling.finish(or_else=frozenset({"undone"}))
    assert max(deaths.values()) <= at_once, f"'{call}' kills the agent again and again"
