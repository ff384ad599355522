"""Two operations on one volume, in every order in which they can call the host.

All interleavings with up to two switches at calls of ports, if ``--rounds`` is 3 or more; else
some, drawn by ``--seed``.
"""

import functools
import itertools
import random
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pytest

from tests.unit.saga.stories import SHARED, then
from tests.unit.saga.stories_of_changes import GIB, grown
from tests.unit.saga.stories_of_swaps import SOLE
from tests.world.interleaved import Interleaved
from tests.world.story import (
    INSTANCES,
    Act,
    Ask,
    Story,
    Telling,
    attach,
    attached,
    detach,
    extend,
    set_iotune,
    swap,
    volume,
)
from tests.world.sweep import Drawn
from tests.world.world import World

DRAWN = Drawn(few=4, many=32)
"""So many orders of each pair, beside the one without a switch."""

CALLS_AT_MOST = 20
"""An attach calls ports some twenty times; later switches fall on its end."""


def two(world: World) -> None:
    for instance in INSTANCES[:2]:
        world.domains.add(instance, attitude="prompt")


def guests(world: World) -> None:
    volume(world, 1)
    volume(world, 2)
    two(world)


def has(number: int, **different: Any) -> Act:
    return lambda world: attached(world, number, **different)


TWO: Mapping[str, Any] = {"instance": 2, **SHARED}

BOTH = {("done", "done")}
ONE_OF_THEM = {("done", "refused"), ("refused", "done")}


@dataclass(frozen=True)
class Pair:
    """``outcomes`` are the states in which the two may end, whatever the order of their calls."""

    begin: Act
    first: Ask
    second: Ask
    outcomes: set[tuple[str, str]]

    def check_outcome(self, world: World) -> None:
        states = {record.operation_id: record.state for record in world.records()}
        first, second = (
            states.get(str(ask.request["request_id"]), "refused")
            for ask in (self.first, self.second)
        )
        assert (first, second) in self.outcomes


PAIRS: dict[str, Pair] = {
    "attach and attach, shared": Pair(guests, attach(1, **SHARED), attach(2, 2, **TWO), BOTH),
    "attach and attach, exclusive": Pair(guests, attach(1), attach(2, 2, instance=2), ONE_OF_THEM),
    "attach and attach, one instance": Pair(guests, attach(1), attach(2, 2), ONE_OF_THEM),
    "attach and attach, the same attachment": Pair(guests, attach(1), attach(2), BOTH),
    "attach and detach, shared": Pair(
        then(guests, has(2, **TWO)), attach(1, **SHARED), detach(2, 2, instance=2), BOTH
    ),
    "attach and detach, exclusive": Pair(
        then(guests, has(2, instance=2)),
        attach(1),
        detach(2, 2, instance=2),
        {*BOTH, ("refused", "done")},
    ),
    "attach and detach, the same attachment": Pair(
        then(guests, has(1)), attach(1), detach(2), BOTH
    ),
    "an attach that is refused by the guest and a detach, shared": Pair(
        then(guests, has(2, **TWO)),
        attach(1, disk={"iothread": 9}, **SHARED),
        detach(2, 2, instance=2),
        {("undone", "done")},
    ),
    "an attach of a device that cannot be written and a detach, shared": Pair(
        then(lambda world: volume(world, read_only=True), two, has(2, access_mode="ro", **TWO)),
        attach(1, **SHARED),
        detach(2, 2, instance=2),
        {("undone", "done")},
    ),
    "detach and detach, shared": Pair(
        then(guests, has(1, **SHARED), has(2, **TWO)), detach(1), detach(2, 2, instance=2), BOTH
    ),
    "detach and detach, the same attachment": Pair(
        then(guests, has(1)), detach(1), detach(2), BOTH
    ),
    "extend and attach, shared": Pair(
        then(guests, has(2, **TWO), grown(2 * GIB)),
        extend(1, 2 * GIB),
        attach(2, 1, **SHARED),
        {*BOTH, ("done", "refused")},
    ),
    "extend and detach, shared": Pair(
        then(guests, has(1, **SHARED), has(2, **TWO), grown(2 * GIB)),
        extend(1, 2 * GIB),
        detach(2),
        BOTH,
    ),
    "extend and extend": Pair(
        then(guests, has(1, **SHARED), has(2, **TWO), grown(3 * GIB)),
        extend(1, 3 * GIB),
        extend(2, 3 * GIB),
        BOTH,
    ),
    "limits and extend": Pair(
        then(guests, has(1), grown(2 * GIB)),
        set_iotune(1, {"total_iops_sec": 100}),
        extend(2, 2 * GIB),
        BOTH,
    ),
    "swap and attach of the old volume, shared": Pair(
        then(guests, has(1, **SHARED)),
        swap(1, envelope=SOLE, **SHARED),
        attach(2, 3, **TWO),
        {*BOTH, *ONE_OF_THEM},
    ),
    "swap and attach of the new volume": Pair(
        then(guests, has(1)), swap(1), attach(2, 3, instance=2, volume=2), ONE_OF_THEM
    ),
    "two volumes of one target": Pair(
        then(guests, has(2, instance=2, volume=2)), attach(1), detach(2, 2, instance=2), BOTH
    ),
}


@pytest.mark.parametrize("is_swapped", [False, True], ids=["", "swapped"])
@pytest.mark.parametrize("name", PAIRS)
def test_pair(name: str, is_swapped: bool, rounds: int, draw: random.Random) -> None:
    pair = PAIRS[name]
    asks = (pair.second, pair.first) if is_swapped else (pair.first, pair.second)

    def tell(*switches: int) -> bool:
        """Did every switch come before an end?"""
        act = Interleaved(asks, switches)
        story = Story(f"{name}, {switches}", pair.begin, (act,), (), pair.check_outcome)
        Telling.begin(story).finish()
        return len(act.made) == len(switches)

    tell()
    if rounds < 3:
        for _ in range(DRAWN.count(rounds)):
            tell(draw.randrange(CALLS_AT_MOST), draw.randrange(CALLS_AT_MOST))
        return
    for first in itertools.takewhile(tell, itertools.count()):
        for _ in itertools.takewhile(functools.partial(tell, first), itertools.count()):
            pass
