"""attach: connect the volume to the host, prove that it is the one, plug it into the guest."""

from collections.abc import Iterator
from typing import Any

from agent.guest.domain_xml import Note
from agent.journal.book import Book
from agent.journal.record import Held, Record
from agent.model.attachment import Attachment
from agent.saga.plan import Learnt, Plan, Step
from agent.steps.disk import NoteInDomain, PlugDisk, PlugOtherHalf
from agent.steps.guest_checks import CheckGuest
from agent.steps.identity import VerifyIdentity
from agent.steps.secret import CheckSecrets, MakeSecrets, VerifyEncryption
from agent.steps.volume import ConnectVolume


def plan_attach(record: Record) -> Plan:
    attachment = record.attachment
    assert attachment is not None, "an attach always carries its attachment"
    note = Note(attachment.attachment_id, attachment.volume_id, attachment.generation)
    return Plan(
        reversible=tuple(prepare(attachment)),
        commit=PlugDisk(attachment),
        onward=(
            PlugOtherHalf(attachment),
            NoteInDomain(attachment.instance_id, attachment.alias, note),
        ),
        result=attached,
        on_done=keep_attachment,
    )


def prepare(attachment: Attachment) -> Iterator[Step]:
    """What must be so before the guest may have the disk."""
    yield CheckGuest(attachment)
    if attachment.secrets:
        yield CheckSecrets(attachment)
    yield ConnectVolume(attachment)
    yield VerifyIdentity(attachment)
    if attachment.encryption is not None and attachment.connection.source_type != "network":
        yield VerifyEncryption(attachment)
    if attachment.secrets:
        yield MakeSecrets(attachment)


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
