"""Who may do what while an instance moves between hosts. Pure over the journal's rows.

A migration has a fence, as an attachment has: once it is cancelled here, what was sent before and
comes late does nothing.
"""

from agent.errors import Busy, Stale
from agent.journal.book import Book
from agent.journal.record import Part, Record

MOVES = ("prepare_migration",)
"""The verbs that are a side's part in a migration."""


def refuse_while_moving(book: Book, instance_id: str, *, besides: str | None = None) -> None:
    """Raises Busy: an operation of a migration is open on the instance, or it is still to come.

    ``besides``: a migration that is no hindrance."""
    for record in book.open_on(instance_id):
        if record.verb in (*MOVES, "cancel_migration"):
            raise Busy(
                f"{record.verb} {record.operation_id} of instance {instance_id} is "
                f"{record.state}; nothing was done: send it again when that has ended"
            )
    for held in book.leased():
        lease = held.lease
        assert lease is not None
        if held.attachment.instance_id == instance_id and lease.migration_id != besides:
            raise Busy(
                f"instance {instance_id} is to come to this host by migration "
                f"{lease.migration_id}; nothing was done: send it again when it has come, or "
                "cancel that migration"
            )


def refuse_while_anything_is_open(book: Book, instance_id: str) -> None:
    for record in book.open_on(instance_id):
        raise Busy(
            f"{record.verb} {record.operation_id} of instance {instance_id} is {record.state}; "
            "nothing was done: an instance moves when nothing else is open on it"
        )


def fence_migration(book: Book, migration_id: str, now: float) -> None:
    book.raise_fence(_fence(migration_id), newest=0, detached=0, now=now)


def refuse_cancelled(book: Book, migration_id: str) -> None:
    fence = book.fence(_fence(migration_id))
    if fence is not None:
        raise Stale(
            f"migration {migration_id} was cancelled on this host; nothing was done: begin "
            "another one"
        )


def _fence(migration_id: str) -> str:
    """No attachment's id: those have no colon."""
    return f"migration:{migration_id}"


def open_of_migration(book: Book, migration_id: str) -> list[Record]:
    return [
        record
        for record in book.open_operations()
        if record.verb in MOVES and record.known["migration_id"] == migration_id
    ]


def parts_of_migration(book: Book, migration_id: str) -> tuple[Part, ...]:
    """What this side has of it, or was accepted to get: to be given back."""
    open_here = open_of_migration(book, migration_id)
    coming = [part.attachment for record in open_here for part in record.parts]
    leased = [
        held.attachment
        for held in book.leased()
        if held.lease is not None and held.lease.migration_id == migration_id
    ]
    parts = {
        one.attachment_id: Part.of(one, "leaves").but(generation=None)
        for one in (*leased, *coming)
        if one is not None
    }
    return tuple(parts.values())
