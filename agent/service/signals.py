"""Signals, read by the main thread when it has time for them.

Rejected: handlers that set a threading.Event (it takes a lock, which the interrupted main thread
may hold), and sigwait (a blocked signal is inherited by os-brick's tools, which could then not be
ended by SIGTERM).
"""

import select
import signal
import socket


class Signals:
    """From its construction on these signals no longer end the process. One in a process."""

    def __init__(self, *numbers: signal.Signals) -> None:
        self._reader, self._writer = socket.socketpair()
        for end in (self._reader, self._writer):
            end.setblocking(False)
        signal.set_wakeup_fd(self._writer.fileno(), warn_on_full_buffer=False)
        for number in numbers:
            signal.signal(number, _leave_to_the_reader)

    def wait(self, seconds: float) -> frozenset[signal.Signals]:
        """Which came, at most ``seconds`` later; none at the timeout."""
        readable, _, _ = select.select([self._reader], [], [], seconds)
        came = self._reader.recv(4096) if readable else b""
        return frozenset(signal.Signals(number) for number in came)


def _leave_to_the_reader(_number: int, _frame: object) -> None:
    """Without a handler in Python nothing is written to the wake-up socket."""
