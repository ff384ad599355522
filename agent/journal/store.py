"""The file: opened once by the daemon, written in groups, readable by everybody who may.

Group commit without a thread of its own: whoever gets the commit lock first writes everything
that is queued, in one transaction and one fsync; the others find their change done.
"""

import fcntl
import os
import sqlite3
import threading
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, TypeVar

from agent.errors import Busy, Internal
from agent.journal.book import Book
from agent.journal.schema import migrate
from agent.model.device import Device
from agent.ports import Clock, Promise

Result = TypeVar("Result")

FILE_NAME = "journal.sqlite"


@dataclass
class _Change(Generic[Result]):
    apply: Callable[[Book], Result]
    done: bool = False
    result: list[Result] = field(default_factory=list)
    error: Exception | None = None


class Journal:
    """What the daemon writes. Also the Promises port that steps ask.

    ``directory`` None keeps it in memory, for simulations. Raises Busy if another daemon has it,
    ValueError if a newer agent has written it.
    """

    def __init__(self, directory: Path | None, clock: Clock) -> None:
        self._clock = clock
        self._queue: deque[_Change[Any]] = deque()
        self._commit_lock = threading.Lock()
        self._read_lock = threading.Lock()
        self._daemon_lock = None if directory is None else _claim(directory)
        path = ":memory:" if directory is None else str(directory / FILE_NAME)
        self._db = _open(path)
        migrate(self._db)
        self._book = Book(self._db)
        self._reader = self._db if directory is None else _open(path)
        self._read_book = Book(self._reader)
        if directory is None:
            self._read_lock = self._commit_lock

    def write(self, change: Callable[[Book], Result]) -> Result:
        """Run ``change`` in a transaction; durable, with its result, when this returns."""
        mine = _Change(change)
        self._queue.append(mine)
        with self._commit_lock:
            if not mine.done:
                self._commit_queued()
        if mine.error is not None:
            raise mine.error
        return mine.result[0]

    def read(self, question: Callable[[Book], Result]) -> Result:
        """Answer from what is durable; never waits for a disk."""
        with self._read_lock:
            return question(self._read_book)

    def close(self) -> None:
        with self._commit_lock:
            self._db.close()
        if self._reader is not self._db:
            self._reader.close()
        if self._daemon_lock is not None:
            os.close(self._daemon_lock)

    def _commit_queued(self) -> None:
        batch = [self._queue.popleft() for _ in range(len(self._queue))]
        self._db.execute("BEGIN IMMEDIATE")
        for change in batch:
            self._db.execute("SAVEPOINT change")
            try:
                change.result.append(change.apply(self._book))
            except Exception as error:  # noqa: BLE001 - raised again in the caller that queued it
                change.error = error
                self._db.execute("ROLLBACK TO change")
            self._db.execute("RELEASE change")
        try:
            self._db.execute("COMMIT")
        except sqlite3.Error as error:
            self._db.rollback()
            lost = Internal(f"the journal cannot be written: {error}; nothing was recorded")
            for change in batch:
                change.error = change.error or lost
        for change in batch:
            change.done = True

    # the Promises port

    def promises(self, besides: str) -> Sequence[Promise]:
        return self.read(lambda book: book.promises(besides))

    def device_of(self, attachment_id: str) -> Device | None:
        held = self.read(lambda book: book.attachment(attachment_id))
        return None if held is None else held.device

    def withdraw(self, attachment_id: str) -> None:
        self.write(lambda book: book.withdraw(attachment_id))

    def quarantine(self, volume_id: str, device: Device, reason: str) -> None:
        now = self._clock.now()
        self.write(lambda book: book.quarantine(volume_id, device, reason, now))

    def quarantined(self, volume_id: str) -> str | None:
        row = self.read(lambda book: book.quarantined()).get(volume_id)
        return None if row is None else str(row["reason"])


def open_read_only(directory: Path) -> Book:
    """For attachctl: works while the daemon writes and when it is down."""
    path = directory / FILE_NAME
    return Book(sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=5.0))


def _open(path: str) -> sqlite3.Connection:
    if path != ":memory:":
        os.close(os.open(path, os.O_CREAT | os.O_RDWR, 0o600))
        os.chmod(path, 0o600)
    db = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=10.0)
    for pragma in ("journal_mode=WAL", "synchronous=FULL", "secure_delete=ON"):
        db.execute(f"PRAGMA {pragma}")
    return db


def _claim(directory: Path) -> int:
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    lock = os.open(directory / "daemon.lock", os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(lock)
        raise Busy(f"another attachment-agent uses {directory}: stop it first") from None
    return lock
