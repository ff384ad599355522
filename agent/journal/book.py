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
    """Queries and changes. Durable only through Journal.write.

    ``open = 1`` is written out where it is meant: SQLite uses an index for a comparison alone.
    """

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._db = connection

    # operations

    def operation(self, operation_id: str) -> Record | None:
        return next(iter(self._operations(operation_id=operation_id)), None)

    def open_operations(
        self, *, attachment_id: str | None = None, volume_id: str | None = None
    ) -> list[Record]:
        """In the order they were accepted; of one attachment or volume, where that is given."""
        return self._operations(open=True, attachment_id=attachment_id, volume_id=volume_id)

    def all_operations(
        self,
        *,
        open: bool | None = None,  # noqa: A002 - the column's name, and the wire's
        operation_id: str | None = None,
        attachment_id: str | None = None,
        instance_id: str | None = None,
        volume_id: str | None = None,
    ) -> list[Record]:
        """Closed ones too, in the order they were accepted; those that match what is given."""
        return self._operations(
            open=open,
            operation_id=operation_id,
            attachment_id=attachment_id,
            instance_id=instance_id,
            volume_id=volume_id,
        )

    def count_open(self) -> int:
        (count,) = self._db.execute("SELECT count(*) FROM operations WHERE open = 1").fetchone()
        return int(count)

    def add(self, record: Record) -> Record:
        cursor = self._db.execute(
            "INSERT INTO operations (operation_id, attachment_id, volume_id, instance_id,"
            " multiattach, attachment, open, promised, device, updated_at, body)"
            " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (
                record.operation_id,
                record.attachment_id,
                record.volume_id,
                record.instance_id,
                record.attachment is not None and record.attachment.multiattach,
                record.attachment and _attachment_json(record.attachment),
                *_progress(record),
            ),
        )
        assert cursor.lastrowid is not None
        return record.but(sequence=cursor.lastrowid)

    def cancel(self, operation_id: str) -> None:
        """A wish that no later save of the record overwrites."""
        self._db.execute(
            "UPDATE operations SET cancel_wanted = 1 WHERE operation_id = ?", (operation_id,)
        )

    def is_cancel_wanted(self, operation_id: str) -> bool:
        row = self._db.execute(
            "SELECT cancel_wanted FROM operations WHERE operation_id = ?", (operation_id,)
        ).fetchone()
        return row is not None and bool(row[0])

    def save(self, record: Record) -> None:
        """How far it is. What was asked never changes; an operation that closes loses its
        attachment, and with it the storage's credentials."""
        self._db.execute(
            "UPDATE operations SET open = ?1, promised = ?2, device = ?3, updated_at = ?4,"
            " body = ?5, attachment = iif(?1, attachment, NULL) WHERE operation_id = ?6",
            (*_progress(record), record.operation_id),
        )

    def _operations(self, **columns: str | bool | None) -> list[Record]:
        given = {column: value for column, value in columns.items() if value is not None}
        where = " AND ".join(f"{column} = ?" for column in given) or "true"
        rows = self._db.execute(
            "SELECT sequence, cancel_wanted, attachment, body FROM operations"
            f" WHERE {where} ORDER BY sequence",
            tuple(given.values()),
        )
        return [_record(*row) for row in rows]

    # attachments

    def attachment(self, attachment_id: str) -> Held | None:
        return next(iter(self._attachments("WHERE attachment_id = ?", attachment_id)), None)

    def attachments(self, *, volume_id: str | None = None) -> list[Held]:
        """All, or those of one volume."""
        if volume_id is None:
            return self._attachments("")
        return self._attachments("WHERE volume_id = ?", volume_id)

    def keep(self, held: Held) -> None:
        self._db.execute(
            "INSERT OR REPLACE INTO attachments (attachment_id, volume_id, instance_id,"
            " multiattach, promised, device, attachment, body) VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            (
                held.attachment.attachment_id,
                held.attachment.volume_id,
                held.attachment.instance_id,
                held.attachment.multiattach,
                held.promised,
                _device_json(held.device),
                _attachment_json(held.attachment),
                json.dumps({"operation_id": held.operation_id, "disk": held.disk}),
            ),
        )

    def withdraw(self, attachment_id: str) -> None:
        self._db.execute(
            "UPDATE attachments SET promised = 0 WHERE attachment_id = ?", (attachment_id,)
        )

    def drop(self, attachment_id: str) -> None:
        self._db.execute("DELETE FROM attachments WHERE attachment_id = ?", (attachment_id,))

    def _attachments(self, where: str, *values: str) -> list[Held]:
        rows = self._db.execute(
            f"SELECT promised, device, attachment, body FROM attachments {where}"
            " ORDER BY attachment_id",
            values,
        )
        return [_held(*row) for row in rows]

    # promises

    def promises(self, besides: str) -> list[Promise]:
        """Who counts on a volume: attachments, and operations that promise, except one."""
        rows = self._db.execute(
            """
            SELECT volume_id, attachment_id, instance_id, multiattach, NULL, device
            FROM attachments WHERE promised
            UNION ALL
            SELECT volume_id, attachment_id, instance_id, multiattach, operation_id, device
            FROM operations WHERE open = 1 AND promised AND operation_id != ?
            """,
            (besides,),
        )
        return [_promise(*row) for row in rows]

    # fences

    def fence(self, attachment_id: str) -> Fence | None:
        """None: this agent never saw the attachment."""
        row = self._db.execute(
            "SELECT newest, detached, volume_id, source FROM fences WHERE attachment_id = ?",
            (attachment_id,),
        ).fetchone()
        return None if row is None else Fence(*row)

    def raise_fence(
        self,
        attachment_id: str,
        *,
        newest: int | None,
        detached: int | None,
        now: float,
        volume_id: str | None = None,
        source: str | None = None,
    ) -> None:
        """Never lowers a fence: max(None, n) is n; nor forgets a volume that is not given."""
        self._db.execute(
            """
            INSERT INTO fences (attachment_id, newest, detached, seen_at, volume_id, source)
            VALUES (?1, ?2, ?3, ?4, ?5, ?6)
            ON CONFLICT (attachment_id) DO UPDATE SET
                newest = nullif(max(coalesce(newest, -1), coalesce(?2, -1)), -1),
                detached = nullif(max(coalesce(detached, -1), coalesce(?3, -1)), -1),
                seen_at = ?4,
                volume_id = coalesce(?5, volume_id),
                source = coalesce(?6, source)
            """,
            (attachment_id, newest, detached, now, volume_id, source),
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

    # leftovers

    def leave_behind(self, volume_id: str, device: Device) -> None:
        """It is flushed and unused, and stays until the storage side unmaps it."""
        self._db.execute(
            "INSERT OR REPLACE INTO leftovers (volume_id, body) VALUES (?, ?)",
            (volume_id, _device_json(device)),
        )

    def left_behind(self) -> dict[str, Device]:
        """{volume_id: device}"""
        rows = self._db.execute("SELECT volume_id, body FROM leftovers ORDER BY volume_id")
        return {volume_id: Device.model_validate_json(body) for volume_id, body in rows}

    def reclaim(self, volume_id: str) -> bool:
        """It is gone, or somebody uses the volume again.  False: nothing was left of it."""
        cursor = self._db.execute("DELETE FROM leftovers WHERE volume_id = ?", (volume_id,))
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
        """Drop closed records; a fence goes once it is as old and nothing here needs it."""
        gone = self._db.execute(
            "DELETE FROM operations WHERE open = 0 AND updated_at < ?", (closed_before,)
        ).rowcount
        self._db.execute(
            "DELETE FROM fences WHERE seen_at < ?"
            " AND attachment_id NOT IN (SELECT attachment_id FROM attachments)"
            " AND attachment_id NOT IN (SELECT attachment_id FROM operations)",
            (closed_before,),
        )
        return gone


def _progress(record: Record) -> tuple[bool, bool, str | None, float, str]:
    """The columns that change: open, promised, device, updated_at, body."""
    return (
        record.open,
        record.promises,
        _device_json(record.device),
        record.updated_at,
        _record_json(record),
    )


def _record_json(record: Record) -> str:
    plain = asdict(record.but(attachment=None, cause=None, trouble=None))
    del plain["attachment"]
    plain["cause"] = record.cause and record.cause.reveal()
    plain["trouble"] = record.trouble and record.trouble.reveal()
    return json.dumps(plain)


def _record(sequence: int, cancel_wanted: int, attachment: str | None, body: str) -> Record:
    plain = json.loads(body)
    plain.update(
        sequence=sequence,
        cancel_wanted=bool(cancel_wanted),
        attachment=attachment and Attachment.model_validate_json(attachment),
        steps=tuple(plain["steps"]),
        warnings=tuple(plain["warnings"]),
    )
    for name in ("cause", "trouble"):
        plain[name] = plain[name] and Problem.model_validate(plain[name])
    return Record(**plain)


def _held(promised: int, device: str | None, attachment: str, body: str) -> Held:
    plain = json.loads(body)
    return Held(
        attachment=Attachment.model_validate_json(attachment),
        operation_id=plain["operation_id"],
        device=_device(device),
        disk=plain["disk"],
        promised=bool(promised),
    )


def _promise(
    volume_id: str,
    attachment_id: str,
    instance_id: str,
    multiattach: int,
    operation_id: str | None,
    device: str | None,
) -> Promise:
    return Promise(
        volume_id=volume_id,
        attachment_id=attachment_id,
        instance_id=instance_id,
        multiattach=bool(multiattach),
        operation_id=operation_id,
        device=_device(device),
    )


def _attachment_json(attachment: Attachment) -> str:
    """With the storage's credentials, which a restart needs; never with a passphrase."""
    plain = attachment.reveal()
    if attachment.encryption is not None:
        plain["encryption"] = attachment.encryption.kept()
    return json.dumps(plain)


def _device_json(device: Device | None) -> str | None:
    return None if device is None else json.dumps(device.reveal())


def _device(text: str | None) -> Device | None:
    return None if text is None else Device.model_validate_json(text)
