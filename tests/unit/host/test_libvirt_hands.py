"""Threads that rest are gone: what is asked afterwards is not left to one of them."""

import threading

from agent.host.libvirt_hands import Hands, Task

LONG_SECONDS = 60
"""So long a test that fails takes, instead of for ever."""


def asked(hands: Hands) -> list[str]:
    """What came of a question that any thread answers."""
    task = Task(lambda: "answer", lambda: None)
    hands.give(task)
    task.ended.wait(LONG_SECONDS)
    return task.answers


def test_a_thread_that_ends_its_task_meanwhile_is_not_idle() -> None:
    hands = Hands()
    last = Task(threading.current_thread, hands.rest)
    hands.give(last)
    assert last.ended.wait(LONG_SECONDS)
    last.answers[0].join(LONG_SECONDS)
    assert asked(hands) == ["answer"]


def test_the_end_of_one_that_hangs_is_not_told_to_another() -> None:
    hands = Hands()
    never = threading.Event()
    hands.give(Task(never.wait, lambda: None))
    hands.rest()
    assert asked(hands) == ["answer"]
    never.set()
