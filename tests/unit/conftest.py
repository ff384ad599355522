"""How property tests run: no clock decides, and a failure can be repeated; and a simulated host."""

from collections.abc import Iterator

import pytest
from hypothesis import settings

from tests.unit.saga.stories import host
from tests.world.world import World

# A loaded machine is slow; print_blob gives the line that repeats what failed.
settings.register_profile("house", deadline=None, print_blob=True)
settings.load_profile("house")


@pytest.fixture
def world() -> Iterator[World]:
    """With two volumes of one target, one guest and a running agent."""
    world = World()
    host()(world)
    world.start()
    yield world
    world.close()
