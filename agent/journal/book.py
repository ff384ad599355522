"""The journal's rows as nouns, on one connection: used inside a transaction or for reading."""

import json
import sqlite3
from collections.abc import Sequence
from itertools import groupby
from typing import Any, Unpack

from agent.journal.record import Fence, Held, Record
from agent.journal.rows import (
    attachment_json,
    device_json,
    device_of,
    held_json,
    held_of,
    part_columns,
    promise_of,
    record_json,
    record_of,
)
from agent.journal.wanted import Wanted, selection
from agent.model.attachment import Attachment
from agent.model.device import Device
from agent.ports import Presence, Promise


class Book:
    """Queries and changes. Durable only through Journal.write.

    ``open = 1`` is written out where it is meant: SQLite uses an index for a comparison alone.
    """

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._db = connection

    # operations

    def operation(self, operation_id: str) -> Record | None:
        return next(iter(self.operations(operation_id=operation_id)), None)

    def open_operations(
        self, *, attachment_id: str | None = None, volume_id: str | None = None
    ) -> list[Record]:
        """In the order they were accepted; of one attachment or volume, where that is given."""
        return self.operations(open=True, attachment_id=attachment_id, volume_id=volume_id)

    def earlier(self, record: Record) -> Record | None:
        """One that is open on an attachment of the record's, or that it calls off, and was
        accepted before it."""
        others = [self.operation(one) for one in record.calls_off]
        for one in record.attachment_ids:
            others += self.open_operations(attachment_id=one)
        return next((o for o in others if o and o.open and o.sequence < record.sequence), None)

    def open_on(self, instance_id: str) -> list[Record]:
        """Open operations that concern the instance, by themselves or by an attachment."""
        rows = self._db.execute(
            "SELECT operation_id FROM operations"
            " WHERE open = 1 AND json_extract(body, '$.instance_id') = ?1"
            " UNION SELECT operation_id FROM operation_parts WHERE open = 1 AND instance_id = ?1",
            (instance_id,),
        )
        ids = [operation_id for (operation_id,) in rows]
        return [record for one in ids for record in self.operations(operation_id=one)]

    def operations(self, **wanted: Unpack[Wanted]) -> list[Record]:
        """Closed ones too, in the order they were accepted; those that match what is given."""
        given = {name: value for name, value in wanted.items() if value is not None}
        rows = self._db.execute(selection(given), given)
        return [
            record_of(sequence, cancel_wanted, body, [row[3:] for row in of_one if row[4]])
            for (sequence, cancel_wanted, body), of_one in groupby(rows, lambda row: row[:3])
        ]

    def host(self) -> str | None:
        """Whose journal it is; None: nobody has said so."""
        row = self._db.execute("SELECT name FROM host").fetchone()
        return None if row is None else str(row[0])

    def keep_host(self, name: str) -> None:
        """With whatever it takes."""
        if self.host() != name:
            self._db.execute("DELETE FROM host")
            self._db.execute("INSERT INTO host (name) VALUES (?)", (name,))

    def count_open(self) -> int:
        (count,) = self._db.execute("SELECT count(*) FROM operations WHERE open = 1").fetchone()
        return int(count)

    def add(self, record: Record) -> Record:
        cursor = self._db.execute(
            "INSERT INTO operations (operation_id, open, updated_at, body) VALUES (?, ?, ?, ?)",
            (record.operation_id, record.open, record.updated_at, record_json(record)),
        )
        assert cursor.lastrowid is not None
        self._db.executemany(
            "INSERT INTO operation_parts (operation_id, number, attachment_id, volume_id,"
            " instance_id, multiattach, attachment, open, promised, device, body)"
            " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            [
                (
                    record.operation_id,
                    number,
                    part.attachment_id,
                    part.volume_id,
                    part.instance_id,
                    part.attachment is not None and part.attachment.multiattach,
                    part.attachment and attachment_json(part.attachment),
                    *part_columns(record, part),
                )
                for number, part in enumerate(record.parts)
            ],
        )
        self._know_volumes(record, is_new=True)
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
        attachments, and with them the storage's credentials. It grows no older where somebody sets
        the clock back."""
        self._db.execute(
            "UPDATE operations SET open = ?, updated_at = max(updated_at, ?), body = ?"
            " WHERE operation_id = ?",
            (record.open, record.updated_at, record_json(record), record.operation_id),
        )
        self._db.executemany(
            "UPDATE operation_parts SET open = ?1, promised = ?2, device = ?3, body = ?4,"
            " attachment = iif(?1, attachment, NULL) WHERE operation_id = ?5 AND number = ?6",
            [
                (*part_columns(record, part), record.operation_id, number)
                for number, part in enumerate(record.parts)
            ],
        )
        self._know_volumes(record)

    # attachments

    def attachment(self, attachment_id: str) -> Held | None:
        return next(iter(self._attachments("WHERE attachment_id = ?", attachment_id)), None)

    def attachments(self, *, volume_id: str | None = None) -> list[Held]:
        """All, or those of one volume."""
        if volume_id is None:
            return self._attachments("")
        return self._attachments("WHERE volume_id = ?", volume_id)

    def leased(self) -> list[Held]:
        """Those whose instance is to come by a migration."""
        return self._attachments("WHERE json_extract(body, '$.lease') IS NOT NULL")

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
                device_json(held.device),
                attachment_json(held.attachment),
                held_json(held),
            ),
        )
        self._know_volume(held.attachment, held.device, connected=True)

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
        return [held_of(*row) for row in rows]

    # promises

    def promises(self, besides: str) -> list[Promise]:
        """Who counts on a volume: attachments, and operations that promise, except one."""
        rows = self._db.execute(
            """
            SELECT volume_id, attachment_id, instance_id, multiattach, NULL, device,
                CASE WHEN device IS NULL THEN attachment END
            FROM attachments WHERE promised
            UNION ALL
            SELECT volume_id, attachment_id, instance_id, multiattach, operation_id, device,
                CASE WHEN device IS NULL THEN attachment END
            FROM operation_parts WHERE open = 1 AND promised AND operation_id != ?
            """,
            (besides,),
        )
        return [promise_of(*row) for row in rows]

    # volumes

    def presence(self, volume_id: str) -> Presence:
        row = self._db.execute(
            "SELECT connected, leftovers.body, device, lane FROM volumes"
            " LEFT JOIN leftovers USING (volume_id) WHERE volume_id = ?",
            (volume_id,),
        ).fetchone()
        if row is None:  # never heard of: who knows
            return Presence(connected=True, awaiting_unmap=False, device=None, lane="other")
        connected, left_over, device, lane = row
        return Presence(
            bool(connected), left_over is not None, device_of(left_over or device), lane
        )

    def disconnected(self, volume_id: str) -> None:
        """Unless it was promised to somebody meanwhile, who is about to connect it."""
        self._db.execute(
            "UPDATE volumes SET connected = 0, device = NULL WHERE volume_id = ?"
            " AND volume_id NOT IN (SELECT volume_id FROM attachments WHERE promised)"
            " AND volume_id NOT IN (SELECT volume_id FROM operation_parts WHERE promised)",
            (volume_id,),
        )

    def _know_volumes(self, record: Record, *, is_new: bool = False) -> None:
        """Who asks to have it taken off says that the volume may be here, whatever we know."""
        for part in record.parts:
            may_be_here = (record.open and part.promised) or (is_new and part.role == "leaves")
            if part.attachment is not None and (may_be_here or is_new):
                self._know_volume(part.attachment, part.device, connected=may_be_here)

    def _know_volume(self, of: Attachment, device: Device | None, *, connected: bool) -> None:
        self._db.execute(
            """
            INSERT INTO volumes (volume_id, lane, connected, device) VALUES (?, ?, ?, ?)
            ON CONFLICT (volume_id) DO UPDATE SET
                lane = excluded.lane,
                connected = max(connected, excluded.connected),
                device = coalesce(excluded.device, device)
            """,
            (of.volume_id, of.connection.lane, connected, device_json(device)),
        )

    # fences

    def fence(self, attachment_id: str) -> Fence | None:
        """None: this agent never saw the attachment."""
        row = self._db.execute(
            "SELECT newest, detached, volume_id, source FROM fences WHERE attachment_id = ?",
            (attachment_id,),
        ).fetchone()
        return None if row is None else Fence(*row)

    def newest_generations(self) -> dict[str, int | None]:
        """Of every attachment in place: what a request must have at least. Fences outlive theirs
        by far."""
        return dict(
            self._db.execute(
                "SELECT attachment_id, newest FROM attachments JOIN fences USING (attachment_id)"
            )
        )

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
                seen_at = max(seen_at, ?4),
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
            (volume_id, device_json(device)),
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

    def prune(self, closed_before: float, now: float) -> int:
        """Drop closed records whose request is not valid any more; a fence goes once it is as old
        and nothing here needs it, and a volume with its last fence, unless it may still be here."""
        gone = self._db.execute(
            "DELETE FROM operations WHERE open = 0 AND updated_at < ?"
            " AND json_extract(body, '$.not_after') < ?",
            (closed_before, now),
        ).rowcount
        self._db.execute(
            "DELETE FROM operation_parts"
            " WHERE open = 0 AND operation_id NOT IN (SELECT operation_id FROM operations)"
        )
        self._db.execute(
            "DELETE FROM fences WHERE seen_at < ?"
            " AND attachment_id NOT IN (SELECT attachment_id FROM attachments)"
            " AND attachment_id NOT IN (SELECT attachment_id FROM operation_parts)",
            (closed_before,),
        )
        self._db.execute(
            "DELETE FROM volumes WHERE NOT connected AND volume_id NOT IN"
            " (SELECT volume_id FROM fences WHERE volume_id IS NOT NULL)"
        )
        return gone
