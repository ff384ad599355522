"""Named locks of this machine: first come, first served, bounded, and readable by the operator.

Within the process a queue for each name; across processes flock(2) on a file of our own, which
the kernel lets go when its holder dies. The file holds one JSON line about the holder::

    <state_path>/locks/volume_<id>-<hash>.lock     while held, or left by a kill: then it is free
    <state_path>/locks/target_<iqn>-<hash>.lock

Rejected: lockf (POSIX) locks, so also oslo.concurrency's and fasteners': they belong to the
process, and closing any descriptor of the file drops them for every thread.
"""

import fcntl
import hashlib
import json
import os
import re
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from agent.errors import Unavailable
from agent.model.moment import rfc3339

POLL_SECONDS = (0.005, 0.01, 0.02, 0.05, 0.1, 0.25)
"""How often a lock of another process is asked for: soon at first, then four times a second."""


def _thread_name() -> str:
    return threading.current_thread().name


@dataclass
class _Turn:
    """One thread's place in the queue of one name. ``queued_at``: since when it is there,
    ``first_at``: since when as the first (both in monotonic seconds); it then has the lock, or
    asks another process for it."""

    name: str
    who: str
    asked_at: str
    first: threading.Event = field(default_factory=threading.Event)
    queued_at: float = field(default_factory=time.monotonic)
    first_at: float = 0.0
    held_since: str | None = None

    def come_first(self) -> None:
        if not self.first.is_set():
            self.first_at = time.monotonic()
            self.first.set()


class FileLocks:
    """ports.Locks in ``directory`` (made if missing, mode 0700).

    A holder may take ``timeout_seconds``. Who waits for one that takes longer gets Unavailable,
    which names it: nothing is undone, the operation tries again. As long as the lock changes hands
    in time everybody keeps his place in the queue. ``who`` says on whose behalf the calling thread
    asks; the operator reads it. ``on_wait`` is told how long (seconds) who got a lock, or gave up,
    has waited for it: a ``volume`` or a ``target``.
    """

    def __init__(
        self,
        directory: Path,
        *,
        timeout_seconds: float,
        who: Callable[[], str] = _thread_name,
        on_wait: Callable[[str, float], None] = lambda kind, seconds: None,
    ) -> None:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._directory = directory
        self._timeout_seconds = timeout_seconds
        self._who = who
        self._on_wait = on_wait
        self._mutex = threading.Lock()
        self._queues: dict[str, deque[_Turn]] = {}

    def volume(self, volume_id: str) -> AbstractContextManager[None]:
        return self._hold((f"volume:{volume_id}",))

    def targets(self, names: Sequence[str]) -> AbstractContextManager[None]:
        return self._hold(tuple(f"target:{name}" for name in sorted(set(names))))

    def held(self) -> Sequence[Mapping[str, Any]]:
        with self._mutex:
            queues = [(name, list(queue)) for name, queue in sorted(self._queues.items())]
        return [self._describe(name, *turns) for name, turns in queues]

    def _describe(self, name: str, first: _Turn, *others: _Turn) -> Mapping[str, Any]:
        waiting = [*others] if first.held_since else [first, *others]
        if first.held_since:
            holder = {"holder": _holder(os.getpid(), first.who), "since": first.held_since}
        else:
            holder = _read_holder(self._file_of(name))
        return {
            "name": name,
            **holder,
            "overdue": self._is_overdue(holder["since"]),
            "waiters": [{"who": turn.who, "since": turn.asked_at} for turn in waiting],
        }

    def _is_overdue(self, since: str | None) -> bool:
        """By the clock on the wall: it is all that another process has written down."""
        if since is None:
            return False
        age = datetime.now(UTC) - datetime.fromisoformat(since)
        return age.total_seconds() > self._timeout_seconds

    @contextmanager
    def _hold(self, names: Sequence[str]) -> Iterator[None]:
        with ExitStack() as stack:
            for name in names:
                stack.enter_context(self._hold_one(name))
            yield

    @contextmanager
    def _hold_one(self, name: str) -> Iterator[None]:
        turn = _Turn(name, self._who(), _now())
        self._enqueue(turn)
        try:
            self._wait_until_first(turn)
            with self._flock(turn):
                self._tell_wait(turn)
                yield
        finally:
            self._leave(turn)

    # within this process: a queue

    def _enqueue(self, turn: _Turn) -> None:
        with self._mutex:
            queue = self._queues.setdefault(turn.name, deque())
            queue.append(turn)
            queue[0].come_first()

    def _wait_until_first(self, turn: _Turn) -> None:
        while not turn.first.wait(self._patience_seconds(turn.name)):
            if not self._patience_seconds(turn.name) and not turn.first.is_set():
                raise self._timed_out(turn)

    def _patience_seconds(self, name: str) -> float:
        """With who is first now: it begins anew when the lock changes hands."""
        with self._mutex:
            first_at = self._queues[name][0].first_at
        return max(0.0, first_at + self._timeout_seconds - time.monotonic())

    def _leave(self, turn: _Turn) -> None:
        with self._mutex:
            queue = self._queues[turn.name]
            queue.remove(turn)
            if queue:
                queue[0].come_first()
            else:
                del self._queues[turn.name]

    # across processes: a file

    @contextmanager
    def _flock(self, turn: _Turn) -> Iterator[None]:
        path = self._file_of(turn.name)
        try:
            descriptor = self._take(path, turn)
        except OSError as error:
            raise Unavailable(
                f"lock {turn.name}", f"{path}: {error.strerror}; nothing was touched"
            ) from error
        try:
            yield
        finally:
            turn.held_since = None
            # Unlinked while still held: who opened it before finds, once he has the lock, that
            # the name means another file, and opens again. A file that stays does no harm.
            with suppress(OSError):
                path.unlink()
            os.close(descriptor)

    def _take(self, path: Path, turn: _Turn) -> int:
        """A descriptor that holds the lock.

        Polls: a thread that blocks in flock(2) cannot be told to give up. It only happens where
        another *process* holds the lock, never among the threads of the agent.
        """
        attempts = 0
        while True:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if _is_named(descriptor, path):
                    turn.held_since = _now()
                    _write_holder(descriptor, turn)
                    return descriptor
            except BlockingIOError:
                pass
            except BaseException:
                os.close(descriptor)
                raise
            os.close(descriptor)
            seconds_left = turn.first_at + self._timeout_seconds - time.monotonic()
            if seconds_left <= 0 or self._is_overdue(_read_holder(path)["since"]):
                raise self._timed_out(turn)
            pause = POLL_SECONDS[min(attempts, len(POLL_SECONDS) - 1)]
            time.sleep(min(pause, seconds_left))
            attempts += 1

    def _tell_wait(self, turn: _Turn) -> None:
        kind, _, _ = turn.name.partition(":")
        self._on_wait(kind, time.monotonic() - turn.queued_at)

    def _timed_out(self, turn: _Turn) -> Unavailable:
        self._tell_wait(turn)
        lock = next((lock for lock in self.held() if lock["name"] == turn.name), {})
        holder = lock.get("holder")
        held = f"held by {holder} since {lock['since']}" if holder else "its holder has just let go"
        return Unavailable(
            f"lock {turn.name}",
            f"{held}, after more than {self._timeout_seconds:g} s; nothing "
            "was touched, and it is tried again: 'attachctl locks' shows who holds and who waits, "
            "'attachctl operations' what the holder does",
        )

    def _file_of(self, name: str) -> Path:
        """A readable part, and a hash since an IQN may be longer than a file name."""
        readable = re.sub(r"[^A-Za-z0-9.-]+", "_", name)[:80]
        digest = hashlib.sha256(name.encode()).hexdigest()[:16]
        return self._directory / f"{readable}-{digest}.lock"


def _now() -> str:
    return rfc3339(datetime.now(UTC))


def _holder(pid: int, who: str) -> str:
    return f"{who} (pid {pid})"


def _is_named(descriptor: int, path: Path) -> bool:
    """Is the file that was locked still the one with this name?"""
    try:
        return os.path.samestat(os.fstat(descriptor), os.stat(path))
    except FileNotFoundError:
        return False


def _write_holder(descriptor: int, turn: _Turn) -> None:
    """Never truncated to nothing: ext4 would write the file to the disk when it is closed."""
    about = {"name": turn.name, "pid": os.getpid(), "who": turn.who, "since": turn.held_since}
    line = json.dumps(about).encode() + b"\n"
    os.pwrite(descriptor, line, 0)
    os.ftruncate(descriptor, len(line))


def _read_holder(path: Path) -> dict[str, Any]:
    """Who holds it by the file's word; the file may just be changing hands."""
    try:
        line = json.loads(path.read_text())
        return {"holder": _holder(line["pid"], line["who"]), "since": line["since"]}
    except (OSError, ValueError, KeyError):
        return {"holder": None, "since": None}
