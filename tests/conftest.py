"""Options of the whole suite."""

import gc

import pytest

pytest.register_assert_rewrite("tests.functional", "tests.nested")  # what they expect is told


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--rewrite-golden", action="store_true", help="write the golden files from what is now"
    )
    parser.addoption(
        "--rounds", type=int, default=1, help="how much more of the random and exhaustive tests"
    )
    parser.addoption("--seed", type=int, default=None, help="repeat a random test that failed")


def pytest_collection_finish() -> None:
    """What is there now stays to the end: the garbage collector need not look at it again."""
    gc.collect()
    gc.freeze()


@pytest.fixture
def rounds(request: pytest.FixtureRequest) -> int:
    return int(request.config.getoption("--rounds"))
