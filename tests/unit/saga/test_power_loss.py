"""Power is lost in every state of every story: sessions, devices and running guests are gone.

Afterwards the host boots as systemd has it: volumes are reconnected, guests start that can, then
the agent. The same things are true at the end as after any other death, and the reconnect itself
may die anywhere (tests/world/story.py).
"""

import random

import pytest

from tests.unit.saga.stories import STORIES, connected, quarantined, shared, then
from tests.unit.saga.stories_of_imports import IMPORTED
from tests.unit.saga.stories_of_networks import NETWORK
from tests.unit.saga.stories_of_swaps import SWAPS
from tests.world.instants import Fault
from tests.world.story import TARGET, VOLUMES, Story, Telling
from tests.world.sweep import Drawn, Sweep, some
from tests.world.world import World

DRAWN = Drawn(few=2, many=24)
"""So many states of each story the power is lost in."""

SECONDS = Drawn(few=1, many=4)
"""After each so many states in which the host's agent is killed as well."""


@pytest.mark.parametrize("story", STORIES + IMPORTED + NETWORK + SWAPS, ids=str)
def test_power_is_lost_anywhere(story: Story, rounds: int, draw: random.Random) -> None:
    sweep = Sweep(story)
    firsts = sweep.first_deaths()
    for first in some(firsts, DRAWN, rounds, draw):
        telling = first.go_on()
        telling.lose_power()
        seconds = sweep.tell(telling)
        for second in some(seconds, SECONDS, rounds, draw):
            second.go_on().finish()


def remapped(world: World) -> None:
    """What is volume 1 for everybody who counts on it is another device when the host is back."""
    world.storage.luns[TARGET, 1].exports += 1


IN_PLACE = Story("volumes in place", shared, (), (), connected(*VOLUMES[:2]))
REMAPPED = Story(
    "volumes in place, one of them remapped", then(shared, remapped), (), (), quarantined
)


@pytest.mark.parametrize("fault", ["unavailable", "refused"])
@pytest.mark.parametrize("story", [IN_PLACE, REMAPPED], ids=str)
def test_a_call_fails_while_the_host_boots(story: Story, fault: Fault) -> None:
    """What did not come back then comes back later; what is quarantined stays so."""

    def telling() -> Telling:
        told = Telling.begin(story)
        told.lose_power()
        return told

    calm = telling()
    calm.finish()
    possible = calm.world.instants.possible
    numbers = [number for number, faults in enumerate(possible) if fault in faults]
    assert numbers
    for number in numbers:
        again = telling()
        again.world.instants.faults[number] = fault
        again.finish()


@pytest.mark.parametrize("story", [IN_PLACE, REMAPPED], ids=str)
def test_the_reconnect_dies_anywhere_and_once_more(story: Story) -> None:
    sweep = Sweep(story)
    telling = Telling.begin(story)
    telling.lose_power()
    for death in sweep.tell(telling):
        for second in sweep.tell(death.go_on()):
            second.go_on().finish()
    assert sweep.states >= 4
