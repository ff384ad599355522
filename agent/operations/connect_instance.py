"""connect_instance: an instance's volumes on this host, before its domain is; all of them or none.

What boots from a volume, arrives by cold migration or is unshelved: the caller defines the domain
from the XML that it gets. The attachments count as users until they are disconnected or detached.
"""

from typing import Any

from agent.journal.book import Book
from agent.journal.record import Held, Part, Record
from agent.operations.attach import connect, device_result
from agent.saga.plan import Plan
from agent.steps.instance import CheckVolumes, HandOver


def plan_connect_instance(record: Record) -> Plan:
    assert record.instance_id is not None
    attachments = record.attachments
    return Plan(
        reversible=(
            CheckVolumes(record.instance_id, attachments),
            *connect(attachments),
        ),
        commit=HandOver(attachments),
        onward=(),
        result=lambda done: [_connected(done, part) for part in done.parts],
        on_done=keep_connected,
    )


def _connected(record: Record, part: Part) -> dict[str, Any]:
    return {
        "attachment_id": part.attachment_id,
        "device": device_result(part.known),
        **record.known["disks"][part.attachment_id],
    }


def keep_connected(book: Book, record: Record) -> None:
    """What is known of the disk in a domain that is there already stays known."""
    for part in record.parts:
        assert part.attachment is not None
        before = book.attachment(part.attachment_id)
        disk = record.known["disks"][part.attachment_id]["disk"]
        if before is not None and not before.awaits_domain:
            disk = before.disk
        book.keep(Held(part.attachment, record.operation_id, part.device, disk))
