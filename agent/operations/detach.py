"""detach: the guest lets go, its definition forgets the disk, the host lets go of the volume."""

from typing import Any

from agent.journal.book import Book
from agent.journal.record import Record
from agent.saga.plan import Learnt, Plan, Step
from agent.steps.disk import ForgetDisk, NoteInDomain, UnplugDisk
from agent.steps.guest_checks import CheckDisk
from agent.steps.volume import DisconnectVolume


def plan_detach(record: Record) -> Plan:
    """``record.attachment`` is None where an earlier detach has ended the attachment already:
    then only the guest is looked at."""
    alias = f"ua-{record.attachment_id}"
    guest_side = (record.instance_id, alias, record.attachment)
    disconnect: tuple[Step, ...] = (
        () if record.attachment is None else (DisconnectVolume(record.attachment),)
    )
    return Plan(
        reversible=(CheckDisk(*guest_side),),
        commit=UnplugDisk(*guest_side),
        onward=(
            ForgetDisk(*guest_side),
            NoteInDomain(record.instance_id, alias, None),
            *disconnect,
        ),
        result=detached if record.attachment is not None else looked_at,
        on_done=drop_attachment,
    )


def detached(known: Learnt) -> dict[str, Any]:
    return {
        "disconnected": known.get("disconnected", False),
        "awaiting_unmap": known.get("awaiting_unmap", False),
        "instance_present": known.get("instance_present", False),
    }


def looked_at(known: Learnt) -> dict[str, Any]:
    """The volume was disconnected, or left to its other users, by the detach before."""
    return detached({"disconnected": True, **known})


def drop_attachment(book: Book, record: Record) -> None:
    book.drop(record.attachment_id)
