"""What is told of an operation on the bus: written with the change that it tells of."""

from typing import Any

from agent.journal.book import Book
from agent.journal.record import Record
from agent.model.contract import WIRE_VERSION
from agent.model.moment import rfc3339_of
from agent.ports import Host


def notify(book: Book, host: str, record: Record, event: str) -> None:
    """Written in the same transaction as the change that it tells of."""
    _post(
        book,
        f"attachment.{record.verb}.{event}",
        f"{record.operation_id}:{event}",
        record.updated_at,
        {
            "host": host,
            **record.answer().wire(),
            "attachment_ids": list(record.attachment_ids),
            "instance_id": record.instance_id,
            "instance_ids": list(record.instance_ids),
            "volume_ids": list(record.volume_ids),
        },
    )


def told_of(record: Record, event: str) -> str:
    """What a notification tells: the same is not told twice in a row, and progress in percents."""
    if event == "progress" and record.progress is not None:
        return f"{event}: {record.waiting_for}, {record.progress.percent} %"
    about = record.trouble.code if event == "error" and record.trouble else record.waiting_for
    return f"{event}: {about}"


def tell(book: Book, host: Host, event_type: str, **facts: Any) -> None:
    """A notification of what no operation did, in the transaction that writes it down."""
    about = ",".join(facts.get("attachment_ids") or facts["volume_ids"])
    _post(
        book,
        event_type,
        f"{event_type}:{about}",
        host.clock.now(),
        {
            "host": host.name,
            "operation_id": None,
            "attachment_ids": [],
            "instance_id": None,
            **facts,
        },
    )


def _post(book: Book, event_type: str, event: str, now: float, payload: dict[str, Any]) -> None:
    at = rfc3339_of(now)
    head = {"version": WIRE_VERSION, "event_id": f"{event}:{at}"}
    book.post(event_type, {**head, **payload, "at": at})
