"""While the agent runs: volumes that attachments count on and that are not here come back.

What the command at boot (service/reconnect.py) could not bring back, and what somebody has taken
away since. Only what no running guest has: a guest that lost its disk holds on to a device that is
no more, and a new one would not give it back; that is for people (``attachctl audit``).
"""

import logging
import threading
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import get_args

from agent.errors import AgentError, Internal, WrongDevice
from agent.journal.store import Journal
from agent.model.connection import Lane
from agent.ports import Host
from agent.service.lanes import whole_pool
from agent.steps.reconnect import Lost, counted_on, lost_of, reconnect_unless_used

LOG = logging.getLogger(__name__)

LOST_SECONDS = 60.0
"""Between two looks whether all volumes are here: some files of sysfs a volume."""

TRY_AGAIN_SECONDS = (60.0, 120.0, 300.0, 600.0)
"""Back-off of a volume that does not come back; the last one for ever. A LUN that does not show
keeps os-brick's lock of the whole host for minutes at each attempt."""


def lost_pools() -> dict[Lane, Executor]:
    """A thread a lane: what hangs there keeps only its like from coming back."""
    return {lane: whole_pool(1, f"reconnect-{lane}") for lane in get_args(Lane)}


@dataclass
class _Try:
    """Of one volume that is not here."""

    due_at: float
    failures: int = 0
    is_running: bool = False
    is_told: bool = False
    """That it is left alone."""


class LostVolumes:
    def __init__(self, host: Host, journal: Journal, pools: Mapping[Lane, Executor]) -> None:
        self._host = host
        self._journal = journal
        self._pools = pools
        self._mutex = threading.Lock()
        self._tries: dict[str, _Try] = {}

    def count(self) -> int:
        """How many volumes were not here when it looked last."""
        with self._mutex:
            return len(self._tries)

    def next_try(self) -> float | None:
        """When a volume is tried again, by the clock that only passes; None: all are here, or being
        tried."""
        with self._mutex:
            return min((a.due_at for a in self._tries.values() if not a.is_running), default=None)

    def look(self) -> None:
        """What is lost now, and a try of what is due.  Raises Unavailable (the journal)."""
        lost = lost_of(self._host.connectors, self._journal.read(counted_on))
        now = self._host.clock.monotonic()
        with self._mutex:
            known = self._tries
            self._tries = {
                each.volume_id: known.get(each.volume_id, _Try(due_at=now)) for each in lost
            }
            due = self._in_turn([each for each in lost if self._is_due(each.volume_id, now)])
            for each in due:
                self._tries[each.volume_id].is_running = True
        for each in due:
            self._pools[each.attachment.connection.lane].submit(self._try, each)

    def _in_turn(self, due: Sequence[Lost]) -> list[Lost]:
        """One of each target, then the second of each: a sick one keeps a lane's threads for long,
        and those that were seen to be sick come last."""
        ranks: dict[str, tuple[int, int]] = {}
        before: Counter[tuple[str, ...]] = Counter()
        for each in due:
            targets = each.attachment.connection.targets
            ranks[each.volume_id] = self._tries[each.volume_id].failures, before[targets]
            before[targets] += 1
        return sorted(due, key=lambda each: ranks[each.volume_id])

    def _is_due(self, volume_id: str, now: float) -> bool:
        attempt = self._tries[volume_id]
        return not attempt.is_running and attempt.due_at <= now

    # in a lane's thread

    def _try(self, lost: Lost) -> None:
        try:
            device = reconnect_unless_used(self._host, lost)
        except AgentError as error:
            self._failed(lost, error)
            return
        except Exception as error:  # a defect of ours must not keep the volume away for ever
            LOG.exception("volume %s: an unforeseen error", lost.volume_id)
            self._failed(lost, Internal(f"unforeseen {type(error).__name__}"))
            return
        with self._mutex:
            if device is None:
                self._leave_alone(lost)
            else:
                self._tries.pop(lost.volume_id, None)
        if device is not None:
            LOG.warning("volume %s (%s) is back as %s", lost.volume_id, lost.who, device.path)

    def _leave_alone(self, lost: Lost) -> None:
        attempt = self._tries.get(lost.volume_id)
        if attempt is not None and not attempt.is_told:
            LOG.warning(
                "volume %s (%s) is not here, and is left alone: a guest runs, or is paused, with "
                "what it was, or an operation sees to it; 'attachctl audit' says more",
                lost.volume_id,
                lost.who,
            )
        self._put_off(lost.volume_id, TRY_AGAIN_SECONDS[0], is_told=True)

    def _failed(self, lost: Lost, error: AgentError) -> None:
        with self._mutex:
            attempt = self._tries.get(lost.volume_id)
            failures = 0 if attempt is None else attempt.failures
            pause_seconds = TRY_AGAIN_SECONDS[min(failures, len(TRY_AGAIN_SECONDS) - 1)]
            self._put_off(lost.volume_id, pause_seconds, failures + 1)
        level = logging.ERROR if isinstance(error, WrongDevice) else logging.WARNING
        if not failures or level == logging.ERROR:
            LOG.log(
                level,
                "volume %s (%s) is not back: %s: %s",
                lost.volume_id,
                lost.who,
                error.code,
                error.detail,
            )

    def _put_off(
        self, volume_id: str, seconds: float, failures: int = 0, *, is_told: bool = False
    ) -> None:
        """Unless a look found meanwhile that it is here, or wanted by nobody."""
        if volume_id in self._tries:
            due_at = self._host.clock.monotonic() + seconds
            is_told = is_told or self._tries[volume_id].is_told
            self._tries[volume_id] = _Try(due_at, failures, is_told=is_told)
