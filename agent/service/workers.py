"""What the schedule says may run, task by task: guests' steps have a pool of threads, those that
ask the agents of other hosts one, each storage lane one (lanes).

A task is the steps of one lane that follow each other. Before a step of another lane an operation
goes to that lane's pool, so no thread is held over a wait, and a sick array or a dead host stops
only its lane.
"""

import logging
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import Executor
from contextlib import suppress

from agent.errors import Unavailable
from agent.journal.book import Book
from agent.journal.record import Record
from agent.journal.store import Journal
from agent.operations import plan_of
from agent.ports import Clock
from agent.saga.plan import Lane, Plan
from agent.saga.schedule import Schedule
from agent.saga.settle import Settler
from agent.saga.transitions import as_planned, is_unwanted
from agent.service.lanes import Lanes

LOG = logging.getLogger(__name__)

JOURNAL_RETRY_SECONDS = 5.0
"""After a write to the journal failed (disk full): the record is as it was, try again."""

TICK_SECONDS = 5.0

HANGS_SECONDS = 1.0
"""A disk that is silent for longer is not written to at the end: that would be waited for."""


_task = threading.local()


def on_whose_behalf() -> str:
    """For people: the operation that the calling thread works on, else the thread's name."""
    return getattr(_task, "operation", threading.current_thread().name)


def _excuse(book: Book) -> None:
    for record in book.open_operations():
        if record.executing:
            book.save(record.but(executing=False))


class Workers:
    """Runs accepted operations until they are closed or parked.

    ``on_change`` is told after every task, from the worker's thread.
    """

    def __init__(
        self,
        settler: Settler,
        journal: Journal,
        clock: Clock,
        on_change: Callable[[Record], None],
        pools: Mapping[Lane, Executor],
    ) -> None:
        self._settler = settler
        self._journal = journal
        self._clock = clock
        self._on_change = on_change
        self._schedule = Schedule()
        self._changed = threading.Condition()
        self._records: dict[str, Record] = {}
        self._unrecovered: set[str] = set()
        self._unread: set[str] = set()
        self._unwanted: set[str] = set()
        self._running = 0
        self._stopping = False
        self._ticked_at = clock.monotonic()
        self._pools = pools
        self._lanes = Lanes(pools)
        self._alarm = threading.Thread(target=self._ring, name="alarm", daemon=True)

    def start(self) -> None:
        """Recover what is open: every operation looks at the host anew, in its turn."""
        with self._changed:
            for found in self._journal.read(lambda book: book.open_operations()):
                record = as_planned(found, plan_of(found))
                self._records[record.operation_id] = record
                self._unrecovered.add(record.operation_id)
                self._queue(record)
            self._dispatch()

    def start_alarm(self) -> None:
        """Wake what is due, from a thread of its own."""
        self._alarm.start()

    def accept(self, record: Record) -> None:
        """Run it in its instance's turn; it is in the journal already."""
        with self._changed:
            self._records[record.operation_id] = record
            self._unread.add(record.operation_id)  # cancelled meanwhile: only the journal knows
            self._queue(record)
            self._dispatch()
            is_queued = self._schedule.is_queued(record.operation_id)
        if is_queued and self._is_cancelled(record.operation_id):
            self.cancel(record.operation_id)

    def cancel(self, operation_id: str) -> None:
        """The wish is in the journal; the operation sees it before its next task, and one that has
        not begun does not wait for its turn."""
        with self._changed:
            record = self._records.get(operation_id)
            if record is None:
                return
            self._records[operation_id] = record.but(cancel_wanted=True)
            self._schedule.wake(operation_id)
            self._dispatch()
            self._spare_unwanted()

    def _is_cancelled(self, operation_id: str) -> bool:
        """Since it was written down; of a journal that cannot be read it is heard in its turn."""
        with suppress(Unavailable):
            return self._journal.read(lambda book: book.is_cancel_wanted(operation_id))
        return False

    def has(self, operation_id: str) -> bool:
        """It runs, is parked or waits its turn here."""
        with self._changed:
            return operation_id in self._records

    def take_out(self, operation_id: str) -> Record | None:
        """Run it no more, if it is parked or waits for its turn; None: it is running."""
        with self._changed:
            record = self._records.get(operation_id)
            if record is None or self._schedule.is_running(operation_id):
                return None
            is_parked = self._schedule.is_parked(operation_id)
            record = self._records[operation_id] = self._reread(record)
            if record.state == "running" and not is_parked:  # between two turns, or not recovered
                return None
            self._forget(record)
            self._dispatch()
            return record

    def stir(self, instance_id: str) -> None:
        """Something happened to the instance."""
        with self._changed:
            self._schedule.stir(instance_id)
            self._dispatch()

    def stir_all(self) -> None:
        """Events may have been missed: everything parked looks again."""
        with self._changed:
            self._schedule.stir_all()
            self._dispatch()

    def ring(self) -> None:
        """Wake what is due now."""
        with self._changed:
            self._ring_once()

    def next_alarm(self) -> float | None:
        with self._changed:
            return self._schedule.next_alarm()

    def ticked_at(self) -> float:
        """When the alarm thread last turned, by the clock that only passes."""
        return self._ticked_at

    def quiesce(self) -> None:
        """Start no further step. What is accepted from now on is for the agent's next start."""
        with self._changed:
            self._stopping = True
            self._changed.notify_all()

    def stop(self, timeout_seconds: float) -> bool:
        """Start no further step, let running ones end.  False: some did not in time; that they
        die with the process then is ordered, and no death of theirs."""
        self.quiesce()
        with self._changed:
            ended = self._changed.wait_for(lambda: self._running == 0, timeout_seconds)
        if not ended and self._journal.silent_seconds() < HANGS_SECONDS:
            with suppress(Unavailable):
                self._journal.write(_excuse)
        return ended

    # under the lock

    def _queue(self, record: Record) -> None:
        self._schedule.accept(record.operation_id, plan_of(record).turn(record))

    def _dispatch(self) -> None:
        if self._stopping:
            return
        for operation_id in self._schedule.take():
            self._submit(self._records[operation_id])
        self._changed.notify_all()

    def _spare_unwanted(self) -> None:
        """From the wait for their turn: who has it may be in a storage call for minutes."""
        now = self._clock.now()
        for operation_id in self._schedule.queued():
            if is_unwanted(self._records[operation_id], now):
                self._unwanted.add(operation_id)
                self._schedule.step_aside(operation_id)
        self._dispatch()
        for record, plan in self._lanes.take_back(self._turns):
            # Turning needs no target, and whose thread it waits for may be silent.
            latest = self._records[record.operation_id]
            self._pools["guest"].submit(self._take_step, latest, plan, True)

    def _turns(self, record: Record, plan: Plan) -> bool:
        latest = self._records[record.operation_id]
        return latest.direction == "forward" and self._settler.is_to_turn(latest, plan)

    def _submit(self, record: Record) -> None:
        plan = plan_of(record)
        self._running += 1
        self._lanes.submit(plan.next_step(record), self._take_step, record, plan)

    def _ahead_seconds(self) -> float:
        """Of the clock on the wall the one that only passes: alarms go by it, so that nobody sleeps
        until a time comes again."""
        return self._clock.monotonic() - self._clock.now()

    def _forget(self, record: Record) -> None:
        """It is closed: what waits for the end of it looks again."""
        del self._records[record.operation_id]
        self._schedule.close(record.operation_id)
        about = set(record.attachment_ids)
        for other in self._records.values():
            is_called_off = record.operation_id in other.calls_off
            if is_called_off or not about.isdisjoint(other.attachment_ids):
                self._schedule.wake(other.operation_id)

    # in a lane's thread

    def _take_step(self, record: Record, plan: Plan, is_elsewhere: bool = False) -> None:
        """``is_elsewhere``: not in the lane of its next step, so it takes that one and no other."""
        if not self._may_begin():
            return
        _task.operation = f"{record.verb} {record.operation_id}"
        ahead_seconds = self._ahead_seconds()
        moved = self._step_or_wait(record, plan, is_elsewhere)
        ahead_seconds = min(ahead_seconds, self._ahead_seconds())  # set back during the step
        with self._changed:
            self._running -= 1
            self._keep(moved)
            if not moved.open:
                self._forget(moved)
            elif moved.wake_at is not None:
                self._schedule.park(moved.operation_id, moved.wake_at + ahead_seconds)
            elif self._schedule.move(moved.operation_id, plan.turn(moved)) and (not self._stopping):
                self._submit(self._records[moved.operation_id])
            self._dispatch()
            self._changed.notify_all()
        self._on_change(moved)

    def _may_begin(self) -> bool:
        """False: the agent stops, and the task is given back untouched. Begun now it would be
        killed in the middle of a storage call, and that counts (three deaths)."""
        with self._changed:
            if self._stopping:
                self._running -= 1
                self._changed.notify_all()
            return not self._stopping

    def _keep(self, moved: Record) -> None:
        """A cancel may have come while the step ran."""
        wanted = self._records[moved.operation_id].cancel_wanted or moved.cancel_wanted
        self._records[moved.operation_id] = moved.but(cancel_wanted=wanted)

    def _step_or_wait(self, record: Record, plan: Plan, is_elsewhere: bool) -> Record:
        try:
            return self._step(self._reread(record), plan, is_elsewhere)
        except Exception:  # the thread's top: the journal itself failed, or a defect of ours
            LOG.exception("operation %s could not be moved", record.operation_id)
            self._unread.add(record.operation_id)
            return record.but(wake_at=self._clock.now() + JOURNAL_RETRY_SECONDS)

    def _step(self, record: Record, plan: Plan, is_elsewhere: bool) -> Record:
        if record.operation_id in self._unwanted:
            left = self._settler.close_unwanted(record, plan)
            self._unwanted.discard(record.operation_id)
            return left.but(wake_at=None)  # what is still open queues for its turn anew
        if record.operation_id not in self._unrecovered:
            return self._settler.advance(record, plan, lambda: self._stopping or is_elsewhere)
        moved = self._settler.recover(record, plan)
        self._unrecovered.discard(record.operation_id)
        return moved

    def _reread(self, record: Record) -> Record:
        """As it is in the journal, where that may be more than we were told.

        What was asked never changes, and a passphrase is in memory alone."""
        if record.operation_id not in self._unread:
            return record
        written = self._journal.read(lambda book: book.operation(record.operation_id))
        assert written is not None, "an open operation is in the journal"
        self._unread.discard(record.operation_id)
        return written.with_attachments_of(record)

    # the alarm's thread

    def _ring(self) -> None:
        with self._changed:
            while not self._stopping:
                self._changed.wait(self._ring_once())

    def _ring_once(self) -> float:
        """Wake what is due; seconds until it is worth looking again."""
        now = self._ticked_at = self._clock.monotonic()
        self._schedule.ring(now)
        self._dispatch()
        self._spare_unwanted()
        alarm = self._schedule.next_alarm()
        return TICK_SECONDS if alarm is None else min(TICK_SECONDS, max(0.0, alarm - now))
