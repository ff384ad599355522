"""One look for all who ask for it while another is under way."""

import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Generic, TypeVar

from agent.errors import AgentError

Seen = TypeVar("Seen")


class Shared(Generic[Seen]):
    """Looks one at a time, always for everybody who asked before it began: what is seen is never
    older than the question. Any thread may ask."""

    def __init__(self, look: Callable[[], Seen]) -> None:
        self._look = look
        self._mutex = threading.Lock()
        self._turn = threading.Lock()
        self._next: Future[Seen] = Future()

    def look(self) -> Seen:
        """Raises what the look raises: an AgentError to all who share it."""
        with self._mutex:
            mine = self._next
        with self._turn:
            if not mine.done():
                self._begin(mine)
        return mine.result()

    def _begin(self, look: Future[Seen]) -> None:
        with self._mutex:
            self._next = Future()
        try:
            look.set_result(self._look())
        except AgentError as error:
            look.set_exception(error)
