"""Whom an operation concerns that neither brings a volume to this host nor takes it away."""

from agent.errors import Busy, Invalid, Stale, UnknownAttachment
from agent.journal.book import Book
from agent.journal.record import Held, Part, Record
from agent.model.attachment import Attachment
from agent.model.connection import Connection
from agent.model.request import AttachmentRef, ExtendRequest


def users_of_volume(book: Book, request: ExtendRequest) -> tuple[Part, ...]:
    """Who has the volume here, or was accepted to get it, and is not to give it back.

    Raises UnknownAttachment, Busy, Invalid (it would become smaller), Stale."""
    volume_id = request.volume_id
    held = book.attachments(volume_id=volume_id)
    records = book.open_operations(volume_id=volume_id)
    users = {row.attachment.attachment_id: row.attachment for row in held if row.promised}
    for record in records:
        for part in record.parts:
            if part.volume_id != volume_id or part.attachment is None:
                continue
            if part.role == "joins" and record.direction != "undoing":
                users.setdefault(part.attachment_id, part.attachment)
            elif part.role == "leaves" and record.verb != "migrate":
                users.pop(part.attachment_id, None)
    if not users and records:
        raise Busy(
            f"volume {volume_id} is leaving this host by {records[-1].verb} "
            f"{records[-1].operation_id}; nothing was done"
        )
    if not users:
        raise UnknownAttachment(
            f"no attachment of volume {volume_id} is on this host: send it to the hosts where the "
            "volume is attached; where it is attached nowhere nothing is to be done"
        )
    _refuse_smaller(request, held, records)
    return tuple(_part(attachment, request.connection) for attachment in users.values())


def refuse_while_extended(book: Book, volume_id: str) -> None:
    """A guest that opens the volume now would see the old size, and not be told of the new."""
    for record in book.open_operations(volume_id=volume_id):
        if record.verb == "extend":
            raise Busy(
                f"extend {record.operation_id} of volume {volume_id} is {record.state}; nothing "
                "was done: send it again when that has ended"
            )


def all_of_instance(book: Book, instance_id: str) -> list[AttachmentRef]:
    """What is here of the instance, or was accepted to come, by its newest generation."""
    here = {
        held.attachment.attachment_id
        for held in book.attachments()
        if held.attachment.instance_id == instance_id
    }
    coming = {
        part.attachment_id
        for record in book.operations(open=True, instance_id=instance_id)
        for part in record.parts
        if part.instance_id == instance_id and part.role == "joins"
    }
    fences = {one: book.fence(one) for one in sorted(here | coming)}
    return [
        AttachmentRef(attachment_id=one, generation=None if fence is None else fence.newest)
        for one, fence in fences.items()
    ]


def _refuse_smaller(request: ExtendRequest, held: list[Held], records: list[Record]) -> None:
    wanted = request.size_bytes
    now = max((_known_size_bytes(row) for row in held), default=0)
    if wanted < now:
        raise Invalid(
            f"size_bytes {wanted} is less than the {now} that volume {request.volume_id} has here: "
            "a volume is never made smaller; nothing was touched"
        )
    for record in records:
        if record.verb == "extend" and wanted < record.known["size_bytes"]:
            raise Stale(
                f"extend {record.operation_id} makes volume {request.volume_id} "
                f"{record.known['size_bytes']} bytes large, which is more; nothing was touched"
            )


def _known_size_bytes(row: Held) -> int:
    """The request's word where there is one: arrays round up, and the same size may come again."""
    found = 0 if row.device is None else row.device.size_bytes
    return row.attachment.size_bytes or found


def _part(attachment: Attachment, connection: Connection | None) -> Part:
    if connection is None:
        return Part.of(attachment, "stays")
    known = attachment.connection.driver_volume_type
    if connection.driver_volume_type != known:
        raise Invalid(
            f"connection_info.driver_volume_type is {connection.driver_volume_type}, and the "
            f"volume is attached here by {known}; nothing was touched"
        )
    return Part.of(attachment.reached_by(connection), "stays")
