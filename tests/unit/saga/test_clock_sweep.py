"""The clock on the wall is set back by days, in every state: nobody waits until a time comes again.

A host that boots with a wrong clock is put right later on. What was written down with the wrong
time is in the future then; the story must end as it does anyway, and in its time. Plain ``pytest``
draws a few instants, ``--rounds`` 2 some more, 3 takes one in every state.
"""

import random

import pytest

from tests.unit.saga.test_cancel_sweep import TOLD, Once, instants_of
from tests.world.story import Story, Telling, let_pass
from tests.world.world import BEGINNING, World

SET_BACK_SECONDS = 10 * 86400.0
"""No story takes as long."""

TIMELESS = [story for story in TOLD if not (story.is_timed or "lease ends" in story.name)]
"""A lease is over at a time that two hosts have agreed on: it lasts so much longer."""


def set_back(world: World) -> None:
    world.clock.set_back(SET_BACK_SECONDS)


def check_in_time(world: World) -> None:
    took_seconds = world.clock.monotonic() - BEGINNING
    assert took_seconds < SET_BACK_SECONDS, f"it took {took_seconds:.0f} s"


@pytest.mark.parametrize("story", TIMELESS, ids=str)
def test_the_clock_is_set_back_anywhere(story: Story, rounds: int, draw: random.Random) -> None:
    for number in instants_of(story, rounds, draw):
        telling = Telling.begin(story)
        telling.world.instants.watch = Once(telling, set_back, number)
        telling.finish(always=check_in_time)


@pytest.mark.parametrize("name", ["swap whose copy stands still", "migrate what takes too long"])
def test_what_takes_too_long_is_measured_from_then_on(name: str) -> None:
    [story] = [story for story in TOLD if story.name == name]
    telling = Telling.begin(story)
    world = telling.world
    try:
        world.start()
        story.acts[0](world)
        world.run()
        let_pass(10)(world)
        set_back(world)
        let_pass(120)(world)
        assert world.record(str(story.asks[0].request["request_id"])).state == "undone"
    finally:
        world.close()
