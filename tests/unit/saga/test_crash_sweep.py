"""Killed at any instant, and killed again at any instant of the next life: nothing is left over.

One table of stories, tests/unit/saga/stories.py; what must be true is in tests/world/story.py.
All first deaths are told every time, of the second ones some, drawn by ``--seed`` (printed where a
test fails); with ``--rounds`` 3 or more all of them. A failure names the deaths that lead to it.
"""

import random

import pytest

from tests.unit.saga.stories import STORIES
from tests.unit.saga.stories_of_changes import CHANGES
from tests.unit.saga.stories_of_imports import IMPORTED, IMPORTS
from tests.unit.saga.stories_of_moving import MOVING
from tests.unit.saga.stories_of_networks import NETWORK
from tests.unit.saga.stories_of_several import SEVERAL
from tests.unit.saga.stories_of_swaps import SWAPS
from tests.world.story import Story
from tests.world.sweep import Sweep, some

TOLD = STORIES + SEVERAL + CHANGES + NETWORK + MOVING + SWAPS + IMPORTS + IMPORTED

DRAWN = 3
"""So many of the first deaths are gone on from, to so many second ones each."""


@pytest.mark.parametrize("story", TOLD, ids=str)
def test_killed_anywhere_and_once_more(story: Story, rounds: int, draw: random.Random) -> None:
    sweep = Sweep(story)
    firsts = sweep.first_deaths()
    drawn = some(firsts, DRAWN, rounds, draw)
    for first in firsts:
        if first not in drawn:
            first.go_on().finish()
            continue
        seconds = sweep.tell(first.go_on())
        for second in some(seconds, DRAWN, rounds, draw):
            second.go_on().finish()
