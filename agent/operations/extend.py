"""extend: this host shows a volume's new size, then every guest that has the volume is told.

The storage side has made it larger before; of a file QEMU does it. What a guest cannot take is
told of its attachment, and holds up no other: the same size, sent again, completes it.
"""

from dataclasses import replace
from typing import Any

from agent.journal.book import Book
from agent.journal.record import Part, Record
from agent.saga.plan import Plan
from agent.steps.grow import ExtendVolume, GrowDisk


def plan_extend(record: Record) -> Plan:
    size_bytes = record.known["size_bytes"]
    attachments = record.attachments
    return Plan(
        reversible=(),
        commit=ExtendVolume(attachments, size_bytes),
        onward=tuple(GrowDisk(attachment, size_bytes) for attachment in attachments),
        result=lambda done: [_extended(done, part) for part in done.parts],
        on_done=keep_size,
    )


def _extended(record: Record, part: Part) -> dict[str, Any]:
    return {
        "attachment_id": part.attachment_id,
        "instance_id": part.instance_id,
        "device_size_bytes": _device_size_bytes(record),
        "guest_size_bytes": part.known.get("guest_size_bytes"),
        "error": part.known.get("failed"),
    }


def _device_size_bytes(record: Record) -> int:
    """As the host showed it, or as QEMU has made it since."""
    shown: int = record.known["device"]["size_bytes"]
    header_bytes: int = record.known["header_bytes"]
    told: list[int] = [part.known.get("guest_size_bytes") or 0 for part in record.parts]
    return max([shown, *(size_bytes + header_bytes for size_bytes in told if size_bytes)])


def keep_size(book: Book, record: Record) -> None:
    """What the volume must have from now on, by whatever attachment it is connected anew."""
    found, wanted = _device_size_bytes(record), record.known["size_bytes"]
    for held in book.attachments(volume_id=record.volume_ids[0]):
        attachment, device = held.attachment, held.device
        if found >= wanted:
            attachment = attachment.model_copy(update={"size_bytes": wanted})
        if device is not None:
            device = device.model_copy(update={"size_bytes": found})
        book.keep(replace(held, attachment=attachment, device=device))
