"""Every state in which an agent can die while a story is told.

What survives a death is the host and the journal's file. Between two commits or effects nothing
of that changes, so the agent is not killed at every instant but once in every state: that is the
same, and a hundredth of the work. A story told from such a state leads to further ones, in which
it can die a second time.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from tests.world.story import Fork, Story, Telling

Item = TypeVar("Item")

MORE = 4


def some(found: Sequence[Item], few: int, rounds: int, draw: random.Random) -> Sequence[Item]:
    """A few of them, drawn; more with ``--rounds`` 2; from 3 on all."""
    count = few if rounds < 2 else few * MORE
    return found if rounds > 2 or count >= len(found) else draw.sample(found, count)


@dataclass
class Sweep:
    """``states`` counts the distinct ones that were found so far."""

    story: Story
    _seen: set[str] = field(default_factory=set)

    @property
    def states(self) -> int:
        return len(self._seen)

    def first_deaths(self) -> list[Fork]:
        """The story told to its end; and where it can be gone on from, for every state in it."""
        return self.tell(Telling.begin(self.story))

    def tell(self, telling: Telling) -> list[Fork]:
        """Tell it to its end and check that; what it went through that was not seen before."""
        found: list[Fork] = []
        last = ""

        def watch(_name: str) -> None:
            nonlocal last
            changes = f"{telling.told} {telling.world.changes()}"
            if changes == last:
                return
            last = changes
            fingerprint = telling.fingerprint()
            if fingerprint not in self._seen:
                self._seen.add(fingerprint)
                found.append(telling.fork())

        telling.world.instants.watch = watch
        telling.finish()
        return found
