"""Waiting with an end, and the one error of the lab."""

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


class LabError(Exception):
    """The lab itself does not work: nothing is said about the agent."""


def wait_until(
    look: Callable[[], T | None], what: str, *, seconds: float, pause_seconds: float = 0.02
) -> T:
    """The first result of ``look`` that is neither None nor False.

    Raises LabError, naming ``what`` was awaited, when there is none after ``seconds``.
    """
    end = time.monotonic() + seconds
    while True:
        found = look()
        if found is not None and found is not False:
            return found
        if time.monotonic() >= end:
            raise LabError(f"waited {seconds:g} s in vain: {what}")
        time.sleep(pause_seconds)
