"""cancel_migration: this side takes part in a migration no more, and keeps nothing of it.

What is open of it is cancelled first, and its end waited for. A migration that was never heard of
is cancelled as well: what comes of it later is stale.
"""

from dataclasses import replace

from agent.journal.book import Book
from agent.journal.record import Record
from agent.operations.detach import host_side, off_host
from agent.saga.plan import Plan
from agent.steps.lease import CheckGone, EndLeases, GiveBack


def plan_cancel_migration(record: Record) -> Plan:
    attachments = record.attachments
    return Plan(
        reversible=(CheckGone(attachments, record.calls_off),),
        commit=EndLeases(attachments),
        onward=tuple(step for part in record.parts for step in host_side(part, GiveBack)),
        result=lambda done: {
            "migration_id": done.known["migration_id"],
            "cancelled": list(done.calls_off),
            "attachments": [
                {"attachment_id": part.attachment_id, **off_host(part.known)} for part in done.parts
            ],
        },
        on_done=_drop_unless_come,
    )


def _drop_unless_come(book: Book, record: Record) -> None:
    for part in record.parts:
        held = book.attachment(part.attachment_id)
        has_come = part.known.get("has_come") or (held is not None and held.lease is None)
        if held is not None and has_come and not part.known.get("disconnected"):
            book.keep(replace(held, promised=True))
        else:
            book.drop(part.attachment_id)
