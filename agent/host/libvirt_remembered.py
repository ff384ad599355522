"""What is of use for a while: the last word on each of so many instances."""

import threading
from typing import Final, Generic, TypeVar

KEPT: Final = 200
"""Whoever waits for one asks soon."""

Word = TypeVar("Word")


class Remembered(Generic[Word]):
    """By instance id, the newest KEPT. Any thread may call."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._words: dict[str, Word] = {}

    def keep(self, instance_id: str, word: Word) -> None:
        with self._lock:
            self._words.pop(instance_id, None)
            self._words[instance_id] = word
            while len(self._words) > KEPT:
                del self._words[next(iter(self._words))]

    def get(self, instance_id: str) -> Word | None:
        with self._lock:
            return self._words.get(instance_id)

    def forget(self, instance_id: str) -> None:
        with self._lock:
            self._words.pop(instance_id, None)
