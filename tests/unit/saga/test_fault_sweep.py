"""Every call of a port fails once, before its effect or after it: an error says neither.

``unavailable`` is never a reason to undo: each story must end as if it had not come.
``refused`` may be: the operation ends undone, or as it would have.
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
from tests.world.instants import Fault
from tests.world.story import AS_TOLD, Story, Telling
from tests.world.sweep import Drawn, calm, some

DRAWN = Drawn(few=1, many=12)
"""So many of each story's failures, of either kind."""


TOLD = [
    story
    for story in STORIES + SEVERAL + CHANGES + NETWORK + MOVING + SWAPS + IMPORTS + IMPORTED
    if not any(ask.refused for ask in story.asks)
]
"""Whether a request is refused is a matter of a moment that a failure puts off."""


@pytest.mark.parametrize("story", TOLD, ids=str)
@pytest.mark.parametrize("fault", ["unavailable", "refused"])
def test_a_call_fails(story: Story, fault: Fault, rounds: int, draw: random.Random) -> None:
    possible = calm(story).possible
    numbers = [number for number, faults in enumerate(possible) if fault in faults]
    for number in some(numbers, DRAWN, rounds, draw):
        telling = Telling.begin(story)
        telling.world.instants.faults[number] = fault
        is_as_told = fault == "unavailable" and not story.is_timed
        telling.finish(or_else=AS_TOLD if is_as_told else frozenset({"undone"}))
