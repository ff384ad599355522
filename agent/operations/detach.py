"""detach: the guest lets go, its definition forgets the disk, the host lets go of the volume."""

from typing import Any

from agent.journal.book import Book
from agent.journal.record import Record
from agent.saga.plan import Learnt, Plan, Step
from agent.steps.disk import ForgetDisk, NoteInDomain, UnplugDisk
from agent.steps.guest_checks import CheckDisk
from agent.steps.secret import DropSecrets
from agent.steps.volume import DisconnectVolume, LookForUsers


def plan_detach(record: Record) -> Plan:
    """``record.attachment`` is None where the attachment has ended before: then the guest is
    looked at again, and who uses the volume, as far as the journal still knows which it was."""
    alias = f"ua-{record.attachment_id}"
    guest_side = (record.instance_id, alias, record.attachment)
    host_side: tuple[Step, ...] = ()
    if record.attachment is not None:
        host_side = (DisconnectVolume(record.attachment),)
        if record.attachment.secrets:
            host_side = (*host_side, DropSecrets(record.attachment))
    elif record.volume_id is not None:
        host_side = (LookForUsers(record.volume_id),)
    return Plan(
        reversible=(CheckDisk(*guest_side),),
        commit=UnplugDisk(*guest_side),
        onward=(
            ForgetDisk(*guest_side),
            NoteInDomain(record.instance_id, alias, None),
            *host_side,
        ),
        result=detached,
        on_done=drop_attachment,
    )


def detached(known: Learnt) -> dict[str, Any]:
    return {
        "disconnected": known.get("disconnected", False),
        "awaiting_unmap": known.get("awaiting_unmap", False),
        "instance_present": known.get("instance_present", False),
    }


def drop_attachment(book: Book, record: Record) -> None:
    book.drop(record.attachment_id)
