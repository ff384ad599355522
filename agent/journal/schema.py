"""The tables, and how older files become newer ones: forward only, each step in one go.

Columns are what is searched for, what a promise is made of, and what must be forgotten; the rest
of a row is one JSON text, so that a new field needs no migration. ``PRAGMA user_version`` counts
the migrations that a file has had.
"""

import sqlite3

MIGRATIONS: tuple[str, ...] = (
    """
    CREATE TABLE operations (
        sequence INTEGER PRIMARY KEY AUTOINCREMENT,
        operation_id TEXT NOT NULL UNIQUE,
        open INTEGER NOT NULL,
        cancel_wanted INTEGER NOT NULL DEFAULT 0,
        updated_at REAL NOT NULL,
        body TEXT NOT NULL
    );
    CREATE INDEX operations_open ON operations (open, updated_at);
    CREATE TABLE attachments (
        attachment_id TEXT PRIMARY KEY,
        volume_id TEXT NOT NULL,
        promised INTEGER NOT NULL,
        body TEXT NOT NULL
    );
    CREATE TABLE fences (
        attachment_id TEXT PRIMARY KEY,
        newest INTEGER,
        detached INTEGER,
        seen_at REAL NOT NULL
    );
    CREATE TABLE quarantine (
        volume_id TEXT PRIMARY KEY,
        body TEXT NOT NULL
    );
    CREATE TABLE outbox (
        sequence INTEGER PRIMARY KEY AUTOINCREMENT,
        event_type TEXT NOT NULL,
        body TEXT NOT NULL
    );
    """,
    # Promises without parsing a row, conflicts by index, and storage credentials in a column of
    # their own, which an operation loses when it closes.
    """
    ALTER TABLE operations ADD COLUMN attachment_id TEXT;
    ALTER TABLE operations ADD COLUMN volume_id TEXT;
    ALTER TABLE operations ADD COLUMN instance_id TEXT;
    ALTER TABLE operations ADD COLUMN multiattach INTEGER;
    ALTER TABLE operations ADD COLUMN promised INTEGER NOT NULL DEFAULT 0;
    ALTER TABLE operations ADD COLUMN device TEXT;
    ALTER TABLE operations ADD COLUMN attachment TEXT;
    UPDATE operations SET
        attachment_id = json_extract(body, '$.attachment_id'),
        volume_id = json_extract(body, '$.volume_id'),
        instance_id = json_extract(body, '$.instance_id'),
        multiattach = coalesce(json_extract(body, '$.attachment.multiattach'), 0),
        promised = open AND json_extract(body, '$.verb') = 'attach'
            AND json_extract(body, '$.direction') != 'undoing',
        device = json_extract(body, '$.known.device'),
        attachment = iif(open, json_extract(body, '$.attachment'), NULL),
        body = json_remove(body, '$.attachment');
    UPDATE operations SET body = json_set(body, '$.promised', json('true')) WHERE promised;
    CREATE INDEX operations_of_attachment ON operations (attachment_id);
    CREATE INDEX operations_of_volume ON operations (volume_id, open);
    CREATE INDEX operations_of_instance ON operations (instance_id);
    ALTER TABLE attachments ADD COLUMN instance_id TEXT;
    ALTER TABLE attachments ADD COLUMN multiattach INTEGER;
    ALTER TABLE attachments ADD COLUMN device TEXT;
    ALTER TABLE attachments ADD COLUMN attachment TEXT;
    UPDATE attachments SET
        instance_id = json_extract(body, '$.attachment.instance_id'),
        multiattach = coalesce(json_extract(body, '$.attachment.multiattach'), 0),
        device = json_extract(body, '$.device'),
        attachment = json_extract(body, '$.attachment'),
        body = json_remove(body, '$.attachment', '$.device');
    CREATE INDEX attachments_of_volume ON attachments (volume_id);
    """,
    # What a fence is about: who asks again after the end is told whether the volume is in use.
    """
    ALTER TABLE fences ADD COLUMN volume_id TEXT;
    ALTER TABLE fences ADD COLUMN source TEXT;
    UPDATE fences SET (volume_id, source) = (
        SELECT volume_id, json_extract(device, '$.path') FROM operations
        WHERE operations.attachment_id = fences.attachment_id AND volume_id IS NOT NULL
        ORDER BY sequence DESC LIMIT 1
    );
    """,
    # What this host still shows of volumes that nobody here uses any more.
    """
    CREATE TABLE leftovers (
        volume_id TEXT PRIMARY KEY,
        body TEXT NOT NULL
    );
    """,
    # Several attachments an operation: a row for each, with what was a column or known of the one.
    # And whether a volume may be on this host: a disconnect that was never proven is none.
    """
    CREATE TABLE volumes (
        volume_id TEXT PRIMARY KEY,
        lane TEXT NOT NULL,
        connected INTEGER NOT NULL,
        device TEXT
    );
    INSERT INTO volumes (volume_id, lane, connected, device)
    SELECT volume_id, 'other',
        EXISTS (SELECT 1 FROM attachments WHERE volume_id = known.volume_id)
        OR EXISTS (SELECT 1 FROM operations WHERE volume_id = known.volume_id AND open = 1)
        OR NOT coalesce((
            SELECT json_extract(body, '$.result.disconnected') FROM operations
            WHERE volume_id = known.volume_id AND json_extract(body, '$.verb') = 'detach'
                AND json_extract(body, '$.state') = 'done'
            ORDER BY sequence DESC LIMIT 1
        ), 0),
        coalesce(
            (SELECT device FROM attachments WHERE volume_id = known.volume_id),
            (SELECT device FROM operations WHERE volume_id = known.volume_id AND open = 1)
        )
    FROM (
        SELECT volume_id FROM attachments
        UNION SELECT volume_id FROM operations WHERE volume_id IS NOT NULL
        UNION SELECT volume_id FROM fences WHERE volume_id IS NOT NULL
    ) AS known;
    CREATE TABLE operation_parts (
        operation_id TEXT NOT NULL,
        number INTEGER NOT NULL,
        attachment_id TEXT NOT NULL,
        volume_id TEXT,
        instance_id TEXT NOT NULL,
        multiattach INTEGER NOT NULL,
        open INTEGER NOT NULL,
        promised INTEGER NOT NULL,
        device TEXT,
        attachment TEXT,
        body TEXT NOT NULL,
        PRIMARY KEY (operation_id, number)
    );
    CREATE INDEX parts_of_attachment ON operation_parts (attachment_id, open);
    CREATE INDEX parts_of_volume ON operation_parts (volume_id, open);
    CREATE INDEX parts_of_instance ON operation_parts (instance_id, open);
    CREATE INDEX parts_open ON operation_parts (open);
    INSERT INTO operation_parts
    SELECT operation_id, 0, attachment_id, volume_id, instance_id, coalesce(multiattach, 0), open,
        promised, device, attachment, json_object(
            'attachment_id', attachment_id,
            'instance_id', instance_id,
            'volume_id', volume_id,
            'role', iif(json_extract(body, '$.verb') = 'attach', 'joins', 'leaves'),
            'generation', json_extract(body, '$.generation'),
            'promised', json(iif(promised, 'true', 'false')),
            'known', json_remove(json_extract(body, '$.known'), '$.undo_from', '$.warnings')
        )
    FROM operations;
    ALTER TABLE operations RENAME TO older_operations;
    CREATE TABLE operations (
        sequence INTEGER PRIMARY KEY AUTOINCREMENT,
        operation_id TEXT NOT NULL UNIQUE,
        open INTEGER NOT NULL,
        cancel_wanted INTEGER NOT NULL DEFAULT 0,
        updated_at REAL NOT NULL,
        body TEXT NOT NULL
    );
    INSERT INTO operations
    SELECT sequence, operation_id, open, cancel_wanted, updated_at, json_set(
        json_remove(body, '$.attachment_id', '$.volume_id', '$.generation', '$.promised'),
        '$.subjects', json_array(),
        '$.known', json(iif(
            json_type(body, '$.known.undo_from') IS NULL, json_object(),
            json_object('undo_from', json_extract(body, '$.known.undo_from'))
        )),
        '$.warnings', json(iif(open, (
            SELECT json_group_array(value) FROM (
                SELECT value FROM json_each(body, '$.warnings')
                UNION ALL SELECT value FROM json_each(body, '$.known.warnings')
            )
        ), json_extract(body, '$.warnings')))
    )
    FROM older_operations;
    DROP TABLE older_operations;
    CREATE INDEX operations_open ON operations (open, updated_at);
    """,
    # Whose journal it is.
    """
    CREATE TABLE host (
        name TEXT NOT NULL
    );
    """,
)


def refuse_other_version(connection: sqlite3.Connection) -> None:
    """For who may not migrate.  Raises ValueError if the file is older or newer."""
    version = _version(connection)
    _refuse_newer(version)
    if version < len(MIGRATIONS):
        raise ValueError(
            f"the journal has schema {version}, this program reads {len(MIGRATIONS)}: "
            "the agent brings it up to date when it starts"
        )


def migrate(connection: sqlite3.Connection) -> None:
    """Bring the file to this version.  Raises ValueError if a newer agent has written it."""
    version = _version(connection)
    _refuse_newer(version)
    for number, script in enumerate(MIGRATIONS[version:], start=version + 1):
        connection.executescript(f"BEGIN IMMEDIATE; {script} PRAGMA user_version={number}; COMMIT;")


def _version(connection: sqlite3.Connection) -> int:
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    return int(version)


def _refuse_newer(version: int) -> None:
    if version > len(MIGRATIONS):
        raise ValueError(
            f"the journal has schema {version}, this agent knows {len(MIGRATIONS)}: "
            "install the newer agent again; nothing was changed"
        )
