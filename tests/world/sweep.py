"""Every state in which an agent can die while a story is told.

What survives a death is the host and the journal's file. Between two commits or effects nothing
of that changes, so the agent is not killed at every instant but once in every state: that is the
same, and a hundredth of the work. A story told from such a state leads to further ones, in which
it can die a second time.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import TypeVar

from tests.world.instants import Fault
from tests.world.story import Fork, Story, Telling

Item = TypeVar("Item")


@dataclass(frozen=True)
class Drawn:
    """How many are told: with ``--rounds`` 1, which is plain ``pytest``; and with 2."""

    few: int
    many: int

    def count(self, rounds: int) -> int:
        return self.few if rounds < 2 else self.many


def some(found: Sequence[Item], drawn: Drawn, rounds: int, draw: random.Random) -> Sequence[Item]:
    """So many of them; with ``--rounds`` 3 or more all."""
    count = drawn.count(rounds)
    return found if rounds > 2 or count >= len(found) else draw.sample(found, count)


@dataclass(frozen=True)
class Calm:
    """Of a story that nothing happens to: its instants in their order, what may fail at each, and
    the number of the first one in each state."""

    passed: tuple[str, ...]
    possible: tuple[frozenset[Fault], ...]
    states: tuple[int, ...]


@cache
def calm(story: Story) -> Calm:
    """Told once, for all sweeps that ask where something can happen to it."""
    telling = Telling.begin(story)
    instants, states, last = telling.world.instants, list[int](), ""

    def watch(_name: str) -> None:
        nonlocal last
        changes = telling.changes()
        if changes != last:
            last = changes
            states.append(len(instants.passed))

    instants.watch = watch
    telling.finish()
    return Calm(tuple(instants.passed), tuple(instants.possible), tuple(states))


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
        deaths, states = _first_deaths(self.story)
        self._seen |= states
        return list(deaths)

    def tell(self, telling: Telling) -> list[Fork]:
        """Tell it to its end and check that; what it went through that was not seen before."""
        found: list[Fork] = []
        last = ""

        def watch(_name: str) -> None:
            nonlocal last
            changes = telling.changes()
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


@cache
def _first_deaths(story: Story) -> tuple[tuple[Fork, ...], frozenset[str]]:
    """Told once for all sweeps: 13 kB a fork; and the fingerprints of all states."""
    sweep = Sweep(story)
    deaths = sweep.tell(Telling.begin(story))
    return tuple(deaths), frozenset(sweep._seen)
