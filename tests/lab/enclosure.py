"""A private place for daemons: own mount and process namespaces that end with this process.

The first process in the namespaces does nothing but read its standard input, a pipe held
open here. When the pipe closes, because the enclosure is left or because this process was
killed, it ends, and the kernel kills with it whatever was started inside: daemons, the guests
that outlive them, and their helpers. Nobody has to know their process ids.
"""

import contextlib
import os
import select
import signal
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import IO, Self

from tests.lab.patience import LabError, wait_until

# The first process ignores SIGCHLD, so the kernel reaps what is orphaned inside: a QEMU that
# stayed as a zombie would look alive to libvirtd. (dash cannot ignore it: its trap is mute.)
_FIRST_PROCESS = """
set -eu
{setup}
echo ready
exec env --ignore-signal=CHLD cat > /dev/null
"""


class Inside:
    """A process started inside an enclosure; ``pid`` is its number on the outside."""

    def __init__(self, entering: subprocess.Popen[bytes], name: str) -> None:
        # nsenter: it waits for its child, the process, and ends with the same exit code.
        self._entering = entering
        self.name = name
        self.pid = wait_until(self._find_pid, f"{name} starts", seconds=10)
        self._pidfd = os.pidfd_open(self.pid)

    def _find_pid(self) -> int | None:
        pid = self._entering.pid
        children = Path(f"/proc/{pid}/task/{pid}/children")
        try:
            found = children.read_text().split()
        except FileNotFoundError:
            found = []
        if found:
            return int(found[0])
        if self._entering.poll() is not None:
            raise LabError(f"{self.name} ended at once, exit code {self._entering.returncode}")
        return None

    def is_alive(self) -> bool:
        return not self._has_ended(seconds=0)

    def _has_ended(self, *, seconds: float) -> bool:
        """Asked of the process itself: nsenter stops when its child is stopped, and stays so."""
        ended = select.poll()
        ended.register(self._pidfd, select.POLLIN)
        return bool(ended.poll(seconds * 1000))

    def send(self, number: signal.Signals) -> None:
        """Send a signal; nothing happens when the process has ended."""
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(self._pidfd, number)

    def wait(self, *, seconds: float) -> int:
        """The exit code; LabError when the process is still there after so many seconds."""
        if not self._has_ended(seconds=seconds):
            raise LabError(f"{self.name} (process {self.pid}) still runs after {seconds:g} s")
        self._entering.send_signal(signal.SIGCONT)
        return self._entering.wait(timeout=10)

    def end(self, *, seconds: float) -> None:
        """SIGTERM, and SIGKILL when that did not help in time."""
        self.send(signal.SIGTERM)
        try:
            self.wait(seconds=seconds)
        except LabError:
            self.kill()

    def kill(self) -> None:
        self.send(signal.SIGKILL)
        self.wait(seconds=10)

    def __del__(self) -> None:
        os.close(self._pidfd)


class Enclosure:
    """Namespaces to start processes in. ``setup`` is shell, run as root inside, once, first.

    Without ``network`` it has one of its own, with nothing in it; with a ``hostname`` that, too.
    """

    def __init__(
        self, name: str, *, setup: str = "", network: bool = True, hostname: str | None = None
    ) -> None:
        self.name = name
        self._setup = setup if hostname is None else f"hostname {hostname}\n{setup}"
        self._own = [] if network else ["--net"]
        if hostname is not None:
            self._own.append("--uts")
        self._outer: subprocess.Popen[bytes] | None = None
        self.first_pid = 0

    def __enter__(self) -> Self:
        self.open()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def open(self) -> None:
        flags = ["--mount", "--pid", "--fork", "--kill-child=SIGKILL", "--mount-proc", *self._own]
        script = _FIRST_PROCESS.format(setup=self._setup)
        self._outer = subprocess.Popen(
            ["unshare", *flags, "--", "sh", "-c", script],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,  # Ctrl-C is for the test, which then closes us
        )
        assert self._outer.stdout is not None
        line = self._outer.stdout.readline()
        if line != b"ready\n":
            raise LabError(
                f"the namespaces of {self.name} could not be made (exit code {self._outer.wait()})"
            )
        outer = self._outer.pid
        self.first_pid = int(Path(f"/proc/{outer}/task/{outer}/children").read_text().split()[0])

    def start(
        self,
        argv: Sequence[str],
        *,
        output: IO[bytes] | int = subprocess.DEVNULL,
        env: Mapping[str, str] | None = None,
    ) -> Inside:
        """Start a program inside; its standard output and error go to ``output``."""
        entering = subprocess.Popen(
            [*self._nsenter(), *argv],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=env,
            start_new_session=True,
        )
        return Inside(entering, argv[0].rsplit("/", 1)[-1])

    def run(
        self, argv: Sequence[str], *, seconds: float = 30, env: Mapping[str, str] | None = None
    ) -> str:
        """Run a program inside to its end; what it printed. LabError when it fails."""
        command = [*self._nsenter(), *argv]
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=seconds, check=False, env=env
        )
        if done.returncode:
            raise LabError(f"{' '.join(argv)} failed inside {self.name}: {done.stderr.strip()}")
        return done.stdout

    def _nsenter(self) -> list[str]:
        assert self._outer is not None, "open the enclosure first"
        return ["nsenter", "--target", str(self.first_pid), "--mount", "--pid", *self._own, "--"]

    def close(self) -> None:
        """End everything inside, and wait until it is gone."""
        if self._outer is None:
            return
        assert self._outer.stdin is not None
        assert self._outer.stdout is not None
        self._outer.stdin.close()
        try:
            # unshare waits for the first process, which the kernel lets go last.
            self._outer.wait(timeout=20)
        except subprocess.TimeoutExpired:
            self._outer.kill()
            self._outer.wait()
        self._outer.stdout.close()
        self._outer = None
