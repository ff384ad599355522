"""Speaking to guest_init.sh over the guest's second serial port."""

import contextlib
import itertools
import re
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from tests.lab.patience import LabError

_WORD = re.compile(r"[!-~]+")


class GuestRefused(Exception):
    """The guest tried what it was told and says why it failed."""


class GuestSilent(LabError):
    """No answer in time: the guest is not booted, paused or gone."""


class SerialLine:
    """One command at a time, from any thread. Connects again when QEMU was started again."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._numbers = itertools.count(1)
        self._lock = threading.Lock()
        self._next = threading.Lock()
        """Held by who is next: who asks all the time would else take the line again each time."""
        self._socket: socket.socket | None = None
        self._received = b""
        self._begin_with = b""

    def ask(self, command: str, *arguments: str, seconds: float) -> list[str]:
        """The lines of the guest's answer.

        Raises GuestRefused when the guest answers with an error, GuestSilent when it does
        not answer at all within ``seconds``.
        """
        for word in (command, *arguments):
            assert _WORD.fullmatch(word), f"{word!r} is not one printable word"
        with self._turn():
            deadline = time.monotonic() + seconds
            number = str(next(self._numbers))
            try:
                return self._exchange(number, " ".join((command, *arguments)), deadline)
            except OSError as error:
                self._hang_up()
                raise GuestSilent(f"{command}: the guest's serial port: {error}") from error

    @contextlib.contextmanager
    def _turn(self) -> Iterator[None]:
        with self._next:
            self._lock.acquire()
        try:
            yield
        finally:
            self._lock.release()

    def close(self) -> None:
        with self._turn():
            self._hang_up()

    def move(self, path: Path) -> None:
        """The guest is reached there from now on. It may have heard half a line before it went."""
        with self._turn():
            self._hang_up()
            self._path = path
            self._begin_with = b"\n"

    def break_off(self, words: str) -> None:
        """Say half a line, as who is moved while he speaks."""
        with self._turn():
            (self._socket or self._connected()).sendall(words.encode())
            self._hang_up()
            self._begin_with = b"\n"

    def _hang_up(self) -> None:
        if self._socket is not None:
            self._socket.close()
        self._socket, self._received = None, b""

    def _exchange(self, number: str, line: str, deadline: float) -> list[str]:
        connection = self._socket = self._socket or self._connected()
        self._drop_old_words(connection)
        connection.settimeout(max(deadline - time.monotonic(), 0.01))
        connection.sendall(self._begin_with + f"{number} {line} .\n".encode())
        self._begin_with = b""
        answer = []
        while True:
            name, _, rest = self._next_line(connection, deadline).partition(" ")
            if name != number:
                continue  # the late answer to a question that nobody waits for any more
            kind, _, text = rest.partition(" ")
            if kind == "=":
                answer.append(text)
            elif kind == "ok":
                return answer
            elif kind == "error":
                raise GuestRefused(f"{line}: {text.strip()}")

    def _connected(self) -> socket.socket:
        connection = socket.socket(socket.AF_UNIX)
        try:
            connection.connect(str(self._path))
        except OSError:
            connection.close()
            raise
        return connection

    def _drop_old_words(self, connection: socket.socket) -> None:
        """Notice here, not half way through a command, that QEMU has ended since the last one."""
        connection.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            while True:
                if not connection.recv(4096):
                    raise ConnectionResetError("closed")

    def _next_line(self, connection: socket.socket, deadline: float) -> str:
        while b"\n" not in self._received:
            connection.settimeout(max(deadline - time.monotonic(), 0.01))
            data = connection.recv(4096)
            if not data:
                raise ConnectionResetError("closed")
            self._received += data
        line, _, self._received = self._received.partition(b"\n")
        return line.decode(errors="replace").rstrip("\r")
