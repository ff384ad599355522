"""A simulated host with one guest and a running agent."""

from collections.abc import Iterator

import pytest

from tests.unit.saga.stories import host
from tests.world.world import World


@pytest.fixture
def world() -> Iterator[World]:
    world = World()
    host()(world)
    world.start()
    yield world
    world.close()
