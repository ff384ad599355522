"""The agent's desk: a request comes in, is judged, written down and answered; then it is run.

Nothing here raises at the bus: every outcome is a value of the wire (docs/wire.rst).
"""

import logging
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import Executor
from contextlib import ExitStack
from typing import Any

from agent.admission.admit import Admission, Policy
from agent.errors import AgentError, Busy, Cancelled, Invalid, WrongHost
from agent.journal.book import Book
from agent.journal.migration_fence import cancelled
from agent.journal.record import Held, Part, Record
from agent.journal.store import Journal
from agent.model.contract import Command, noun_of
from agent.model.device import Device
from agent.model.migration_request import CancelMigrationRequest
from agent.model.outcome import Problem, refused
from agent.model.request import OperationRef, WaitRequest, digest
from agent.operations import plan_of
from agent.ports import Host
from agent.saga.news import notify
from agent.saga.plan import Lane, Plan
from agent.saga.settle import Settler, refuse_late_cancel
from agent.saga.transitions import as_planned
from agent.service.queries import Queries, known_operation
from agent.service.reach import refuse_unreachable
from agent.service.workers import Workers

LOG = logging.getLogger(__name__)

TURNSTILES = 64
"""Requests of one instance are accepted one after the other; others share the journal's commit."""


class Agent:
    """One hypervisor's agent, whatever host, bus and threads it is given. Implements ports.Desk.

    ``on_change`` is called after every change of an operation, ``on_step`` after every step
    (saga.settle), from any thread: they must not block.
    ``warnings`` says what is amiss around it, for ``describe``.
    """

    def __init__(
        self,
        host: Host,
        journal: Journal,
        policy: Policy,
        pools: Mapping[Lane, Executor],
        on_change: Callable[[Record], None] = lambda _: None,
        warnings: Callable[[], list[str]] = list,
        on_step: Callable[[str, str, float], None] = lambda name, outcome, seconds: None,
    ) -> None:
        self._host = host
        self._journal = journal
        self._policy = policy
        self._tell_change = on_change
        self._changed = threading.Condition()
        self._stopping = False
        self._turnstiles = [threading.Lock() for _ in range(TURNSTILES)]
        settler = Settler(host, journal, on_step)
        self.workers = Workers(settler, journal, host.clock, self._on_change, pools)
        self._queries = Queries(host, journal, policy, warnings)

    def quiesce(self) -> None:
        """Begin no further step, and let nobody wait: a stop has no time for either. Commands are
        still accepted, for the next start."""
        self.workers.quiesce()
        with self._changed:
            self._stopping = True
            self._changed.notify_all()

    # ports.Desk

    def command(
        self, verb: str, arguments: Mapping[str, object], *, addressed: bool
    ) -> dict[str, Any]:
        payload = arguments.get("request")
        operation_id = payload.get("request_id") if isinstance(payload, dict) else None
        try:
            if set(arguments) != {"request"} or not isinstance(payload, dict):
                raise Invalid(f"{verb} takes one argument, request: an object (docs/wire)")
            self._refuse_other_host(payload.get("host"), addressed=addressed)
            return self._accept(verb, payload).answer().wire()
        except AgentError as error:
            LOG.info("refused %s %s: %s: %s", verb, operation_id, error.code, error.detail)
            known = operation_id if isinstance(operation_id, str) else None
            return refused(verb, known, error).wire()

    def query(self, name: str, arguments: Mapping[str, object]) -> dict[str, Any]:
        try:
            if name == "cancel_operation":
                return self._cancel(OperationRef.parse(arguments).operation_id)
            if name == "abandon_operation":
                return self._abandon(OperationRef.parse(arguments).operation_id)
            return self._queries.answer(name, arguments)
        except AgentError as error:
            return {"error": Problem.of(error).model_dump()}

    def wait(self, arguments: Mapping[str, object]) -> dict[str, Any]:
        try:
            asked = WaitRequest.parse(arguments)
            with self._changed:
                self._changed.wait_for(
                    lambda: self._stopping or not self.workers.has(asked.operation_id),
                    asked.timeout_seconds,
                )
            return self._record(asked.operation_id).answer().wire()
        except AgentError as error:
            return {"error": Problem.of(error).model_dump()}

    # commands

    def _refuse_other_host(self, wanted: object, *, addressed: bool) -> None:
        here = self._host.name
        if wanted is not None and not isinstance(wanted, str):
            raise Invalid("host: must be the name of a host; nothing was done")
        if wanted == here or (addressed and wanted is None):
            return
        if wanted is None:
            raise WrongHost(
                f"the message came to {here} without an address: send it to server {here}, or "
                "name the host in the request; nothing was done"
            )
        raise WrongHost(f"the request is for host {wanted[:64]}, this is {here}; nothing was done")

    def _accept(self, verb: str, payload: dict[str, Any]) -> Record:
        """Durably accepted, or the operation that this request is already."""
        noun = noun_of(verb)
        known = self._replayed(verb, payload)
        if known is not None:
            return known
        request = noun.parse(payload)
        refuse_unreachable(self._host, self._journal, request)
        with self._turnstiles[hash(request.instance_id) % TURNSTILES]:
            record, is_new = self._journal.write(
                lambda book: self._admit(book, verb, request, payload)
            )
            if is_new:
                about = ", ".join(record.attachment_ids)
                LOG.info("accepted %s %s of %s", verb, record.operation_id, about)
                self.workers.accept(record)
        for other in record.calls_off if is_new else ():
            self.workers.cancel(other)
        return record

    def _replayed(self, verb: str, payload: dict[str, Any]) -> Record | None:
        """Before the payload is parsed: a newer agent may refuse what an older one accepted."""
        request_id = payload.get("request_id")
        if not isinstance(request_id, str):
            return None
        return self._journal.read(
            lambda book: self._judge(book).replay(request_id, verb, digest(payload))
        )

    def _judge(self, book: Book) -> Admission:
        return Admission(book, self._policy, self._host.clock.now())

    def _admit(
        self,
        book: Book,
        verb: str,
        request: Command,
        payload: dict[str, Any],
    ) -> tuple[Record, bool]:
        """Runs inside the journal's transaction."""
        judge = self._judge(book)
        known = judge.replay(request.request_id, verb, digest(payload))
        if known is not None:
            return known, False
        record = book.add(judge.draft(verb, request, digest(payload)))
        book.keep_host(self._host.name)
        for part in record.parts:
            book.raise_fence(
                part.attachment_id,
                newest=part.generation,
                detached=part.generation if part.role == "leaves" else None,
                now=judge.now,
                volume_id=part.volume_id,
                source=_source(part, book.attachment(part.attachment_id)),
            )
        for other in record.calls_off:
            book.cancel(other)
        if isinstance(request, CancelMigrationRequest):
            cancelled(book, request.migration_id, judge.now)
        return record, True

    # what changes an operation from outside

    def _cancel(self, operation_id: str) -> dict[str, Any]:
        def wish(book: Book) -> Record:
            record = known_operation(book, operation_id)
            if record.open:
                plan = plan_of(record)
                refuse_late_cancel(as_planned(record, plan), plan)
                book.cancel(operation_id)
            return record

        record = self._journal.write(wish)
        self.workers.cancel(operation_id)
        return record.answer().wire()

    def _abandon(self, operation_id: str) -> dict[str, Any]:
        record = self._record(operation_id)
        if not record.open:
            return record.answer().wire()
        taken = self.workers.take_out(operation_id)
        if taken is None:
            raise Busy(
                f"a step of operation {operation_id} runs just now, in a call of the storage or "
                "of libvirt, or waits for that of another one on the same target ('attachctl "
                "locks'): only between two of them can it be abandoned; nothing was changed: ask "
                "again when that has been given up"
            )
        with ExitStack() as unless_closed:
            unless_closed.callback(self.workers.accept, taken)
            abandoned = self._journal.write(lambda book: self._close_abandoned(book, taken))
            unless_closed.pop_all()
        LOG.warning("abandoned %s %s by operator", abandoned.verb, operation_id)
        for instance_id in abandoned.instance_ids:
            self.workers.stir(instance_id)  # what waited for its end
        self._on_change(abandoned)
        return abandoned.answer().wire()

    def _close_abandoned(self, book: Book, taken: Record) -> Record:
        plan = plan_of(taken)
        abandoned = _abandoned(taken, plan).but(updated_at=self._host.clock.now())
        held = [book.attachment(attachment_id) for attachment_id in abandoned.attachment_ids]
        book.save(abandoned)
        if abandoned.state == "done":
            plan.on_done(book, abandoned)
        for part, was in zip(taken.parts, held, strict=True):
            device = part.device or (None if was is None else was.device)
            _keep_leftover(book, abandoned, plan, part, device)
        notify(book, self._host.name, abandoned, "error")
        return abandoned

    def _record(self, operation_id: str) -> Record:
        return self._journal.read(lambda book: known_operation(book, operation_id))

    def _on_change(self, record: Record) -> None:
        if not record.open:  # all that anybody waits for
            _log_end(record)
            with self._changed:
                self._changed.notify_all()
        self._tell_change(record)


def _log_end(record: Record) -> None:
    about = ", ".join(record.attachment_ids)
    ended = f"{record.state} {record.verb} {record.operation_id} of {about}"
    if record.cause is None:
        LOG.info("%s", ended)
    else:
        LOG.warning("%s: %s: %s", ended, record.cause.code, record.cause.detail)


def _source(part: Part, held: Held | None) -> str | None:
    """Where the volume is on this host, for who asks about it when the attachment has ended."""
    if held is not None and held.device is not None:
        return held.device.path
    return None if part.attachment is None else part.attachment.connection.known_source


def _abandoned(record: Record, plan: Plan) -> Record:
    """Closed where it stands. What is left on the host is quarantined, not forgotten."""
    where = f"abandoned by the operator at step {record.steps[max(0, record.current)]}"
    is_done = record.direction == "committed"
    why = record.trouble or record.cause or Problem.of(Cancelled(where))
    return record.but_parts(promised=False).but(
        state="done" if is_done else "undone",
        waiting_for=None,
        wake_at=None,
        trouble=None,
        cause=why,
        result=plan.result(record) if is_done else None,
        warnings=(*record.warnings, where),
    )


def _keep_leftover(
    book: Book, record: Record, plan: Plan, part: Part, device: Device | None
) -> None:
    """A device that nobody counts on any more may neither be used nor touched again."""
    is_touched = plan.touched(max(record.intended, record.known.get("undo_from", -1)))
    is_counted = any(
        promise.volume_id == part.volume_id
        for promise in book.promises(besides=record.operation_id)
    )
    if part.attachment is None or part.role == "stays" or is_counted or not is_touched:
        return
    if not book.presence(part.attachment.volume_id).connected:
        return  # it has left, proven
    if device is None:
        source = part.attachment.connection.known_source
        device = Device(path=source or "unknown", identity={}, size_bytes=0)
    reason = f"left behind by {record.verb} {record.operation_id}, {record.warnings[-1]}"
    book.quarantine(part.attachment.volume_id, device, reason, record.updated_at)
