"""The file: opened once by the daemon, written in groups, readable by everybody who may.

Group commit without a thread of its own: whoever gets the commit lock first writes everything
that is queued, in one transaction and one fsync; the others find their change done.
"""

import fcntl
import os
import sqlite3
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, TypeVar

from agent.errors import Busy, Unavailable
from agent.journal.book import Book
from agent.journal.schema import migrate, refuse_other_version
from agent.model.device import Device
from agent.ports import Clock, Presence, Promise

Result = TypeVar("Result")

FILE_NAME = "journal.sqlite"

BUSY_SECONDS = 10.0
"""How long a commit waits for another process that has locked the file (a backup, sqlite3(1))."""

CLOSE_SECONDS = 5.0
"""How long the end waits for the disk: systemd kills who does not end (TimeoutStopSec)."""

NOT_OPENED = (
    "nothing was changed: see that the disk works and the file is a journal, then start the agent "
    "again"
)
NOT_READ = (
    "nothing was changed: see that the disk works; operations then go on by themselves, and what "
    "was asked may be asked again"
)
NOT_WRITTEN = (
    "what was written before stands, this was not written: make room on the disk, or mend it; "
    "accepted operations then go on by themselves, and a request that was refused may be sent again"
)
CLOSED = "nothing was changed: the agent is stopping, ask again when it has been started"
"""What state things are in, and what to do."""


@dataclass
class _Change(Generic[Result]):
    apply: Callable[[Book], Result]
    done: bool = False
    result: list[Result] = field(default_factory=list)
    error: Exception | None = None


class Journal:
    """What the daemon writes. Also the Promises port that steps ask.

    ``directory`` None keeps it in memory, for simulations. Raises Busy if another daemon has it,
    ValueError if a newer agent has written it, Unavailable if it cannot be read or written.
    """

    def __init__(self, directory: Path | None, clock: Clock) -> None:
        self._clock = clock
        self._queue: deque[_Change[Any]] = deque()
        self._commit_lock = threading.Lock()
        self._read_lock = self._commit_lock if directory is None else threading.Lock()
        self._asked_at: dict[str, float | None] = {"read": None, "write": None}
        self._where = "memory" if directory is None else str(directory / FILE_NAME)
        self._has_log = True
        self._is_closed = False
        with ExitStack() as claimed:
            if directory is not None:
                claimed.callback(os.close, _claim(directory))
                _make_private(directory / FILE_NAME)
            try:
                self._db = claimed.enter_context(closing(_open(directory)))
                migrate(self._db)
                self._reader = self._db
                if directory is not None:
                    self._reader = _open(directory)
                    claimed.callback(self._close_reader)
            except sqlite3.Error as error:
                raise self._unavailable(error, NOT_OPENED) from error
            self._claimed = claimed.pop_all()
        self._book = Book(self._db)
        self._read_book = Book(self._reader)
        self.scrub()

    def write(self, change: Callable[[Book], Result]) -> Result:
        """Run ``change`` in a transaction; durable, with its result, when this returns.

        Raises what ``change`` raises, and Unavailable where the file cannot be written: then
        nothing was recorded. Changes of other threads may share the transaction; what ``change``
        raises undoes its own part alone."""
        mine = _Change(change)
        self._queue.append(mine)
        with self._disk(self._commit_lock, "write"):
            if not mine.done:
                self._commit_queued()
        if mine.error is not None:
            raise mine.error
        return mine.result[0]

    def read(self, question: Callable[[Book], Result]) -> Result:
        """Answer from what is durable at one moment; never waits for a commit.

        Questions take turns: whoever asks the host does it outside. Raises Unavailable."""
        with self._disk(self._read_lock, "read"):
            try:
                with _transaction(self._reader, "BEGIN"):
                    return question(self._read_book)
            except sqlite3.Error as error:
                raise self._unavailable(error, NOT_READ) from error

    def scrub(self) -> bool:
        """Empty the write-ahead log, so that no file holds what the tables no longer do.

        The tables overwrite what they lose (``secure_delete``), the log is only appended to.
        Waits for commits under way.  False: not now (another process reads, the disk is full or
        broken), try again."""
        with self._disk(self._commit_lock, "write"):
            if self._has_log:
                self._has_log = not _fold_log(self._db)
            return not self._has_log

    def silent_seconds(self) -> float:
        """For how long the disk has not answered a call that is under way; 0: there is none."""
        since = [at for at in tuple(self._asked_at.values()) if at is not None]
        return time.monotonic() - min(since) if since else 0.0

    def close(self, within_seconds: float = CLOSE_SECONDS) -> bool:
        """SQLite folds the log in and removes it, unless another process is reading.

        False: the disk does not answer. What was written is written; the file is closed as soon as
        it does, or with the end of the process."""
        closing = threading.Thread(target=self._close, name="journal's end", daemon=True)
        closing.start()
        closing.join(within_seconds)
        return not closing.is_alive()

    def _close(self) -> None:
        with self._commit_lock:
            self._is_closed = True
            self._claimed.close()

    def _close_reader(self) -> None:
        with self._read_lock:
            self._reader.close()

    @contextmanager
    def _disk(self, lock: threading.Lock, call: str) -> Iterator[None]:
        with lock:
            self._asked_at[call] = time.monotonic()
            try:
                yield
            finally:
                self._asked_at[call] = None

    def _commit_queued(self) -> None:
        batch = [self._queue.popleft() for _ in range(len(self._queue))]
        self._has_log = True
        try:
            with _transaction(self._db, "BEGIN IMMEDIATE"):
                for change in batch:
                    self._apply(change)
        except (sqlite3.Error, Unavailable) as error:
            is_told = isinstance(error, Unavailable)
            lost = error if is_told else self._unavailable(error, NOT_WRITTEN)
            for change in batch:
                change.error = change.error or lost
        finally:
            for change in batch:
                change.done = True

    def _apply(self, change: _Change[Any]) -> None:
        """Within the transaction: all of the change, or its error and nothing of it."""
        self._db.execute("SAVEPOINT change")
        try:
            change.result.append(change.apply(self._book))
        except Exception as error:
            if not self._db.in_transaction:
                # The disk is full or broken, and SQLite has rolled back the whole batch.
                raise self._unavailable(error, NOT_WRITTEN) from error
            is_ours = not isinstance(error, sqlite3.OperationalError)
            change.error = error if is_ours else self._unavailable(error, NOT_WRITTEN)
            self._db.execute("ROLLBACK TO change")
        self._db.execute("RELEASE change")

    def _unavailable(self, error: Exception, state: str) -> Unavailable:
        if self._is_closed:
            state = CLOSED
        return Unavailable("the journal", f"{error} ({self._where}); {state}")

    # the Promises port

    def promises(self, besides: str) -> Sequence[Promise]:
        return self.read(lambda book: book.promises(besides))

    def in_motion(self, volume_id: str, besides: str) -> bool:
        return any(
            part.volume_id == volume_id and part.attachment is not None and part.role != "stays"
            for record in self.read(lambda book: book.open_operations(volume_id=volume_id))
            if record.operation_id != besides
            for part in record.parts
        )

    def device_of(self, attachment_id: str) -> Device | None:
        held = self.read(lambda book: book.attachment(attachment_id))
        return None if held is None else held.device

    def has_moved(self, operation_id: str) -> bool:
        found = self.read(lambda book: book.operation(operation_id))
        return found is not None and (found.verb, found.state) == ("migrate", "done")

    def withdraw(self, attachment_id: str) -> None:
        self.write(lambda book: book.withdraw(attachment_id))

    def leave_behind(self, volume_id: str, device: Device) -> None:
        self.write(lambda book: book.leave_behind(volume_id, device))

    def reclaim(self, volume_id: str) -> None:
        if volume_id in self.read(lambda book: book.left_behind()):
            self.write(lambda book: book.reclaim(volume_id))

    def presence(self, volume_id: str) -> Presence:
        return self.read(lambda book: book.presence(volume_id))

    def disconnected(self, volume_id: str) -> None:
        self.write(lambda book: book.disconnected(volume_id))

    def quarantine(self, volume_id: str, device: Device, reason: str) -> None:
        now = self._clock.now()
        self.write(lambda book: book.quarantine(volume_id, device, reason, now))

    def quarantined(self, volume_id: str) -> str | None:
        row = self.read(lambda book: book.quarantined()).get(volume_id)
        return None if row is None else str(row["reason"])


def open_read_only(directory: Path) -> Book:
    """For attachctl: works while the daemon writes, when it is down, and when it was killed.

    Raises sqlite3.Error if it cannot be read, ValueError if an agent of another version wrote it.
    """
    path = (directory / FILE_NAME).absolute()
    try:
        db = _connect(f"{path.as_uri()}?mode=ro")
    except sqlite3.OperationalError:
        # Even a reader of a WAL file makes files beside it. Where it may not, and the last daemon
        # left no log, the file alone is all there is.
        if _has_content(path.with_name(f"{FILE_NAME}-wal")):
            raise
        db = _connect(f"{path.as_uri()}?mode=ro&immutable=1")
    try:
        refuse_other_version(db)
    except ValueError:
        db.close()
        raise
    return Book(db)


def _connect(uri: str) -> sqlite3.Connection:
    db = sqlite3.connect(uri, uri=True, isolation_level=None, timeout=5.0)
    try:
        db.execute("SELECT count(*) FROM sqlite_master").fetchone()
    except sqlite3.Error:
        db.close()
        raise
    return db


def _has_content(path: Path) -> bool:
    return path.exists() and path.stat().st_size > 0


def _make_private(path: Path) -> None:
    """Before SQLite has it, and never again in this process: with any descriptor of a file that is
    closed all locks on it go (fcntl_locking(2)). Without its lock whoever opens the file beside us
    takes himself for the last, and deletes the log that we write to."""
    descriptor = os.open(path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
    os.fchmod(descriptor, 0o600)
    os.close(descriptor)


def _open(directory: Path | None) -> sqlite3.Connection:
    path = ":memory:" if directory is None else str(directory / FILE_NAME)
    db = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=BUSY_SECONDS)
    # temp_store: the old pages of a savepoint, with credentials, must not reach /var/tmp.
    for pragma in (
        "journal_mode=WAL",
        "synchronous=FULL",
        "secure_delete=ON",
        "temp_store=MEMORY",
    ):
        db.execute(f"PRAGMA {pragma}")
    return db


def _fold_log(db: sqlite3.Connection) -> bool:
    """Is the log empty now?  Waits for nobody.  No: also where the file is broken or closed, of
    which whoever reads or writes is told."""
    try:
        db.execute("PRAGMA busy_timeout = 0")
        try:
            (is_busy, _, _) = db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        finally:
            db.execute(f"PRAGMA busy_timeout = {BUSY_SECONDS * 1000:.0f}")
    except sqlite3.Error:
        return False
    return not is_busy


@contextmanager
def _transaction(db: sqlite3.Connection, begin: str) -> Iterator[None]:
    """Committed at the end, or as if it had not been."""
    db.execute(begin)
    try:
        yield
        db.execute("COMMIT")
    finally:
        if db.in_transaction:
            db.rollback()


def _claim(directory: Path) -> int:
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    lock = os.open(directory / "daemon.lock", os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(lock)
        raise Busy(f"another attachment-agent uses {directory}: stop it first") from None
    return lock
