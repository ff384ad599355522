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
    attachment = record.part.attachment
    assert attachment is not None, "an attach always carries its attachment"
    return Plan(
        reversible=tuple(prepare(attachment)),
        commit=PlugDisk(attachment),
        onward=(PlugOtherHalf(attachment), note(attachment)),
        result=lambda done: attached(done.part.known),
        on_done=keep_attachments,
    )


def note(attachment: Attachment) -> NoteInDomain:
    return NoteInDomain(
        attachment.attachment_id,
        attachment.instance_id,
        attachment.alias,
        Note(attachment.attachment_id, attachment.volume_id, attachment.generation),
    )


def prepare(attachment: Attachment) -> Iterator[Step]:
    """What must be so before the guest may have the disk."""
    yield CheckGuest((attachment,))
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


def keep_attachments(book: Book, record: Record) -> None:
    for part in record.parts:
        assert part.attachment is not None
        disk = part.known.get("disk") or {}
        book.keep(Held(part.attachment, record.operation_id, part.device, disk))
