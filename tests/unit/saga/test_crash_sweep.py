"""Killed at any instant, and killed again at any instant of the next life: nothing is left over.

One table of stories, tests/unit/saga/stories.py; what must be true is in tests/world/story.py.
The first deaths are all told every time, the second ones drawn by ``--seed`` (printed where a
test fails) unless ``--rounds`` is 2 or more: then all are.
"""

import random

import pytest

from tests.unit.saga.stories import STORIES
from tests.world.story import Story, Telling
from tests.world.sweep import Sweep

DRAWN = 3
"""Of the states after a first death so many are gone on from, to so many second deaths each."""


@pytest.mark.parametrize("story", STORIES, ids=str)
def test_killed_anywhere(story: Story) -> None:
    for telling in Sweep(story).first_deaths():
        telling.finish()


@pytest.mark.parametrize("story", STORIES, ids=str)
def test_killed_anywhere_and_once_more(story: Story, rounds: int, draw: random.Random) -> None:
    sweep = Sweep(story)
    for first in some(sweep.first_deaths(), rounds, draw):
        for second in some(sweep.tell(first), rounds, draw):
            second.finish()


def some(tellings: list[Telling], rounds: int, draw: random.Random) -> list[Telling]:
    if rounds >= 2:
        return tellings
    drawn = draw.sample(tellings, min(DRAWN, len(tellings)))
    for telling in tellings:
        if telling not in drawn:
            telling.world.close()
    return drawn
