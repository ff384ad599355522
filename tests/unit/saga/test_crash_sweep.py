"""Killed at any instant, and killed again at any instant of the next life: nothing is left over.

One table of stories, tests/unit/saga/stories.py; what must be true is in tests/world/story.py.
Plain ``pytest`` tells some first deaths, drawn by ``--seed`` (printed where a test fails), and with
``--rounds`` 2 all of them and some second ones; from 3 on all double deaths are told. A failure
names the deaths that lead to it.
"""

import random
import sys

import pytest

from tests.unit.saga.stories import STORIES
from tests.unit.saga.stories_of_changes import CHANGES
from tests.unit.saga.stories_of_imports import IMPORTED, IMPORTS
from tests.unit.saga.stories_of_moving import MOVING
from tests.unit.saga.stories_of_networks import NETWORK
from tests.unit.saga.stories_of_several import SEVERAL
from tests.unit.saga.stories_of_swaps import SWAPS
from tests.world.story import Story
from tests.world.sweep import Drawn, Sweep, some

TOLD = STORIES + SEVERAL + CHANGES + NETWORK + MOVING + SWAPS + IMPORTS + IMPORTED

FIRSTS = Drawn(few=5, many=sys.maxsize)
"""So many of the first deaths are told."""

DRAWN = Drawn(few=1, many=12)
"""So many of those are gone on from, to so many second ones each."""


@pytest.mark.parametrize("story", TOLD, ids=str)
def test_killed_anywhere_and_once_more(story: Story, rounds: int, draw: random.Random) -> None:
    sweep = Sweep(story)
    firsts = some(sweep.first_deaths(), FIRSTS, rounds, draw)
    drawn = some(firsts, DRAWN, rounds, draw)
    for first in firsts:
        if first not in drawn:
            first.go_on().finish()
            continue
        seconds = sweep.tell(first.go_on())
        for second in some(seconds, DRAWN, rounds, draw):
            second.go_on().finish()
