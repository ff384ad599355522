"""Options of the whole suite."""

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--rewrite-golden", action="store_true", help="write the golden files from what is now"
    )
    parser.addoption(
        "--rounds", type=int, default=1, help="how much more of the random and exhaustive tests"
    )
    parser.addoption("--seed", type=int, default=None, help="repeat a random test that failed")


@pytest.fixture
def rounds(request: pytest.FixtureRequest) -> int:
    return int(request.config.getoption("--rounds"))
