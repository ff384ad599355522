"""What is done again and again, how often."""

import threading

import pytest

from agent.errors import ConnectFailed, Internal, Unavailable
from agent.service.turns import Turns, do_all

BOUND_SECONDS = 20.0


def test_one_that_fails_keeps_no_other_from_its_turn() -> None:
    done = list[str]()

    def fails() -> None:
        done.append("fails")
        raise ConnectFailed(f"failure {len(done)}")

    with pytest.raises(ConnectFailed, match="failure 1"):
        do_all([fails, lambda: done.append("goes"), fails])
    assert done == ["fails", "goes", "fails"]


def test_nor_does_one_that_meets_a_defect(caplog: pytest.LogCaptureFixture) -> None:
    done = list[str]()

    def refuses() -> None:
        raise ConnectFailed("it is known why")

    def meets_a_defect() -> None:
        raise ValueError("nobody foresaw it")

    for acts, raised in (([refuses, meets_a_defect], ConnectFailed), ([meets_a_defect], Internal)):
        caplog.clear()
        with pytest.raises(raised):
            do_all([*acts, lambda: done.append("goes")])
        assert "ValueError: nobody foresaw it" in caplog.text, "it is logged with its traceback"
    assert done == ["goes", "goes"]


def test_what_wants_to_be_asked_soon_is_and_then_no_more() -> None:
    done = threading.Semaphore(0)
    wants = [0.01, 0.01, None]

    def act() -> float | None:
        done.release()
        return wants.pop(0)

    turns = Turns("of a test", act, 1000.0, trouble="none")
    turns.start()
    for _ in range(3):
        assert done.acquire(timeout=BOUND_SECONDS)
    assert not done.acquire(timeout=0.1)
    turns.stop()


@pytest.mark.parametrize(
    ("error", "is_traced"),
    [(Unavailable("libvirt", "it is away"), False), (ValueError("a defect"), True)],
    ids=["foreseen", "unforeseen"],
)
def test_what_fails_is_done_at_the_next_turn(
    error: Exception, is_traced: bool, caplog: pytest.LogCaptureFixture
) -> None:
    done = threading.Semaphore(0)

    def act() -> None:
        done.release()
        raise error

    turns = Turns("of a test", act, 0.01, trouble="it was away")
    turns.start()
    for _ in range(3):
        assert done.acquire(timeout=BOUND_SECONDS)
    assert turns.turning()
    turns.stop()
    assert "it was away: " in caplog.text
    assert ("Traceback" in caplog.text) == is_traced
