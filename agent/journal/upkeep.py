"""What the journal needs from time to time.

In a thread that nobody waits for: a disk that is slow, or another process that has locked the file,
must never hold up the one that tells the service manager that the agent lives.
"""

import logging

from agent.errors import AgentError
from agent.journal.store import Journal
from agent.ports import Clock

LOG = logging.getLogger(__name__)

UPKEEP_SECONDS = 5.0
"""Between two looks whether the log holds something that has ended."""

PRUNE_EVERY_SECONDS = 3600.0

SET_SECONDS = 60.0
"""By so much the clock on the wall may differ in an hour from the one that nobody sets."""


class Upkeep:
    """Drops what closed longer than ``retention_seconds`` ago, and empties the log.

    Nothing is dropped in the first hour, nor in one in which somebody has set the clock: a host
    that boots with a wrong one would forget what it must still know."""

    def __init__(self, journal: Journal, clock: Clock, retention_seconds: float) -> None:
        self._journal = journal
        self._clock = clock
        self._retention_seconds = retention_seconds
        self._wait_an_hour()

    def turn(self) -> None:
        """As it is due."""
        self._prune()
        self._journal.scrub()

    def _wait_an_hour(self) -> None:
        self._prune_at = self._clock.monotonic() + PRUNE_EVERY_SECONDS
        self._ahead = self._ahead_seconds()

    def _ahead_seconds(self) -> float:
        return self._clock.now() - self._clock.monotonic()

    def _prune(self) -> None:
        if self._clock.monotonic() < self._prune_at:
            return
        was_set = abs(self._ahead_seconds() - self._ahead) > SET_SECONDS
        self._wait_an_hour()
        if was_set:
            LOG.warning("somebody has set the clock: old operations are dropped an hour later")
            return
        now = self._clock.now()
        oldest = now - self._retention_seconds
        try:
            gone = self._journal.write(lambda book: book.prune(oldest, now))
        except AgentError as error:
            LOG.error("old operations stay in the journal: %s", error.detail)
            return
        if gone:
            LOG.info("dropped %s operations that closed before the retention time", gone)
