"""prepare_migration: the volumes of an instance that is to come are here; all of them or none.

On the destination. No domain is here yet: another guest's detach of a volume must not disconnect it
meanwhile, so the attachments promise, for as long as their leases last (service/leases.py).
"""

from agent.journal.book import Book
from agent.journal.record import Held, Lease, Record
from agent.model.moment import rfc3339_of
from agent.operations.attach import connect
from agent.saga.plan import Plan
from agent.steps.lease import CheckArrival, HandOverParts


def plan_prepare_migration(record: Record) -> Plan:
    assert record.instance_id is not None
    attachments = record.attachments
    return Plan(
        reversible=(CheckArrival(record.instance_id, attachments), *connect(attachments)),
        commit=HandOverParts(attachments, record.known["replaces"]),
        onward=(),
        result=lambda done: {
            "parts": done.known["parts"],
            "lease_expires_at": rfc3339_of(_expires_at(done)),
        },
        on_done=keep_leased,
    )


def keep_leased(book: Book, record: Record) -> None:
    for part in record.parts:
        assert part.attachment is not None
        lease = Lease(
            migration_id=record.known["migration_id"],
            replaces=record.known["replaces"][part.attachment_id],
            source_host=record.known["source_host"],
            expires_at=_expires_at(record),
        )
        # Where it will be, and by what it is found, the instance brings along.
        unknown = dict.fromkeys(("target_dev", "alias", "serial", "address"))
        disk = {**unknown, "live": False, "persistent": False}
        book.keep(Held(part.attachment, record.operation_id, part.device, disk, lease=lease))


def _expires_at(record: Record) -> float:
    """Counted from when it was written down as prepared."""
    seconds: int = record.known["lease_seconds"]
    return record.updated_at + seconds
