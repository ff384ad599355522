"""attach: connect the volume to the host, prove that it is the one, plug it into the guest."""

from typing import Any

from agent.guest.domain_xml import Note
from agent.journal.book import Book
from agent.journal.record import Held, Record
from agent.saga.plan import Learnt, Plan
from agent.steps.disk import NoteInDomain, PlugDisk, PlugOtherHalf
from agent.steps.guest_checks import CheckGuest
from agent.steps.identity import VerifyIdentity
from agent.steps.volume import ConnectVolume


def plan_attach(record: Record) -> Plan:
    attachment = record.attachment
    assert attachment is not None, "an attach always carries its attachment"
    note = Note(attachment.attachment_id, attachment.volume_id, attachment.generation)
    return Plan(
        reversible=(
            CheckGuest(attachment),
            ConnectVolume(attachment),
            VerifyIdentity(attachment),
        ),
        commit=PlugDisk(attachment),
        onward=(
            PlugOtherHalf(attachment),
            NoteInDomain(attachment.instance_id, attachment.alias, note),
        ),
        result=attached,
        on_done=keep_attachment,
    )


def attached(known: Learnt) -> dict[str, Any]:
    device = known["device"]
    return {
        "device": {name: device[name] for name in ("path", "identity", "size_bytes")},
        "disk": known.get("disk"),
    }


def keep_attachment(book: Book, record: Record) -> None:
    assert record.attachment is not None
    book.keep(
        Held(record.attachment, record.operation_id, record.device, record.known.get("disk") or {})
    )
