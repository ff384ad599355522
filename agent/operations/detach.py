"""detach: the guest lets go, its definition forgets the disk, the host lets go of the volume."""

from typing import Any

from agent.journal.book import Book
from agent.journal.record import Part, Record
from agent.model.mark import user_alias
from agent.saga.plan import Learnt, Plan, Step
from agent.steps.disk import ForgetDisk, NoteInDomain, UnplugDisk
from agent.steps.guest_checks import CheckDisk
from agent.steps.secret import DropSecrets
from agent.steps.volume import DisconnectVolume, LookForUsers


def plan_detach(record: Record) -> Plan:
    part = record.part
    alias = alias_of(part)
    guest_side = (part.attachment_id, part.instance_id, alias, part.attachment)
    return Plan(
        reversible=(CheckDisk(*guest_side),),
        commit=UnplugDisk(*guest_side),
        onward=(
            ForgetDisk(*guest_side),
            NoteInDomain(part.attachment_id, part.instance_id, alias, None),
            *host_side(part),
        ),
        result=lambda done: detached(done.part.known),
        on_done=drop_attachments,
    )


def alias_of(part: Part) -> str:
    """As it was plugged, unless it has ended and that is known to be another's by now."""
    own = user_alias(part.attachment_id) if part.attachment is None else part.attachment.alias
    return str(part.known.get("alias", own))


def host_side(
    part: Part, disconnect: type[DisconnectVolume] = DisconnectVolume
) -> tuple[Step, ...]:
    """``part.attachment`` is None where the attachment has ended before: then only who uses the
    volume is looked at again, as far as the journal still knows which it was."""
    if part.attachment is not None:
        secrets = (DropSecrets(part.attachment),) if part.attachment.secrets else ()
        return (disconnect(part.attachment), *secrets)
    if part.volume_id is not None:
        return (LookForUsers(part.attachment_id, part.volume_id, part.known.get("lane", "other")),)
    return ()


def detached(known: Learnt) -> dict[str, Any]:
    return {**off_host(known), "instance_present": known.get("instance_present", False)}


def off_host(known: Learnt) -> dict[str, Any]:
    """Is the volume off this host, and what does the storage side do next?"""
    return {name: known.get(name, False) for name in ("disconnected", "awaiting_unmap")}


def drop_attachments(book: Book, record: Record) -> None:
    for part in record.parts:
        book.drop(part.attachment_id)
