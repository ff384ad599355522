"""ports.Outbox over the journal: notifications that are durable and not yet published."""

import threading
from collections.abc import Sequence
from typing import Any

from agent.journal.store import Journal


class Letters:
    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self._written = threading.Event()
        self._written.set()  # what an earlier life of the agent has left

    def written(self) -> None:
        """A letter may have been written: whoever waits looks."""
        self._written.set()

    def letters(self, limit: int) -> Sequence[tuple[int, str, dict[str, Any]]]:
        return self._journal.read(lambda book: book.letters(limit))

    def posted(self, up_to_sequence: int) -> None:
        self._journal.write(lambda book: book.posted(up_to_sequence))

    def wait(self, timeout_seconds: float) -> None:
        self._written.wait(timeout_seconds)
        # Before the caller looks: what is written from now on wakes it once more.
        self._written.clear()
