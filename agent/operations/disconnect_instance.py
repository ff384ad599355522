"""disconnect_instance: an instance that does not run here gives its volumes back, all or some.

A running guest is never asked: while it has one of them, all of it is refused. What is left of them
in its definition is forgotten, as by a detach.
"""

from agent.journal.record import Part, Record
from agent.operations.detach import alias_of, detached, drop_attachments, host_side
from agent.saga.plan import Plan, Step
from agent.steps.disk import ForgetDisk, NoteInDomain
from agent.steps.instance import CheckInstance, WithdrawPromises


def plan_disconnect_instance(record: Record) -> Plan:
    assert record.instance_id is not None
    disks = tuple((part.attachment_id, alias_of(part), part.attachment) for part in record.parts)
    return Plan(
        reversible=(CheckInstance(record.instance_id, disks),),
        commit=WithdrawPromises(record.instance_id, record.attachment_ids),
        onward=tuple(step for part in record.parts for step in _give_back(part)),
        result=lambda done: [
            {"attachment_id": part.attachment_id, **detached({**done.known, **part.known})}
            for part in done.parts
        ],
        on_done=drop_attachments,
    )


def _give_back(part: Part) -> tuple[Step, ...]:
    alias = alias_of(part)
    return (
        ForgetDisk(part.attachment_id, part.instance_id, alias, part.attachment),
        NoteInDomain(part.attachment_id, part.instance_id, alias, None),
        *host_side(part),
    )
