"""Waiting with an end, and the one error of the lab."""

import os
import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def _patience() -> int:
    if os.environ.get("ATTACHMENT_AGENT_NESTED") == "1":
        return 4  # the machine is emulated, by a host that may be busy
    return 3 if "PYTEST_XDIST_WORKER" in os.environ else 1  # others run at the same time


PATIENCE = _patience()
"""All may take so many times as long."""


class LabError(Exception):
    """The lab itself does not work: nothing is said about the agent."""


def wait_until(
    look: Callable[[], T | None], what: str, *, seconds: float, pause_seconds: float = 0.02
) -> T:
    """The first result of ``look`` that is neither None nor False.

    Raises LabError, naming ``what`` was awaited, when there is none after ``seconds``. A look that
    takes long is not repeated at once: it may be what keeps the awaited from happening.
    """
    seconds *= PATIENCE
    begun = time.monotonic()
    end = begun + seconds
    while True:
        found = look()
        if found is not None and found is not False:
            return found
        looked = time.monotonic()
        if looked >= end:
            raise LabError(f"waited {seconds:g} s in vain: {what}")
        time.sleep(max(pause_seconds, looked - begun))
        begun = time.monotonic()
