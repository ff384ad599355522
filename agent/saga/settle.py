"""The only path by which an operation moves: rollback, recovery and going on are this function.

``advance`` takes one step and returns the record as it is now durably. The record says what
follows: closed, parked (``wake_at``), or ready for the next call.

    forward ──apply…──▶ commit ──▶ committed ──apply…──▶ done
       │ error, cancel, deadline, third death
       ▼   (and the host says that the commit did not happen)
    undoing ──revert…──▶ undone | cancelled | expired

Rejected: rollback by nested ``except`` (leaks when the process dies), and undoing after a restart
(work that was nearly done is thrown away, and a running copy with it).
"""

import logging
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from agent.errors import AgentError, Cancelled, Deadline, Expired, Internal, TooLate, Unavailable
from agent.journal.book import Book
from agent.journal.record import Record
from agent.journal.store import Journal
from agent.model.outcome import Problem, State
from agent.model.request import rfc3339
from agent.ports import Host
from agent.saga.plan import Learnt, Parked, Plan, Scene, Step

LOG = logging.getLogger(__name__)

DEATHS_BEFORE_UNDOING = 3
"""A step in which the agent died this often is taken to be the cause (design §5)."""

RETRY_SECONDS = (1.0, 2.0, 5.0, 10.0, 30.0, 60.0)
"""Back-off of steps that must succeed in the end; the last one for ever."""


@dataclass(frozen=True)
class Settler:
    """Moves records of one host along."""

    host: Host
    journal: Journal

    def advance(self, record: Record, plan: Plan) -> Record:
        """One step further.  Raises nothing of the world's: that becomes state."""
        if record.direction == "undoing":
            return self._revert_next(record, plan)
        if record.direction == "committed":
            return self._onward(record, plan)
        reason = self._reason_to_turn(record, plan)
        if reason is not None:
            return self._turn(record, plan, reason)
        return self._forward(record, plan)

    def recover(self, record: Record, plan: Plan) -> Record:
        """After a restart: what was executing died once more, and steps look again."""
        deaths = record.deaths + 1 if record.executing else record.deaths
        position = 0 if record.direction == "forward" else record.position
        found = record.but(executing=False, deaths=deaths, position=position)
        if deaths >= DEATHS_BEFORE_UNDOING and record.direction == "forward":
            name = plan.steps[record.position].name
            return self._turn(
                found.but(position=record.position),
                plan,
                Internal(f"the agent was killed {deaths} times while executing {name}"),
            )
        return self._save(found.but(wake_at=None)) if found != record else record

    # forward

    def _reason_to_turn(self, record: Record, plan: Plan) -> AgentError | None:
        now = self.host.clock.now()
        if plan.commit.under_way(record.known):
            return None
        if record.intended < 0 and now > record.not_after:
            return Expired("not_after passed while the request waited its turn; nothing was done")
        if record.cancel_wanted:
            return Cancelled("cancelled by request")
        if record.deadline_at is not None and now > record.deadline_at:
            waited = f" while waiting for {record.waiting_for}" if record.waiting_for else ""
            return Deadline(f"deadline_seconds passed{waited}; what was done is undone")
        return None

    def _forward(self, record: Record, plan: Plan) -> Record:
        step = plan.steps[record.position]
        outcome = self._apply(record, step)
        record, learnt = outcome
        if isinstance(learnt, Unavailable):
            return self._park_unknown(record, learnt)
        if isinstance(learnt, AgentError):
            if step is plan.commit and plan.commit.under_way(record.known):
                return self._retry(record, learnt)
            return self._turn(record, plan, learnt)
        if isinstance(learnt, Parked):
            return self._park(record, learnt)
        if step is plan.commit:
            return self._committed(record, plan, learnt)
        return self._moved(record, learnt)

    def _turn(self, record: Record, plan: Plan, cause: AgentError) -> Record:
        """Undo, unless the commit happened: an error means unknown, never not done."""
        if record.intended >= plan.commit_position:
            asked = self._ask(lambda: plan.commit.happened(self._scene(record)))
            if isinstance(asked, AgentError):
                return self._park_unknown(record, asked)
            if asked:
                return self._committed(record, plan, {})
        undo_from = min(record.intended, plan.commit_position - 1)
        turned = record.but(
            direction="undoing",
            executing=False,
            intended=undo_from,
            known={**record.known, "undo_from": undo_from},
            cause=Problem.of(cause),
            waiting_for=None,
            wake_at=None,
            failures=0,
        )
        if undo_from < 0:
            return self._close(turned, plan)
        return self._save(turned)

    def _committed(self, record: Record, plan: Plan, learnt: Learnt) -> Record:
        committed = _stepped(record, learnt).but(
            direction="committed", position=plan.commit_position + 1
        )
        return self._close(committed, plan) if not plan.onward else self._save(committed)

    # onward

    def _onward(self, record: Record, plan: Plan) -> Record:
        step = plan.steps[record.position]
        record, learnt = self._apply(record, step)
        if isinstance(learnt, Parked):
            return self._park(record, learnt)
        if isinstance(learnt, Unavailable):
            return self._park_unknown(record, learnt)
        if isinstance(learnt, AgentError):
            if not step.optional:
                return self._retry(record, learnt)
            record = record.but(warnings=(*record.warnings, f"{step.name}: {learnt.detail}"))
            learnt = {}
        moved = _stepped(record, learnt).but(position=record.position + 1)
        return self._close(moved, plan) if moved.position == len(plan.steps) else self._save(moved)

    # undoing

    def _revert_next(self, record: Record, plan: Plan) -> Record:
        if record.intended < 0:
            return self._close(record, plan)
        step = plan.steps[record.intended]
        reverted = self._ask(lambda: step.revert(self._scene(record)))
        if isinstance(reverted, Unavailable):
            return self._park_unknown(record, reverted)
        if isinstance(reverted, AgentError):
            return self._retry(record, reverted)
        left = _stepped(record, {}).but(intended=record.intended - 1)
        return self._close(left, plan) if left.intended < 0 else self._save(left)

    # one call into the world

    def _scene(self, record: Record) -> Scene:
        return Scene(self.host, record.operation_id, record.known)

    def _apply(self, record: Record, step: Step) -> tuple[Record, Learnt | Parked | AgentError]:
        intended = record.but(
            state="running",
            executing=True,
            intended=max(record.intended, record.position),
            waiting_for=None,
            wake_at=None,
        )
        intended = self._save(intended, "start" if record.state == "accepted" else None)
        return intended, self._ask(lambda: step.apply(self._scene(intended)))

    def _ask(self, question: Any) -> Any:
        """The answer, or the error as a value."""
        try:
            return question()
        except AgentError as error:
            return error
        except Exception as error:  # a defect of ours must not lose the operation
            LOG.exception("a step failed in an unforeseen way")
            return Internal(f"unforeseen {type(error).__name__} in a step: see the agent's log")

    # what becomes durable

    def _moved(self, record: Record, learnt: Learnt) -> Record:
        return self._save(_stepped(record, learnt).but(position=record.position + 1))

    def _park(self, record: Record, parked: Parked) -> Record:
        told = record.known.get("waiting_told", False)
        waiting = record.but(
            state="waiting",
            executing=False,
            deaths=0,
            known={**record.known, **parked.learnt, "waiting_told": True},
            waiting_for=parked.waiting_for,
            wake_at=parked.wake_at,
        )
        return self._save(waiting, None if told else "waiting")

    def _park_unknown(self, record: Record, error: AgentError) -> Record:
        """The host cannot be asked: unknown, so wait, whatever the direction."""
        part = getattr(error, "part", "the host")
        delay = _delay(record.failures, self.host.libvirt_retry_seconds)
        waiting = record.but(
            state="waiting",
            executing=False,
            deaths=0,
            failures=record.failures + 1,
            waiting_for=f"{part} ({error.detail})",
            wake_at=self.host.clock.now() + delay,
        )
        return self._save(waiting, "waiting" if record.failures == 0 else None)

    def _retry(self, record: Record, error: AgentError) -> Record:
        """It must succeed in the end: unsettled, visible, tried again with back-off."""
        unsettled = record.but(
            state="unsettled",
            executing=False,
            deaths=0,
            failures=record.failures + 1,
            trouble=Problem.of(error),
            waiting_for=f"another try of {record.steps[record.current]}",
            wake_at=self.host.clock.now() + _delay(record.failures),
        )
        return self._save(unsettled, "error" if record.state != "unsettled" else None)

    def _close(self, record: Record, plan: Plan) -> Record:
        closed = record.but(
            state=_final_state(record),
            executing=False,
            waiting_for=None,
            wake_at=None,
            trouble=None,
            result=None if record.direction == "undoing" else plan.result(record.known),
            warnings=(*record.warnings, *record.known.get("warnings", ())),
            updated_at=self.host.clock.now(),
        )

        def write(book: Book) -> None:
            book.save(closed)
            if closed.state == "done":
                plan.on_done(book, closed)
            notify(book, self.host.name, closed, "end" if closed.state == "done" else "error")

        self.journal.write(write)
        return closed

    def _save(self, record: Record, event: str | None = None) -> Record:
        record = record.but(updated_at=self.host.clock.now())

        def write(book: Book) -> None:
            book.save(record)
            if event is not None:
                notify(book, self.host.name, record, event)

        self.journal.write(write)
        return record


def next_step(record: Record, plan: Plan) -> Step:
    """What the next ``advance`` will touch."""
    return plan.steps[max(0, record.current)]


def refuse_late_cancel(record: Record, plan: Plan) -> None:
    """Raises TooLate where the operation can only go on."""
    if record.direction == "committed" or plan.commit.under_way(record.known):
        raise TooLate(
            f"{record.verb} has reached the guest and cannot be taken back; it goes on, "
            "watch the operation"
        )


def notify(book: Book, host: str, record: Record, event: str) -> None:
    """The notification of a change, in the change's own transaction (docs/wire)."""
    at = rfc3339(datetime.fromtimestamp(record.updated_at, UTC))
    book.post(
        f"attachment.{record.verb}.{event}",
        {
            "version": "1.0",
            "event_id": f"{record.operation_id}:{event}:{at}",
            "host": host,
            **record.answer().wire(),
            "attachment_ids": [record.attachment_id],
            "instance_id": record.instance_id,
            "volume_ids": [] if record.volume_id is None else [record.volume_id],
            "at": at,
        },
    )


def _stepped(record: Record, learnt: Learnt) -> Record:
    return record.but(
        state="running",
        executing=False,
        deaths=0,
        failures=0,
        known={**record.known, **learnt},
        waiting_for=None,
        wake_at=None,
        trouble=None,
    )


def _delay(failures: int, at_most: float = RETRY_SECONDS[-1]) -> float:
    return min(RETRY_SECONDS[min(failures, len(RETRY_SECONDS) - 1)], at_most)


def _final_state(record: Record) -> State:
    if record.direction != "undoing":
        return "done"
    assert record.cause is not None, "what is undone has a cause"
    by_cause: dict[str, State] = {"cancelled": "cancelled", "expired": "expired"}
    return by_cause.get(record.cause.code, "undone")
