"""What is told of an operation on the bus: written with the change that it tells of."""

from datetime import UTC, datetime
from typing import Any

from agent.journal.book import Book
from agent.journal.record import Record
from agent.model.contract import WIRE_VERSION
from agent.model.request import rfc3339
from agent.ports import Host


def notify(book: Book, host: str, record: Record, event: str) -> None:
    """The notification of a change, in the change's own transaction (docs/wire)."""
    at = rfc3339(datetime.fromtimestamp(record.updated_at, UTC))
    book.post(
        f"attachment.{record.verb}.{event}",
        {
            "version": WIRE_VERSION,
            "event_id": f"{record.operation_id}:{event}:{at}",
            "host": host,
            **record.answer().wire(),
            "attachment_ids": [record.attachment_id],
            "instance_id": record.instance_id,
            "volume_ids": [] if record.volume_id is None else [record.volume_id],
            "at": at,
        },
    )


def told_of(record: Record, event: str) -> str:
    """What a notification tells: the same is not told twice in a row."""
    about = record.trouble.code if event == "error" and record.trouble else record.waiting_for
    return f"{event}: {about}"


def tell(book: Book, host: Host, event_type: str, **facts: Any) -> None:
    """A notification of what no operation did, in the transaction that writes it down."""
    at = rfc3339(datetime.fromtimestamp(host.clock.now(), UTC))
    about = ",".join(facts.get("attachment_ids") or facts["volume_ids"])
    book.post(
        event_type,
        {
            "version": "1.0",
            "event_id": f"{event_type}:{about}:{at}",
            "host": host.name,
            "operation_id": None,
            "attachment_ids": [],
            "instance_id": None,
            **facts,
            "at": at,
        },
    )
