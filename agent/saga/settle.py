"""The only path by which an operation moves: rollback, recovery and going on are this function.

``advance`` takes the steps of one lane, in one instance's turn, and returns the record as it is now
durably. The record says what follows: closed, parked (``wake_at``), or ready for the next call, in
another lane or another instance's turn.

What a step has learnt is written together with the intent of the step that follows: a crash
between the two finds the first one's intent, and the step adopts what is there already.

    forward ──apply…──▶ commit ──▶ committed ──apply…──▶ done
       │ error, cancel, deadline, third death
       ▼   (and the host says that the commit did not happen)
    undoing ──revert…──▶ undone | cancelled | expired

Rejected: rollback by nested ``except`` (leaks when the process dies), and undoing after a restart
(work that was nearly done is thrown away, and a running copy with it).
"""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from agent.errors import (
    AgentError,
    Busy,
    Cancelled,
    Deadline,
    Expired,
    Internal,
    TooLate,
    Unavailable,
)
from agent.journal.book import Book
from agent.journal.record import Record
from agent.journal.store import Journal
from agent.model.outcome import Problem
from agent.ports import Host
from agent.saga.end import closed_of
from agent.saga.news import notify, told_of
from agent.saga.plan import Learnt, Parked, Plan, Scene, Step
from agent.saga.transitions import (
    RETRY_SECONDS,
    deaths_beyond,
    delay_seconds,
    executing,
    outcome_of,
    parked_at,
    stepped,
    what_for,
    what_is_shared,
    while_waiting,
)

LOG = logging.getLogger(__name__)

DEATHS_BEFORE_UNDOING = 3
"""A step in which the agent died this often is taken to be the cause (docs/plans.rst)."""

LIBVIRT = "libvirt"
"""The part that ``Domains.answering`` is about, as Unavailable names it."""


@dataclass(frozen=True)
class Settler:
    """Moves records of one host along. ``on_step`` is told of each step that was applied or
    reverted: its name, done|reverted|parked|unavailable|failed, and seconds."""

    host: Host
    journal: Journal
    on_step: Callable[[str, str, float], None] = lambda name, outcome, seconds: None

    def advance(
        self, record: Record, plan: Plan, is_stopping: Callable[[], bool] = lambda: False
    ) -> Record:
        """As far as one lane and turn go, or one step where the agent stops.  Raises nothing of
        the world's: that becomes state."""
        place = plan.place(record)
        while True:
            record = self._one_step(record, plan)
            if not record.open or record.wake_at is not None:
                return record
            if plan.place(record) != place or is_stopping():
                return self._save(record)
            if record.direction == "forward":
                record = record.but(cancel_wanted=self._is_cancel_wanted(record))

    def _one_step(self, record: Record, plan: Plan) -> Record:
        """What it returns is durable if it is closed or parked."""
        if self._stands_back(record):
            return record
        resting = self._still_away(record)
        if record.direction == "undoing":
            return resting or self._revert_next(record, plan)
        if record.direction == "committed":
            return resting or self._onward(record, plan)
        cause = self._reason_to_turn(record, plan)
        if cause is not None and not (resting and record.cause):
            return self._turn(record, plan, cause)
        if resting is not None:
            return resting
        earlier = self._earlier(record)
        if earlier is not None:
            return self._park(record, None, earlier)
        return self._forward(record, plan)

    def close_unwanted(self, record: Record, plan: Plan) -> Record:
        """Needs no turn, for the host is asked nothing. What has begun after all, or may begin, is
        left as it is."""
        cause = self._reason_to_turn(record, plan) if record.intended < 0 else None
        return record if cause is None else self._turn(record, plan, cause)

    def is_to_turn(self, record: Record, plan: Plan) -> bool:
        """Will its next step not be taken, but those before it taken back?"""
        return self._reason_to_turn(record, plan) is not None

    def recover(self, record: Record, plan: Plan) -> Record:
        """After a restart: what was executing died once more, and steps look again."""
        if self._stands_back(record):
            return record
        deaths = record.deaths + 1 if record.executing else record.deaths
        found = record.but(executing=False, deaths=deaths, wake_at=None)
        begins_anew = record.direction == "forward" and not plan.irrevocable(record.intended)
        if deaths >= DEATHS_BEFORE_UNDOING:
            name = plan.steps[record.current].name
            killed = Internal(f"the agent was killed {deaths} times on its way through {name}")
            if begins_anew and record.cause is None:
                return self._turn(found, plan, Problem.of(killed))
            return self._retry(found, killed)
        return self._save(found.but(position=0) if begins_anew else found)

    def _stands_back(self, record: Record) -> bool:
        """Its pause is meant: it kills the agent, or meets a defect of it. Neither an event nor a
        restart is a reason to try that sooner; of any other trouble both are."""
        if record.wake_at is None or record.trouble is None or record.trouble.code != Internal.code:
            return False
        now = self.host.clock.now()
        return now < record.wake_at <= now + RETRY_SECONDS[-1]

    # forward

    def _is_cancel_wanted(self, record: Record) -> bool:
        """Somebody may have asked while the last step ran."""
        return self.journal.read(lambda book: book.is_cancel_wanted(record.operation_id))

    def _reason_to_turn(self, record: Record, plan: Plan) -> Problem | None:
        if record.cause is not None:
            return record.cause  # it has turned, as soon as the host tells about the commit
        if plan.irrevocable(record.intended):
            return None
        now = self.host.clock.now()
        if now > record.not_after and not plan.touched(record.intended):
            return Problem.of(Expired(f"not_after passed{while_waiting(record)}"))
        if record.cancel_wanted:
            return Problem.of(Cancelled("cancelled by request"))
        if record.deadline_at is not None and now > record.deadline_at:
            return Problem.of(Deadline(f"deadline_seconds passed{while_waiting(record)}"))
        return None

    def _earlier(self, record: Record) -> Parked | None:
        """What was accepted before it for an attachment of its own comes to its end first.

        On one instance one does not run beside the other; but the earlier may have parked, and
        given the instance's turn away, or be an operation on several instances."""
        if record.intended >= 0:
            return None
        other = self.journal.read(lambda book: book.earlier(record))
        if other is None:
            return None
        now = self.host.clock.now()
        ends = [record.not_after, record.deadline_at or record.not_after]
        return Parked(
            f"the end of {other.verb} {other.operation_id} of {what_is_shared(record, other)}",
            wake_at=max(now + 1.0, min(now + RETRY_SECONDS[-1], *ends)),
        )

    def _forward(self, record: Record, plan: Plan) -> Record:
        step = plan.steps[record.position]
        record, learnt = self._apply(record, step)
        if isinstance(learnt, Parked):
            return self._park(record, step, learnt)
        if isinstance(learnt, Unavailable):
            return self._wait(record, learnt)
        if isinstance(learnt, AgentError):
            if plan.irrevocable(record.intended):
                return self._insist(record, learnt)
            return self._turn(record, plan, Problem.of(learnt))
        if step is plan.commit:
            return self._committed(record, plan, learnt)
        return stepped(record, step, learnt).but(position=record.position + 1)

    def _turn(self, record: Record, plan: Plan, cause: Problem) -> Record:
        """Undo, unless the commit happened: an error means unknown, never not done."""
        if record.intended >= plan.commit_position:
            record = self._save(executing(record.but(cause=cause)))
            scene = self._scene(record, plan.commit)
            ending = self._ask(record, lambda: plan.commit.give_up(scene))
            if isinstance(ending, Parked):
                return self._park(record, plan.commit, ending)
            asked = ending
            if not isinstance(ending, Unavailable):
                asked = self._ask(record, lambda: plan.commit.happened(scene))
            if isinstance(asked, Unavailable):
                return self._wait(record, asked)
            if isinstance(asked, AgentError):
                return self._insist(record, asked)
            if asked:
                return self._committed(record.but(cause=None), plan, {})
        turned = record.but_parts(promised=False).but(
            direction="undoing",
            executing=False,
            known={**record.known, "undo_from": record.intended},
            cause=cause,
            away=None,
            waiting_for=None,
            wake_at=None,
            progress=None,
            deaths=0,
            failures=0,
        )
        return self._close(turned, plan) if record.intended < 0 else self._save(turned)

    def _committed(self, record: Record, plan: Plan, learnt: Learnt) -> Record:
        committed = stepped(record, plan.commit, learnt).but(
            direction="committed", position=plan.commit_position + 1
        )
        return committed if plan.onward else self._close(committed, plan)

    # onward

    def _onward(self, record: Record, plan: Plan) -> Record:
        step = plan.steps[record.position]
        record, learnt = self._apply(record, step)
        if isinstance(learnt, Parked):
            return self._park(record, step, learnt)
        if isinstance(learnt, Unavailable):
            return self._wait(record, learnt)
        if isinstance(learnt, AgentError):
            if not step.optional:
                return self._insist(record, learnt)
            problem = Problem.of(learnt)
            learnt = {"warnings": [f"{step.name}: {problem.detail}"], "failed": problem.reveal()}
        moved = stepped(record, step, learnt).but(position=record.position + 1)
        return self._close(moved, plan) if moved.position == len(plan.steps) else moved

    # undoing

    def _revert_next(self, record: Record, plan: Plan) -> Record:
        step = plan.steps[record.intended]
        if not step.only_looks:
            record = self._save(executing(record))
        scene = self._scene(record, step)
        reverted = self._timed(record, step, "reverted", lambda: step.revert(scene))
        if isinstance(reverted, Parked):
            return self._park(record, step, reverted)
        if isinstance(reverted, Unavailable):
            return self._wait(record, reverted)
        if isinstance(reverted, AgentError):
            return self._insist(record, reverted)
        left = stepped(record, step, {}).but(intended=record.intended - 1)
        return self._close(left, plan) if left.intended < 0 else left

    # one call into the world

    def _scene(self, record: Record, step: Step) -> Scene:
        known = {**record.known, **record.known_of(step.about)}
        others = {part.attachment_id: part.known for part in record.parts}
        return Scene(self.host, record.operation_id, known, others)

    def _apply(self, record: Record, step: Step) -> tuple[Record, Learnt | Parked | AgentError]:
        if record.intended < record.position:
            seen = self._ask(record, lambda: step.beforehand(self._scene(record, step)))
            if isinstance(seen, AgentError):
                return record, seen
            record = record.learn(step.about, seen)
        if step.promises:
            assert step.about is not None, "who promises is an attachment"
            record = record.but_part(step.about, promised=True)
        intended = executing(record).but(intended=max(record.intended, record.position))
        intended = self._save(intended, "start" if record.intended < 0 else None)
        scene = self._scene(intended, step)
        return intended, self._timed(intended, step, "done", lambda: step.apply(scene))

    def _timed(self, record: Record, step: Step, done: str, act: Any) -> Any:
        """As _ask, and tells how long it took; ``done`` is what it is called where it succeeds."""
        began = self.host.clock.monotonic()
        answer = self._ask(record, act)
        took_seconds = self.host.clock.monotonic() - began
        self.on_step(step.name, outcome_of(answer) or done, took_seconds)
        return answer

    def _ask(self, record: Record, question: Any) -> Any:
        """The answer, or the error as a value."""
        try:
            return question()
        except AgentError as error:
            return error
        except Exception as error:  # a defect of ours must not lose the operation
            near = record.steps[max(0, record.current)]
            LOG.exception(
                "%s %s: an unforeseen error near %s", record.verb, record.operation_id, near
            )
            return Internal(f"unforeseen {type(error).__name__} in a step: see the agent's log")

    # what becomes durable

    def _still_away(self, record: Record) -> Record | None:
        """It waits for libvirt, as is written, and libvirt is known to be away still.

        That is no try and tells nothing new: only the time of the next look changes."""
        if record.away != LIBVIRT or self.host.domains.answering():
            return None
        at_most = self.host.libvirt_retry_seconds
        wake_at = self.host.clock.now() + delay_seconds(record.failures, at_most)
        resting = record.but(failures=record.failures + 1, wake_at=wake_at)
        return self._save(resting) if record.wake_at is None else resting

    def _park(self, record: Record, step: Step | None, parked: Parked) -> Record:
        waiting = parked_at(record, step, parked)
        if record.wake_at is not None and waiting.but(wake_at=record.wake_at) == record:
            return waiting  # it has not been tried, and waits for the same
        return self._save(waiting, "waiting" if parked.progress is None else "progress")

    def _wait(self, record: Record, error: AgentError) -> Record:
        """The host cannot be asked, or is busy: unknown, so wait, whatever the direction."""
        unknown = isinstance(error, Unavailable)
        at_most = self.host.libvirt_retry_seconds if unknown else RETRY_SECONDS[-1]
        waiting = record.but(
            state="unsettled" if record.trouble else "waiting",
            executing=False,
            deaths=deaths_beyond(record),
            failures=record.failures + 1,
            away=error.part if isinstance(error, Unavailable) else None,
            waiting_for=what_for(error),
            wake_at=self.host.clock.now() + delay_seconds(record.failures, at_most),
        )
        return self._save(waiting, "waiting")

    def _insist(self, record: Record, error: AgentError) -> Record:
        """There is no way back: what must end first is waited for, everything else tried again."""
        return self._wait(record, error) if isinstance(error, Busy) else self._retry(record, error)

    def _retry(self, record: Record, error: AgentError) -> Record:
        """It must succeed in the end: unsettled, visible, tried again with back-off."""
        unsettled = record.but(
            state="unsettled",
            executing=False,
            deaths=0,
            failures=record.failures + 1,
            away=None,
            trouble=Problem.of(error),
            waiting_for=f"another try of {record.steps[record.current]}",
            wake_at=self.host.clock.now() + delay_seconds(record.failures),
        )
        return self._save(unsettled, "error")

    def _close(self, record: Record, plan: Plan) -> Record:
        closed = closed_of(record, plan).but(updated_at=self.host.clock.now())

        def write(book: Book) -> None:
            book.save(closed)
            if closed.state == "done":
                plan.on_done(book, closed)
            notify(book, self.host.name, closed, "end" if closed.state == "done" else "error")

        self.journal.write(write)
        return closed

    def _save(self, record: Record, event: str | None = None) -> Record:
        """``event`` is told unless it was the last one told of this operation."""
        record = record.but(updated_at=self.host.clock.now())
        news = None if event is None else told_of(record, event)
        is_new = news is not None and news != record.told
        if is_new and event == "error" and record.trouble is not None:
            about = f"{record.verb} {record.operation_id} of {', '.join(record.attachment_ids)}"
            LOG.warning("unsettled %s: %s: %s", about, record.trouble.code, record.trouble.detail)
        record = record.but(told=news) if is_new else record

        def write(book: Book) -> None:
            book.save(record)
            if event is not None and is_new:
                notify(book, self.host.name, record, event)

        self.journal.write(write)
        return record


def refuse_late_cancel(record: Record, plan: Plan) -> None:
    """Raises TooLate where the operation can only go on."""
    if record.direction == "committed" or plan.irrevocable(record.intended):
        raise TooLate(
            f"{record.verb} {plan.commit.reached} and cannot be taken back; it goes on, "
            "watch the operation"
        )
