"""What the journal needs from time to time, in a thread of its own.

Nobody waits for it: a disk that is slow, or another process that has locked the file, holds up
this thread and never the one that tells the service manager that the agent lives.
"""

import logging
import threading

from agent.errors import AgentError
from agent.journal.store import Journal
from agent.ports import Clock

LOG = logging.getLogger(__name__)

TURN_SECONDS = 5.0
"""Between two looks whether the log holds something that has ended."""

PRUNE_EVERY_SECONDS = 3600.0


class Upkeep:
    """Drops what closed longer than ``retention_seconds`` ago, and empties the log."""

    def __init__(self, journal: Journal, clock: Clock, retention_seconds: float) -> None:
        self._journal = journal
        self._clock = clock
        self._retention_seconds = retention_seconds
        self._pruned_at = 0.0
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="journal-upkeep", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """No further turn begins; one that the disk holds up is not waited for."""
        self._stopping.set()

    def turning(self) -> bool:
        """Our thread lives, whatever the disk does. For the watchdog."""
        return self._thread.is_alive()

    def turn(self) -> None:
        """As it is due."""
        self._prune()
        self._journal.scrub()

    def _run(self) -> None:
        while not self._stopping.is_set():
            self.turn()
            self._stopping.wait(TURN_SECONDS)

    def _prune(self) -> None:
        now = self._clock.now()
        if now - self._pruned_at < PRUNE_EVERY_SECONDS:
            return
        self._pruned_at = now
        try:
            gone = self._journal.write(lambda book: book.prune(now - self._retention_seconds))
        except AgentError as error:
            LOG.error("old operations stay in the journal: %s", error.detail)
            return
        if gone:
            LOG.info("dropped %s operations that closed before the retention time", gone)
