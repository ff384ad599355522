"""set_iotune: what holds back a disk changes under the guest, and in its definition."""

from dataclasses import replace

from agent.journal.book import Book
from agent.journal.record import Record
from agent.model.disk import IoTune
from agent.operations.detach import alias_of
from agent.saga.plan import Plan
from agent.steps.limits import LimitDisk, LimitOtherHalf


def plan_set_iotune(record: Record) -> Plan:
    part, iotune = record.part, IoTune.parse(record.known["iotune"])
    assert part.attachment is not None, "it is in place"
    disk = (part.attachment, alias_of(part), iotune)
    return Plan(
        reversible=(),
        commit=LimitDisk(*disk),
        onward=(LimitOtherHalf(*disk),),
        result=lambda done: done.part.known.get("limits", {}),  # none: the disk went before a look
        on_done=keep_limits,
    )


def keep_limits(book: Book, record: Record) -> None:
    """So the disk has them wherever it is plugged anew."""
    held = book.attachment(record.part.attachment_id)
    if held is not None:
        iotune = IoTune.parse(record.known["iotune"])
        disk = held.attachment.disk.model_copy(update={"iotune": iotune})
        attachment = held.attachment.model_copy(update={"disk": disk})
        book.keep(replace(held, attachment=attachment))
