"""Several who ask at once share a look, and nobody gets one that is older than his question."""

import sys
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import count

import pytest

from agent.errors import Unavailable
from agent.host.libvirt_shared import Shared
from tests.lab.patience import wait_until

ASKERS = 5
ENOUGH_SECONDS = 20


class Scenery:
    """What is looked at: a number that changes. The first look takes until ``go``."""

    def __init__(self, error: Exception | None = None) -> None:
        self.number = 0
        self.looks = 0
        self.begun = threading.Event()
        self.go = threading.Event()
        self.shared = Shared(self._look)
        self._error = error

    def _look(self) -> int:
        self.looks += 1
        seen = self.number
        self.begun.set()
        assert self.go.wait(ENOUGH_SECONDS)
        if self._error is not None and self.looks > 1:
            raise self._error
        return seen


def is_within(code: object) -> Callable[[], bool]:
    """So many threads wait in ``code``, the one that looks included."""

    def found() -> bool:
        frames = list(sys._current_frames().values())
        waiting = 0
        for frame in frames:
            inner: object = frame
            while inner is not None and getattr(inner, "f_code", None) is not code:
                inner = getattr(inner, "f_back", None)
            waiting += inner is not None
        return waiting == ASKERS + 1

    return found


def asked_during_a_look(scenery: Scenery) -> list[Future[int]]:
    """The answers: of him whose look is under way, and of those who ask meanwhile."""
    with ThreadPoolExecutor(ASKERS + 1) as threads:
        first = threads.submit(scenery.shared.look)
        assert scenery.begun.wait(ENOUGH_SECONDS)
        scenery.number = 1
        others = [threads.submit(scenery.shared.look) for _ in range(ASKERS)]
        wait_until(is_within(Shared.look.__code__), "all wait", seconds=ENOUGH_SECONDS)
        scenery.go.set()
    return [first, *others]


def test_who_asks_during_a_look_shares_the_next_one() -> None:
    scenery = Scenery()
    first, *others = asked_during_a_look(scenery)
    assert first.result() == 0
    assert [other.result() for other in others] == [1] * ASKERS, "not what was seen before"
    assert scenery.looks < 1 + ASKERS


def test_one_after_the_other_each_has_a_look_of_his_own() -> None:
    numbers = count()
    shared = Shared(lambda: next(numbers))
    assert [shared.look() for _ in range(3)] == [0, 1, 2]


def test_an_error_is_that_of_all_who_share_the_look() -> None:
    scenery = Scenery(Unavailable("libvirt", "it hangs"))
    first, *others = asked_during_a_look(scenery)
    assert first.result() == 0
    for other in others:
        with pytest.raises(Unavailable):
            other.result()
    assert scenery.looks < 1 + ASKERS
