"""Who may do what while an instance moves between hosts. Pure over the journal's rows."""

from typing import Any

from agent.errors import Busy, Invalid, UnknownAttachment
from agent.journal.book import Book
from agent.journal.migration_fence import refuse_arrived, refuse_cancelled
from agent.journal.record import Part, Record
from agent.model.contract import Command
from agent.model.migration_request import (
    CancelMigrationRequest,
    MigrateRequest,
    PrepareMigrationRequest,
)
from agent.model.request import ExtendRequest
from agent.operations import plan_of
from agent.saga.settle import refuse_late_cancel

MOVES = ("prepare_migration", "migrate")
"""The verbs that are a side's part in a migration."""


def refuse_beside_moves(book: Book, request: Command, parts: tuple[Part, ...]) -> None:
    """Raises Busy or Stale. libvirt would hold up whoever touches a domain that moves, and then
    lose it; and an instance does not begin to move while anything else is open on it."""
    if isinstance(request, PrepareMigrationRequest):
        refuse_cancelled(book, request.migration_id)
        _refuse_while_anything_is_open(book, request.instance_id)
        refuse_while_moving(book, request.instance_id, besides=request.migration_id)
        return
    if isinstance(request, MigrateRequest):
        refuse_cancelled(book, request.migration_id)
        _refuse_while_anything_is_open(book, request.instance_id)
    own = () if request.instance_id is None else (request.instance_id,)
    for instance_id in dict.fromkeys((*own, *(part.instance_id for part in parts))):
        _refuse_open_moves(book, instance_id)
        if not isinstance(request, ExtendRequest):  # its device is here; its guest is told there
            _refuse_lease(book, instance_id)


def calls_off(book: Book, request: Command) -> dict[str, Any]:
    """What a cancel begins with.  Raises TooLate where an operation can only go on."""
    if not isinstance(request, CancelMigrationRequest):
        return {}
    refuse_arrived(book, request.migration_id)
    open_here = open_of_migration(book, request.migration_id)
    for record in open_here:
        refuse_late_cancel(record, plan_of(record))
    return {"calls_off": [record.operation_id for record in open_here]}


def moving_attachments(book: Book, request: MigrateRequest) -> tuple[Part, ...]:
    """All that the instance has here: each goes along.  Raises Invalid, UnknownAttachment."""
    here = {
        held.attachment.attachment_id: held.attachment
        for held in book.attachments()
        if held.attachment.instance_id == request.instance_id
    }
    unknown, left_out = set(request.parts) - set(here), set(here) - set(request.parts)
    if unknown:
        raise UnknownAttachment(
            f"parts: the instance has no attachment {', '.join(sorted(unknown))} here; nothing was "
            "touched"
        )
    if left_out:
        raise Invalid(
            f"parts: attachment {', '.join(sorted(left_out))} of the instance is left out: prepare "
            "it at the destination as well, or detach it; nothing was touched"
        )
    return tuple(Part.of(one, "leaves").but(generation=None) for one in here.values())


def refuse_while_moving(book: Book, instance_id: str, *, besides: str | None = None) -> None:
    """Raises Busy: an operation of a migration is open on the instance, or it is still to come.

    ``besides``: a migration that is no hindrance."""
    _refuse_open_moves(book, instance_id)
    _refuse_lease(book, instance_id, besides=besides)


def _refuse_open_moves(book: Book, instance_id: str) -> None:
    for record in book.open_on(instance_id):
        if record.verb in (*MOVES, "cancel_migration"):
            raise Busy(
                f"{record.verb} {record.operation_id} of instance {instance_id} is "
                f"{record.state}; nothing was done: send it again when that has ended"
            )


def _refuse_lease(book: Book, instance_id: str, *, besides: str | None = None) -> None:
    for held in book.leased():
        lease = held.lease
        assert lease is not None
        if held.attachment.instance_id == instance_id and lease.migration_id != besides:
            raise Busy(
                f"instance {instance_id} is to come to this host by migration "
                f"{lease.migration_id}; nothing was done: send it again when it has come, or "
                "cancel that migration"
            )


def _refuse_while_anything_is_open(book: Book, instance_id: str) -> None:
    for record in book.open_on(instance_id):
        raise Busy(
            f"{record.verb} {record.operation_id} of instance {instance_id} is {record.state}; "
            "nothing was done: an instance moves when nothing else is open on it"
        )


def open_of_migration(book: Book, migration_id: str) -> list[Record]:
    return [
        record
        for record in book.open_operations()
        if record.verb in MOVES and record.known["migration_id"] == migration_id
    ]


def parts_of_migration(book: Book, migration_id: str) -> tuple[Part, ...]:
    """What this side has of it, or was accepted to get: to be given back."""
    open_here = open_of_migration(book, migration_id)
    coming = [
        part.attachment for record in open_here for part in record.parts if part.role == "joins"
    ]
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
