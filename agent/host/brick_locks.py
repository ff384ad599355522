"""os-brick's own locks, in its own files, as the agent takes them (docs/locks.rst).

    <lock_path>/os-brick-connect_volume    one for the host: around every connect and disconnect of
                                           SCSI and NVMe, in every program that uses os-brick
    <lock_path>/os-brick-extend_volume     around every extend, in every program that uses os-brick
    <lock_path>/os-brick-<service_uuid>    the guard of a storage service, where os-brick says so

os-brick holds the first alone for each call: minutes for a LUN that does not show, and all NVMe
waits. Here the *process* holds it while any of its calls is in os-brick: other programs are
excluded as ever, and within the process SCSI and NVMe do not wait for each other. They may: SCSI
removes what has a kernel name by now (sdb, dm-3), NVMe goes by its subsystem, which the caller has
locked. os-brick waits for either for ever and in silence; here each wait ends with a name.
"""

import inspect
import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from os_brick.initiator import utils
from oslo_concurrency import lockutils

from agent.errors import Unavailable
from agent.model.attachment import Attachment
from agent.model.connection import Lane
from agent.model.moment import rfc3339

CONNECT_VOLUME = "connect_volume"
"""os-brick's name of its lock of the whole host, and its prefix of every lock file."""
EXTEND_VOLUME = "extend_volume"
PREFIX = "os-brick-"

KIND = "os-brick"
"""Of all these locks, for who is told of waits."""

POLL_SECONDS = 0.1
"""How often the lock of another program is asked for, as os-brick itself does."""


@dataclass(eq=False)
class _Turn:
    """One of our calls, and since when it waits for the lock, or has it. ``queued_at``: since when
    it is here at all, in monotonic seconds."""

    name: str
    who: str
    since: str
    queued_at: float
    has_it: bool = False


def _now() -> str:
    return rfc3339(datetime.now(UTC))


def _age_seconds(since: str) -> float:
    return (datetime.now(UTC) - datetime.fromisoformat(since)).total_seconds()


def _thread_name() -> str:
    return threading.current_thread().name


class OsBrickLocks:
    """Who waits longer than ``timeout_seconds`` gets Unavailable, which names the holder. ``who``
    says on whose behalf the calling thread asks; the operator reads it. ``on_wait`` is told how
    long (seconds) who got one, or gave up, has waited for it; its kind is ``os-brick``."""

    def __init__(
        self,
        timeout_seconds: float,
        who: Callable[[], str] = _thread_name,
        on_wait: Callable[[str, float], None] = lambda kind, seconds: None,
    ) -> None:
        self._timeout_seconds = timeout_seconds
        self._who = who
        self._on_wait = on_wait
        self._turns: list[_Turn] = []
        self._scsi = threading.Lock()
        self._guards: dict[str, threading.Lock] = {}
        self._mutex = threading.Lock()
        self._inside = 0
        self._file: Any = None

    def call(
        self,
        lane: Lane,
        method: Callable[..., Any],
        *arguments: Any,
        check: Callable[[], object] = lambda: None,
    ) -> Any:
        """Call a connector's connect_volume or disconnect_volume under the lock of the host, if
        it is one that takes it; right before it ``check``, which raises what speaks against it."""
        unlocked = beneath_lock(method)
        if unlocked is None:
            check()
            return method(*arguments)
        with self.hold(lane):
            check()
            return unlocked(*arguments)

    def extend(self, lane: Lane, method: Callable[..., Any], *arguments: Any) -> Any:
        """Call a connector's extend_volume when nobody else extends, if it is one that waits for
        him: it would not give up."""
        if beneath_lock(method, EXTEND_VOLUME) is None:
            with self.hold(lane):
                return method(*arguments)
        deadline = time.monotonic() + self._timeout_seconds
        with self._turn(EXTEND_VOLUME) as turn:
            self._wait_for_other(EXTEND_VOLUME, deadline)  # before others are kept waiting
            with self.hold(lane):
                self._wait_for_other(EXTEND_VOLUME, deadline)
                self._begin(turn)
                return method(*arguments)

    @contextmanager
    def hold(self, lane: Lane) -> Iterator[None]:
        """The host's lock; beside NVMe also before everything that is not NVMe."""
        deadline = time.monotonic() + self._timeout_seconds
        with (
            self._turn(CONNECT_VOLUME) as turn,
            nullcontext() if lane == "nvme" else self._mine(self._scsi, deadline),
        ):
            with self._mine(self._mutex, deadline):
                if not self._inside:
                    self._take_file(deadline)
                self._inside += 1
            self._begin(turn)
            try:
                yield
            finally:
                with self._mutex:
                    self._inside -= 1
                    if not self._inside:
                        self._file.release()

    @contextmanager
    def guard(self, attachment: Attachment) -> Iterator[None]:
        """os-brick's guard of a storage service whose volumes share targets, as os-brick decides.

        Without a service there is no name to lock; the caller's lock of the target still holds."""
        if attachment.service_uuid is None:
            yield
            return
        with ExitStack() as stack:
            turns: list[_Turn] = []

            def wait(name: str) -> None:
                deadline = time.monotonic() + self._timeout_seconds
                turns.append(stack.enter_context(self._turn(name)))
                ours = self._guards.setdefault(name, threading.Lock())
                stack.enter_context(self._mine(ours, deadline, name))
                self._wait_for_other(name, deadline)

            try:
                stack.enter_context(utils.guard_connection(_Guarded(attachment, wait)))
            except OSError as error:
                raise _closed(attachment.service_uuid, error) from error
            for turn in turns:
                self._begin(turn)
            yield

    def held(self) -> Sequence[Mapping[str, Any]]:
        """Locks of os-brick's that this process has or waits for, or another program has: as
        ports.Locks.held. Since when another program has one the kernel does not say."""
        turns = list(self._turns)
        files = Path(_lock_path() or os.devnull).glob(f"{PREFIX}*")
        table = locks_of_the_kernel()  # of one for each target that ever was
        others = {file.name: holder for file in files if (holder := holder_of(file, table))}
        names = sorted({f"{PREFIX}{turn.name}" for turn in turns} | others.keys())
        return [self._row(name, turns, others.get(name)) for name in names]

    def _row(self, name: str, turns: Sequence[_Turn], other: str | None) -> Mapping[str, Any]:
        ours = [turn for turn in turns if f"{PREFIX}{turn.name}" == name]
        having = [turn for turn in ours if turn.has_it]
        since = min((turn.since for turn in having), default=None)
        names = ", ".join(turn.who for turn in having)
        return {
            "name": name,
            "holder": f"{names} (pid {os.getpid()})" if having else other,
            "since": since,
            "overdue": since is not None and _age_seconds(since) > self._timeout_seconds,
            "waiters": [{"who": turn.who, "since": turn.since} for turn in ours if not turn.has_it],
        }

    @contextmanager
    def _turn(self, name: str) -> Iterator[_Turn]:
        turn = _Turn(name, self._who(), _now(), time.monotonic())
        self._turns.append(turn)
        try:
            yield turn
        finally:
            self._turns.remove(turn)

    def _begin(self, turn: _Turn) -> None:
        turn.since, turn.has_it = _now(), True
        self._on_wait(KIND, time.monotonic() - turn.queued_at)

    @contextmanager
    def _mine(
        self, lock: threading.Lock, deadline: float, name: str = CONNECT_VOLUME
    ) -> Iterator[None]:
        """A lock of this process: its holder is one of our own calls."""
        if not lock.acquire(timeout=max(0.0, deadline - time.monotonic())):
            raise self._given_up(name, "another storage call of this agent")
        try:
            yield
        finally:
            lock.release()

    def _take_file(self, deadline: float) -> None:
        """One lock object for ever: such a lock goes when *any* descriptor of its file is closed
        in the process, one that a failed attempt has left open as well."""
        if self._file is None:
            self._file = lockutils.external_lock(CONNECT_VOLUME, PREFIX, _lock_path())
        left_seconds = max(0.0, deadline - time.monotonic())
        try:
            has_it = self._file.acquire(max_delay=POLL_SECONDS, timeout=left_seconds)
        except OSError as error:
            raise _closed(CONNECT_VOLUME, error) from error
        if not has_it:
            raise self._given_up(CONNECT_VOLUME, holder_of(_path(self._file)) or "another program")

    def _wait_for_other(self, name: str, deadline: float) -> None:
        """Until no other program holds it: os-brick then takes it, and would not give up."""
        path = _path(lockutils.external_lock(name, PREFIX))
        while holder := holder_of(path):
            left_seconds = deadline - time.monotonic()
            if left_seconds <= 0:
                raise self._given_up(name, holder)
            time.sleep(min(POLL_SECONDS, left_seconds))

    def _given_up(self, name: str, holder: str) -> Unavailable:
        self._on_wait(KIND, self._timeout_seconds)
        return Unavailable(
            f"os-brick's lock {PREFIX}{name}",
            f"held by {holder}; gave up after {self._timeout_seconds:g} s, nothing was touched: it "
            "is tried again, look at what that program does",
        )


def _closed(name: str, error: OSError) -> Unavailable:
    """The file can be neither made nor opened."""
    return Unavailable(
        f"os-brick's lock {PREFIX}{name}",
        f"{error.filename or 'its file'}: {error.strerror}; nothing was touched, and it is tried "
        "again: see whose [os_brick] lock_path is (docs/operate.rst, Configure)",
    )


class _Guarded(dict[str, Any]):
    """What guard_connection is given. It reads ``service_uuid`` only where it is about to lock."""

    def __init__(self, attachment: Attachment, wait: Callable[[str], None]) -> None:
        super().__init__(
            service_uuid=attachment.service_uuid, shared_targets=attachment.shared_targets
        )
        self._wait = wait

    def __getitem__(self, key: str) -> Any:
        value = super().__getitem__(key)
        if key == "service_uuid":
            self._wait(value)
        return value


def beneath_lock(
    method: Callable[..., Any], name: str = CONNECT_VOLUME
) -> Callable[..., Any] | None:
    """A connector's method without os-brick's lock of that name, and without what is around that
    (a trace, and a link for volumes that dm-crypt decrypts, which we never ask for).

    None: it takes no such lock. An os-brick that locks in another way is used as it is: it then
    serialises the host itself, and a test tells."""
    layer = getattr(method, "__func__", None)
    while layer is not None:
        if layer.__code__ is _locking_code() and _closure(layer, "name") == name:
            bound: Callable[..., Any] = layer.__wrapped__.__get__(method.__self__)  # type: ignore[attr-defined]
            return bound
        layer = getattr(layer, "__wrapped__", None)
    return None


def _locking_code() -> Any:
    """What every method that os-brick has locked runs first."""
    # Imported late, as all of os-brick's connectors: see brick_library.
    from os_brick.initiator.connectors import base

    return base.synchronized("any")(lambda: None).__code__


def _closure(function: Callable[..., Any], name: str) -> Any:
    return inspect.getclosurevars(function).nonlocals.get(name)


def _lock_path() -> str | None:
    """Where os-brick's connectors lock, by its own configuration."""
    from os_brick.initiator.connectors import base

    path: str | None = base.CONF.os_brick.lock_path
    return path


def _path(lock: Any) -> Path:
    return Path(os.fsdecode(lock.path))


def locks_of_the_kernel() -> Sequence[str]:
    """Empty where it does not tell."""
    try:
        return Path("/proc/locks").read_text().splitlines()
    except OSError:
        return ()


def holder_of(path: Path, table: Sequence[str] | None = None) -> str | None:
    """The *other* process that has locked the file, for people: ``nova-compute (pid 4711)``.

    By the kernel's table: who opened the file to ask would, on closing it, drop what his own
    process holds. None: nobody, this process, or one that the kernel does not show."""
    try:
        found = path.stat()
    except OSError:
        return None
    inode = f"{os.major(found.st_dev):02x}:{os.minor(found.st_dev):02x}:{found.st_ino}"
    lines = locks_of_the_kernel() if table is None else table
    for line in lines:  # 1: POSIX  ADVISORY  WRITE 4711 fe:00:16041160 0 EOF
        fields = line.split()
        if "->" not in fields and fields[5:6] == [inode] and int(fields[4]) != os.getpid():
            return f"{_command(fields[4])} (pid {fields[4]})"
    return None


def _command(pid: str) -> str:
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip()
    except OSError:
        return "a process"
