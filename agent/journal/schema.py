"""The tables, and how older files become newer ones: forward only, each step in one go.

Columns are what is searched for; the rest of a row is one JSON text, so that a new field needs no
migration. ``PRAGMA user_version`` counts the migrations that a file has had.
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
)


def migrate(connection: sqlite3.Connection) -> None:
    """Bring the file to this version.  Raises ValueError if a newer agent has written it."""
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if version > len(MIGRATIONS):
        raise ValueError(
            f"the journal has schema {version}, this agent knows {len(MIGRATIONS)}: "
            "install the newer agent again; nothing was changed"
        )
    for number, script in enumerate(MIGRATIONS[version:], start=version + 1):
        connection.executescript(f"BEGIN IMMEDIATE; {script} PRAGMA user_version={number}; COMMIT;")
