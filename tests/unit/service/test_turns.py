"""What is done again and again, how often."""

import threading

from agent.errors import Unavailable
from agent.service.turns import Turns

BOUND_SECONDS = 20.0


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


def test_what_fails_is_done_at_the_next_turn() -> None:
    done = threading.Semaphore(0)

    def act() -> None:
        done.release()
        raise Unavailable("libvirt", "it is away")

    turns = Turns("of a test", act, 0.01, trouble="it was away")
    turns.start()
    for _ in range(3):
        assert done.acquire(timeout=BOUND_SECONDS)
    turns.stop()
