"""attach: connect the volume to the host, prove that it is the one, plug it into the guest."""

from collections.abc import Iterator, Sequence
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
        reversible=tuple(prepare((attachment,))),
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


def prepare(attachments: Sequence[Attachment]) -> Iterator[Step]:
    """What must be so before the guest may have the disks, in the order of their plugs."""
    yield CheckGuest(tuple(attachments))
    yield from connect(attachments)


def connect(attachments: Sequence[Attachment]) -> Iterator[Step]:
    """Every volume is here, proven, and QEMU may open it: nothing of a guest is touched before."""
    with_secrets = [attachment for attachment in attachments if attachment.secrets]
    for attachment in attachments:
        if attachment.secrets or attachment.connection.kept_secret:
            yield CheckSecrets(attachment)
    yield from map(ConnectVolume, attachments)
    yield from map(VerifyIdentity, attachments)
    for attachment in attachments:
        if attachment.encryption is not None and attachment.connection.source_type != "network":
            yield VerifyEncryption(attachment)
    yield from map(MakeSecrets, with_secrets)


def attached(known: Learnt) -> dict[str, Any]:
    return {"device": device_result(known), "disk": known.get("disk")}


def device_result(known: Learnt) -> dict[str, Any]:
    return {name: known["device"][name] for name in ("path", "identity", "size_bytes")}


def keep_attachments(book: Book, record: Record) -> None:
    for part in record.parts:
        assert part.attachment is not None
        disk = part.known.get("disk") or {}
        book.keep(Held(part.attachment, record.operation_id, part.device, disk))
