"""Rows for tests of the journal: smallest valid ones, and what a test wants different."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from agent.journal.book import Book
from agent.journal.record import Held, Part, Record
from agent.journal.store import Journal
from agent.model.device import Device
from tests.samples import attachment

DISK = {"target_dev": "vdb", "alias": "ua-att-1"}


class StoppedClock:
    """``ahead``: by so much the one on the wall is."""

    def __init__(self, now: float = 1000.0) -> None:
        self.time = now
        self.ahead = 0.0

    def now(self) -> float:
        return self.time + self.ahead

    def monotonic(self) -> float:
        return self.time


@contextmanager
def opened(directory: Path | None, clock: StoppedClock | None = None) -> Iterator[Journal]:
    journal = Journal(directory, clock or StoppedClock())
    try:
        yield journal
    finally:
        journal.close()


def operation_id(number: int) -> str:
    return f"00000000-0000-4000-9000-{number:012}"


def record(number: int = 1, **different: Any) -> Record:
    """An attach of ``att-<number>`` that counts as a user of its volume."""
    parts = different.setdefault("parts", (part(number),))
    fields: dict[str, Any] = {
        "operation_id": operation_id(number),
        "verb": "attach",
        "digest": "d" * 64,
        "instance_id": parts[0].instance_id,
        "steps": ("connect-volume", "plug-disk"),
        "commit": 1,
        "created_at": 100.0,
        "updated_at": 100.0,
        "not_after": 8e9,
    }
    return Record(**{**fields, **different})


def part(number: int = 1, /, *, known: dict[str, Any] | None = None, **different: Any) -> Part:
    asked = attachment(attachment_id=f"att-{number}", **different)
    return Part.of(asked, "joins").but(promised=True, known=known or {})


def held(number: int = 1, **different: Any) -> Held:
    asked = attachment(attachment_id=f"att-{number}", **different)
    return Held(asked, operation_id(number), device(number), DISK)


def device(number: int = 1) -> Device:
    return Device(
        path=f"/dev/disk/by-id/wwn-0x{number}",
        identity={"wwn": f"0x{number}"},
        size_bytes=1 << 20,
        device_info={"path": "/dev/sdb", "type": "block"},
    )


def letter(text: str) -> Callable[[Book], None]:
    """The smallest change."""
    return lambda book: book.post("test", {"text": text})


def letters(book: Book) -> list[str]:
    return [str(payload["text"]) for _, _, payload in book.letters(10_000)]
