"""Random choices that can be repeated."""

import random

import pytest


@pytest.fixture
def draw(request: pytest.FixtureRequest) -> random.Random:
    """Seeded by ``--seed``, which a failing test prints."""
    seed = request.config.getoption("--seed")
    seed = random.randrange(1 << 32) if seed is None else seed
    print(f"repeat with --seed {seed}")
    return random.Random(seed)
