"""attach_batch: several volumes to one instance, all of them or none.

Nothing is plugged before every volume is connected and proven. The commit is the last plug: a
refusal until then takes back the earlier ones, which asks the guest for them and waits.
"""

from agent.journal.record import Record
from agent.model.attachment import Attachment
from agent.operations.attach import attached, keep_attachments, note, prepare
from agent.saga.plan import Plan
from agent.steps.disk import PlugDisk, PlugOtherHalf


def plan_attach_batch(record: Record) -> Plan:
    attachments = record.attachments
    order = plug_order(attachments)
    return Plan(
        reversible=(
            *prepare(order),
            *(PlugDisk(attachment) for attachment in order[:-1]),
        ),
        commit=PlugDisk(order[-1]),
        onward=(
            *(PlugOtherHalf(attachment) for attachment in order),
            *(note(attachment) for attachment in order),
        ),
        result=lambda done: [
            {"attachment_id": part.attachment_id, **attached(part.known)} for part in done.parts
        ],
        on_done=keep_attachments,
    )


def plug_order(attachments: tuple[Attachment, ...]) -> tuple[Attachment, ...]:
    """As asked, but those that name their target first: nobody else shall take it."""
    return tuple(sorted(attachments, key=lambda one: one.disk.target_dev is None))
