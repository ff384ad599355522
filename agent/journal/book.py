"""The journal's rows as nouns, on one connection: used inside a transaction or for reading."""

import json
import sqlite3
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from agent.journal.record import Fence, Held, Record
from agent.model.attachment import Attachment
from agent.model.device import Device
from agent.model.outcome import Problem
from agent.ports import Promise


class Book:
    """Queries and changes. Durable only through Journal.write."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._db = connection

    # operations

    def operation(self, operation_id: str) -> Record | None:
        row = self._db.execute(
            "SELECT sequence, cancel_wanted, body FROM operations WHERE operation_id = ?",
            (operation_id,),
        ).fetchone()
        return None if row is None else _record(*row)

    def open_operations(self) -> list[Record]:
        """In the order they were accepted."""
        rows = self._db.execute(
            "SELECT sequence, cancel_wanted, body FROM operations WHERE open = 1 ORDER BY sequence"
        )
        return [_record(*row) for row in rows]

    def all_operations(self) -> list[Record]:
        rows = self._db.execute(
            "SELECT sequence, cancel_wanted, body FROM operations ORDER BY sequence"
        )
        return [_record(*row) for row in rows]

    def count_open(self) -> int:
        (count,) = self._db.execute("SELECT count(*) FROM operations WHERE open = 1").fetchone()
        return int(count)

    def add(self, record: Record) -> Record:
        cursor = self._db.execute(
            "INSERT INTO operations (operation_id, open, updated_at, body) VALUES (?, ?, ?, ?)",
            (record.operation_id, record.open, record.updated_at, _record_json(record)),
        )
        assert cursor.lastrowid is not None
        return record.but(sequence=cursor.lastrowid)

    def cancel(self, operation_id: str) -> None:
        """A wish that no later save of the record overwrites."""
        self._db.execute(
            "UPDATE operations SET cancel_wanted = 1 WHERE operation_id = ?", (operation_id,)
        )

    def save(self, record: Record) -> None:
        self._db.execute(
            "UPDATE operations SET open = ?, updated_at = ?, body = ? WHERE operation_id = ?",
            (record.open, record.updated_at, _record_json(record), record.operation_id),
        )

    # attachments

    def attachment(self, attachment_id: str) -> Held | None:
        row = self._db.execute(
            "SELECT promised, body FROM attachments WHERE attachment_id = ?", (attachment_id,)
        ).fetchone()
        return None if row is None else _held(*row)

    def attachments(self) -> list[Held]:
        rows = self._db.execute("SELECT promised, body FROM attachments ORDER BY attachment_id")
        return [_held(*row) for row in rows]

    def keep(self, held: Held) -> None:
        body = {
            "attachment": held.attachment.reveal(),
            "operation_id": held.operation_id,
            "device": held.device and held.device.reveal(),
            "disk": held.disk,
        }
        self._db.execute(
            "INSERT OR REPLACE INTO attachments (attachment_id, volume_id, promised, body)"
            " VALUES (?, ?, ?, ?)",
            (
                held.attachment.attachment_id,
                held.attachment.volume_id,
                held.promised,
                json.dumps(body),
            ),
        )

    def withdraw(self, attachment_id: str) -> None:
        self._db.execute(
            "UPDATE attachments SET promised = 0 WHERE attachment_id = ?", (attachment_id,)
        )

    def drop(self, attachment_id: str) -> None:
        self._db.execute("DELETE FROM attachments WHERE attachment_id = ?", (attachment_id,))

    def promises(self, besides: str) -> list[Promise]:
        """Who counts on a volume: attachments, and operations going forward, except one."""
        held = [
            Promise(
                volume_id=row.attachment.volume_id,
                attachment_id=row.attachment.attachment_id,
                instance_id=row.attachment.instance_id,
                multiattach=row.attachment.multiattach,
                operation_id=None,
                device=row.device,
            )
            for row in self.attachments()
            if row.promised
        ]
        going = [
            Promise(
                volume_id=record.attachment.volume_id,
                attachment_id=record.attachment_id,
                instance_id=record.instance_id,
                multiattach=record.attachment.multiattach,
                operation_id=record.operation_id,
                device=record.device,
            )
            for record in self.open_operations()
            if record.promises and record.operation_id != besides and record.attachment
        ]
        return held + going

    # fences

    def fence(self, attachment_id: str) -> Fence | None:
        """None: this agent never saw the attachment."""
        row = self._db.execute(
            "SELECT newest, detached FROM fences WHERE attachment_id = ?", (attachment_id,)
        ).fetchone()
        return None if row is None else Fence(*row)

    def raise_fence(
        self, attachment_id: str, *, newest: int | None, detached: int | None, now: float
    ) -> None:
        """Never lowers a fence: max(None, n) is n."""
        self._db.execute(
            """
            INSERT INTO fences (attachment_id, newest, detached, seen_at) VALUES (?1, ?2, ?3, ?4)
            ON CONFLICT (attachment_id) DO UPDATE SET
                newest = nullif(max(coalesce(newest, -1), coalesce(?2, -1)), -1),
                detached = nullif(max(coalesce(detached, -1), coalesce(?3, -1)), -1),
                seen_at = ?4
            """,
            (attachment_id, newest, detached, now),
        )

    # quarantine

    def quarantine(self, volume_id: str, device: Device, reason: str, now: float) -> None:
        body = {"device": device.reveal(), "reason": reason, "at": now}
        self._db.execute(
            "INSERT OR REPLACE INTO quarantine (volume_id, body) VALUES (?, ?)",
            (volume_id, json.dumps(body)),
        )

    def quarantined(self) -> dict[str, dict[str, Any]]:
        """{volume_id: {device, reason, at}}"""
        rows = self._db.execute("SELECT volume_id, body FROM quarantine ORDER BY volume_id")
        return {volume_id: json.loads(body) for volume_id, body in rows}

    def release(self, volume_id: str) -> bool:
        cursor = self._db.execute("DELETE FROM quarantine WHERE volume_id = ?", (volume_id,))
        return cursor.rowcount > 0

    # outbox

    def post(self, event_type: str, body: dict[str, Any]) -> None:
        self._db.execute(
            "INSERT INTO outbox (event_type, body) VALUES (?, ?)", (event_type, json.dumps(body))
        )

    def letters(self, limit: int) -> Sequence[tuple[int, str, dict[str, Any]]]:
        """(sequence, event type, payload), oldest first; the payload carries the sequence."""
        rows = self._db.execute(
            "SELECT sequence, event_type, body FROM outbox ORDER BY sequence LIMIT ?", (limit,)
        )
        return [
            (sequence, event_type, {**json.loads(body), "sequence": sequence})
            for sequence, event_type, body in rows
        ]

    def count_letters(self) -> int:
        (count,) = self._db.execute("SELECT count(*) FROM outbox").fetchone()
        return int(count)

    def posted(self, up_to_sequence: int) -> None:
        self._db.execute("DELETE FROM outbox WHERE sequence <= ?", (up_to_sequence,))

    # retention

    def prune(self, closed_before: float) -> int:
        """Drop closed records; fences go with them once no attachment or operation is left."""
        gone = self._db.execute(
            "DELETE FROM operations WHERE open = 0 AND updated_at < ?", (closed_before,)
        ).rowcount
        self._db.execute(
            "DELETE FROM fences WHERE seen_at < ?"
            " AND attachment_id NOT IN (SELECT attachment_id FROM attachments)",
            (closed_before,),
        )
        return gone


def _record_json(record: Record) -> str:
    plain = asdict(record.but(attachment=None, cause=None, trouble=None))
    plain["attachment"] = record.attachment and record.attachment.reveal()
    plain["cause"] = record.cause and record.cause.reveal()
    plain["trouble"] = record.trouble and record.trouble.reveal()
    return json.dumps(plain)


def _record(sequence: int, cancel_wanted: int, body: str) -> Record:
    plain = json.loads(body)
    plain.update(sequence=sequence, cancel_wanted=bool(cancel_wanted))
    for name, noun in (("attachment", Attachment), ("cause", Problem), ("trouble", Problem)):
        if plain[name] is not None:
            plain[name] = noun.model_validate(plain[name])
    plain["steps"] = tuple(plain["steps"])
    plain["warnings"] = tuple(plain["warnings"])
    return Record(**plain)


def _held(promised: int, body: str) -> Held:
    plain = json.loads(body)
    return Held(
        attachment=Attachment.model_validate(plain["attachment"]),
        operation_id=plain["operation_id"],
        device=plain["device"] and Device.model_validate(plain["device"]),
        disk=plain["disk"],
        promised=bool(promised),
    )
