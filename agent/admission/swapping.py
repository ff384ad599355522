"""What of a swap is refused by the books, and what the books keep of others while it goes."""

from typing import Any

from agent.errors import Busy, Invalid, SharingConflict, UnknownAttachment, Unsupported
from agent.journal.book import Book
from agent.journal.record import Held, Part
from agent.model.attachment import Attachment
from agent.model.disk import Disk
from agent.model.swap import SwapRequest


def attachment_in_place(book: Book, request: SwapRequest) -> Held:
    """What is to be swapped.  Raises UnknownAttachment, Busy: another operation is open on it."""
    refuse_while_open(book, request.attachment_id)
    held = book.attachment(request.attachment_id)
    if held is None or held.lease is not None:
        raise UnknownAttachment(
            f"attachment {request.attachment_id} is not in place on this host; nothing was touched"
        )
    return held


def refuse_while_open(book: Book, attachment_id: str) -> None:
    """Raises Busy: what the attachment is when that has ended nobody knows yet."""
    for record in book.open_operations(attachment_id=attachment_id):
        raise Busy(
            f"{record.verb} {record.operation_id} of this attachment is {record.state}; nothing "
            "was done: send it again when that has ended"
        )


def taking_the_place(book: Book, request: SwapRequest, held: Held) -> Attachment:
    """The new attachment, with the disk as it is.  Raises the refusal."""
    old, new = held.attachment, request.new
    _refuse_different(old, new)
    _refuse_smaller(held, new)
    if old.multiattach and not request.sole_user:
        raise SharingConflict(
            f"volume {old.volume_id} may be attached on other hosts (multiattach), and what is "
            "written there during the copy would be lost: say sole_user if you know that it is "
            "not; nothing was touched",
            retriable=False,
        )
    for volume_id in (old.volume_id, new.volume_id):
        refuse_shared(book, volume_id, old.attachment_id)
    return new.model_copy(update={"disk": old.disk}).found_as(old)


def refuse_shared(book: Book, volume_id: str, besides: str) -> None:
    """Raises SharingConflict, Busy: somebody else on this host has the volume, or is to get it."""
    for other in book.attachments(volume_id=volume_id):
        if other.attachment.attachment_id != besides:
            raise SharingConflict(
                f"instance {other.attachment.instance_id} on this host uses volume {volume_id} by "
                f"attachment {other.attachment.attachment_id}: detach it first; nothing was touched"
            )
    for record in book.open_operations(volume_id=volume_id):
        raise Busy(
            f"{record.verb} {record.operation_id} of volume {volume_id} is {record.state}; nothing "
            "was done: send it again when that has ended"
        )


def refuse_while_swapped(
    book: Book, *, attachment_id: str | None = None, volume_id: str | None = None
) -> None:
    """Raises Busy: until a swap has ended nobody knows whose the disk is, and what another guest
    writes to a volume that is copied would be lost."""
    of_attachment = book.open_operations(attachment_id=attachment_id) if attachment_id else []
    of_volume = book.open_operations(volume_id=volume_id) if volume_id else []
    for record in (*of_attachment, *of_volume):
        if record.verb == "swap":
            raise Busy(
                f"swap {record.operation_id} of this attachment or volume is {record.state}, "
                f"waiting for {record.waiting_for or 'its turn'}; nothing was done: send it again "
                "when that has ended, or cancel it"
            )


def swapped_parts(held: Held, new: Attachment, generation: int | None) -> tuple[Part, ...]:
    old = Part.of(held.attachment, "yields").but(generation=generation)
    return old, Part.of(new, "joins")


def _refuse_different(old: Attachment, new: Attachment) -> None:
    same: dict[str, tuple[Any, Any]] = {
        "instance_id": (old.instance_id, new.instance_id),
        "multiattach": (old.multiattach, new.multiattach),
        "access_mode": (_mode(old), _mode(new)),
    }
    for name, (is_, asked) in same.items():
        if is_ != asked:
            raise Invalid(
                f"new.{name} is {asked}, and the attachment in place has {is_}: a swap changes the "
                "volume alone; nothing was touched"
            )
    if new.volume_id == old.volume_id:
        raise Invalid("new.volume_id is the volume that is in place; nothing was touched")
    if new.disk not in (Disk(), old.disk):
        raise Invalid("new.disk: the disk stays as it is, leave this out; nothing was touched")
    if old.disk.type == "lun" or old.disk.reservations is not None:
        raise Unsupported(
            "a lun, or a disk with reservations, is not swapped under its guest: what it has of "
            "them stays with the old volume; nothing was touched"
        )


def _mode(attachment: Attachment) -> str:
    return "ro" if attachment.read_only else "rw"


def _refuse_smaller(held: Held, new: Attachment) -> None:
    """Where sizes were told; a volume that turns out smaller is refused when it is connected.

    Of an encrypted one the guest has less than there is: how much only its header tells."""
    if held.attachment.encryption is not None:
        return
    now = held.attachment.size_bytes or (held.device.size_bytes if held.device else 0)
    if new.size_bytes is not None and new.size_bytes < now:
        raise Invalid(
            f"new.size_bytes {new.size_bytes} is less than the {now} of the volume in place: a "
            "copy does not fit; nothing was touched"
        )
