"""The agent as it is shipped, on a journal that kills the process at a chosen write.

    <state_path>/die-at     "3 before": SIGKILL at the third write from now on, before its commit;
                            "3 after": once it is durable. Taken away when it is read.
    <state_path>/died       It was reached.

Writes of operations count. What is written beside them (letters that are posted, records that are
pruned, paths that are watched) comes at any time and does not.
"""

# isort: off
from agent.service.main import STOP, Daemon  # first: it prepares os-brick

# isort: on
import os
import signal
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from oslo_config import cfg

from agent.journal.book import Book
from agent.journal.store import Journal
from agent.service.begin import SystemClock, configure
from agent.service.signals import Signals

Result = TypeVar("Result")

ORDER = "die-at"
DEATH = "died"

BESIDE = (
    *("publisher", "journal upkeep", "watch", "unneeded", "lost volumes", "lost secrets"),
    "MainThread",
)
"""Threads whose writes come at any time."""


def order(state_path: Path, number: int, when: str) -> None:
    (state_path / DEATH).unlink(missing_ok=True)
    (state_path / ORDER).write_text(f"{number} {when}")


def has_died(state_path: Path) -> bool:
    """By the last order; where there were not so many writes it is called off."""
    if (state_path / DEATH).exists():
        return True
    call_off(state_path)
    return False


def call_off(state_path: Path) -> None:
    order(state_path, 0, "never")


class DyingJournal(Journal):
    def __init__(self, directory: Path, clock: SystemClock) -> None:
        self._order = directory / ORDER
        self._death = directory / DEATH
        self._left = 0
        self._when = ""
        self._counting = threading.Lock()
        super().__init__(directory, clock)

    def write(self, change: Callable[[Book], Result]) -> Result:
        is_last = self._counts() and self._is_last()
        if is_last:
            self._death.touch()
        if is_last and self._when == "before":
            os.kill(os.getpid(), signal.SIGKILL)
        result = super().write(change)
        if is_last:
            os.kill(os.getpid(), signal.SIGKILL)
        return result

    def _counts(self) -> bool:
        return threading.current_thread().name not in BESIDE

    def _is_last(self) -> bool:
        with self._counting:
            if self._order.exists():
                number, self._when = self._order.read_text().split()
                self._left = int(number)
                self._order.unlink()
            self._left -= 1
            return self._left == 0


def main() -> None:
    settings = configure(cfg.CONF, sys.argv[1:])
    clock = SystemClock()
    signals = Signals(*STOP)
    daemon = Daemon(cfg.CONF, settings, DyingJournal(settings.state_path, clock), clock)
    daemon.start()
    daemon.run(signals)
    daemon.stop()
    os._exit(0)


if __name__ == "__main__":
    main()
