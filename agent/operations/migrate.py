"""migrate: the instance goes to another host while it runs; its volumes are there already.

On the source. libvirt carries it; where the instance is in the end both hosts tell, and never an
error (guest/whereabouts.py). The commit is the switch: what has it behind it only goes on.
"""

from typing import Any

from agent.journal.book import Book
from agent.journal.migration_fence import arrived
from agent.journal.record import Record
from agent.model.migration import MigrationOptions
from agent.model.migration_request import Destination
from agent.operations.detach import drop_attachments, host_side, off_host
from agent.saga.plan import Plan
from agent.steps.migrate import CheckDestination, CheckTraveller, FinishMove, MoveInstance
from agent.steps.travel import Travel


def plan_migrate(record: Record) -> Plan:
    assert record.instance_id is not None
    attachments = record.attachments
    wanted = record.known["parts"]
    travel = Travel(
        instance_id=record.instance_id,
        migration_id=record.known["migration_id"],
        destination=Destination.model_validate(record.known["destination"]),
        options=MigrationOptions.model_validate(record.known["options"]),
        parts={one.alias: wanted[one.attachment_id] for one in attachments},
        attachments=attachments,
    )
    return Plan(
        reversible=(CheckTraveller(travel), CheckDestination(travel)),
        commit=MoveInstance(travel),
        onward=(
            FinishMove(travel),
            *(step for part in record.parts for step in host_side(part)),
        ),
        result=_moved,
        on_done=_let_go,
    )


def _let_go(book: Book, record: Record) -> None:
    drop_attachments(book, record)
    arrived(book, record.known["migration_id"], record.updated_at)


def _moved(record: Record) -> dict[str, Any]:
    """What libvirt has told of it; null where it has not."""
    told = record.known.get("statistics", {})
    return {
        "migration_id": record.known["migration_id"],
        "host": record.known["destination"]["host"],
        "downtime_ms": told.get("downtime_milliseconds"),
        "durations": {
            "total_ms": told.get("elapsed_milliseconds"),
            "setup_ms": told.get("setup_milliseconds"),
        },
        "bytes": {
            "transferred": told.get("transferred_bytes"),
            "total": told.get("total_bytes"),
        },
        "attachments": [
            {"attachment_id": part.attachment_id, **off_host(part.known)} for part in record.parts
        ],
    }
