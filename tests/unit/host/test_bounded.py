"""A command that sleeps in the kernel holds nobody up: not who asks, and not whoever waits."""

import errno
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

import pytest

from agent.errors import ConnectFailed, Unavailable
from agent.host.bounded import Spawn, run_bounded
from agent.host.header import read_header
from agent.host.image import look_at_image
from agent.host.mounts import Mounts

EXPORT = "192.0.2.40:/vols"
STUCK_SECONDS = 60.0
"""So long a test that fails takes, instead of for ever."""


class Unkillable:
    """A child whose time is up at once, and which does not end when it is killed."""

    def __init__(self) -> None:
        self.woken = threading.Event()
        self.signals = 0
        self.is_reaped = threading.Event()

    def spawn(self, command: list[str], **how: Any) -> "Unkillable":
        self.command = command
        return self

    @property
    def as_spawn(self) -> Spawn:
        return cast(Spawn, self.spawn)

    def communicate(self, timeout: float | None = None) -> tuple[str, str]:
        if timeout is None:
            self.wait()
            return "", ""
        raise subprocess.TimeoutExpired(self.command, timeout)

    def kill(self) -> None:
        self.signals += 1

    def wait(self) -> int:
        self.woken.wait(STUCK_SECONDS)
        self.is_reaped.set()
        return -9

    def __enter__(self) -> "Unkillable":
        return self

    def __exit__(self, *error: object) -> None:
        self.wait()


@pytest.fixture
def child() -> Iterator[Unkillable]:
    child = Unkillable()
    yield child
    child.woken.set()


SERVER = "the server of"

STORAGE = (ConnectFailed, "^/x has not answered for 30 s, or has not taken yet what", "dd")


def mounts(child: Unkillable, base: Path) -> Mounts:
    """Its one export is mounted."""
    table = base / "table"
    mounts = Mounts(str(base), lambda directory: False, None, table, child.as_spawn)
    table.write_text(f"{EXPORT} {mounts.directory_of(EXPORT)} nfs4 rw 0 0\n")
    return mounts


@pytest.mark.parametrize(
    ("ask", "refusal", "says", "command"),
    [
        (lambda child, base: mounts(child, base).leave(EXPORT), Unavailable, SERVER, "umount"),
        (
            lambda child, base: mounts(child, base).is_only_here("/x"),
            Unavailable,
            SERVER,
            "findmnt",
        ),
        (lambda child, base: look_at_image("/x", "raw", child.as_spawn), *STORAGE),
        (lambda child, base: read_header("/x", child.as_spawn), *STORAGE),
    ],
    ids=["umount", "findmnt", "image", "header"],
)
def test_one_that_cannot_be_killed_is_not_waited_for(
    child: Unkillable,
    tmp_path: Path,
    ask: Callable[[Unkillable, Path], object],
    refusal: type[Exception],
    says: str,
    command: str,
) -> None:
    before = time.monotonic()
    with pytest.raises(refusal, match=says):
        ask(child, tmp_path)
    assert time.monotonic() - before < STUCK_SECONDS
    assert child.command[0] == command
    assert child.signals == 1
    assert not child.is_reaped.is_set()
    child.woken.set()
    assert child.is_reaped.wait(STUCK_SECONDS), "it leaves no zombie"


def test_one_that_can_be_is_gone() -> None:
    spawned: list[subprocess.Popen[str]] = []

    def spawn(*arguments: Any, **how: Any) -> "subprocess.Popen[str]":
        spawned.append(subprocess.Popen(*arguments, **how))
        return spawned[0]

    with pytest.raises(subprocess.TimeoutExpired):
        run_bounded(["sleep", "600"], 0.1, spawn)
    deadline = time.monotonic() + STUCK_SECONDS
    while spawned[0].returncode is None and time.monotonic() < deadline:
        time.sleep(0.01)
    assert spawned[0].returncode == -9


def test_what_it_wrote_is_told_however_it_ends() -> None:
    assert run_bounded(["sh", "-c", "echo out; echo $LC_ALL >&2; exit 3"], 60) == ("out\n", "C\n")


def test_what_it_wrote_need_not_be_text() -> None:
    said, _ = run_bounded(["printf", r"stat: gr\374\337e\n"], 60)
    assert said.startswith("stat: gr")


@pytest.mark.parametrize(
    "error",
    [BlockingIOError(errno.EAGAIN, "no process to spare"), OSError(errno.ENOMEM, "no memory")],
    ids=["EAGAIN", "ENOMEM"],
)
def test_one_that_cannot_be_begun_says_what_to_do(error: OSError) -> None:
    def spawn(*arguments: Any, **how: Any) -> "subprocess.Popen[str]":
        raise error

    with pytest.raises(Unavailable, match=r"no .* is tried again: see whether") as refused:
        run_bounded(["umount", "/mnt"], 60, spawn)
    assert refused.value.part == "umount"
