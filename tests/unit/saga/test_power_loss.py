"""Power is lost in every state of every story: sessions, devices and running guests are gone.

Afterwards the host boots as systemd has it: volumes are reconnected, guests start that can, then
the agent. The same things are true at the end as after any other death, and the reconnect itself
may die anywhere (tests/world/story.py).
"""

import random

import pytest

from tests.unit.saga.stories import STORIES
from tests.world.story import Story
from tests.world.sweep import Sweep

DRAWN = 6
"""So many states of each story the power is lost in; with ``--rounds`` 2 or more in all."""


@pytest.mark.parametrize("story", STORIES, ids=str)
def test_power_is_lost_anywhere(story: Story, rounds: int, draw: random.Random) -> None:
    sweep = Sweep(story)
    firsts = sweep.first_deaths()
    for first in firsts if rounds >= 2 else draw.sample(firsts, min(DRAWN, len(firsts))):
        telling = first.go_on()
        telling.lose_power()
        seconds = sweep.tell(telling)
        for second in seconds if rounds >= 2 else draw.sample(seconds, min(1, len(seconds))):
            second.go_on().finish()
