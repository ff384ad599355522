"""Files of older agents become this one's; files of newer agents are left alone.

``schemas/<number>.sql`` is a journal as the agent of that schema wrote it. They are never edited:
a change of the tables adds a migration, and the file of the schema before it.
"""

import json
import sqlite3
from pathlib import Path

import pytest

from agent.errors import Unavailable
from agent.journal import schema
from agent.journal.record import Fence
from agent.journal.store import FILE_NAME, open_read_only
from tests.samples import INSTANCES, VOLUMES
from tests.unit.journal.rows import device, opened, operation_id

SCHEMAS = Path(__file__).with_name("schemas")

OLDER = range(1, len(schema.MIGRATIONS))


def make_file(directory: Path, number: int) -> Path:
    path = directory / FILE_NAME
    with sqlite3.connect(path) as db:
        db.executescript((SCHEMAS / f"{number}.sql").read_text())
    db.close()
    return path


def version(path: Path) -> int:
    db = sqlite3.connect(path)
    (number,) = db.execute("PRAGMA user_version").fetchone()
    db.close()
    return int(number)


def test_every_older_schema_has_its_file() -> None:
    assert sorted(path.stem for path in SCHEMAS.iterdir()) == [str(number) for number in OLDER]


@pytest.mark.parametrize("number", OLDER)
class TestOlder:
    def test_nothing_is_lost(self, tmp_path: Path, number: int) -> None:
        """All the files tell the same story, see the assertions."""
        make_file(tmp_path, number)
        with opened(tmp_path) as journal:
            held = journal.read(lambda book: book.attachments())
            rows = {row.operation_id: row for row in journal.read(lambda book: book.operations())}
            promises = journal.promises(besides="")
            fences = journal.read(lambda book: (book.fence("att-1"), book.fence("att-9")))
            quarantine = journal.read(lambda book: book.quarantined())
            letters = journal.read(lambda book: book.letters(9))
            attached, leaving = (journal.presence(VOLUMES[number]) for number in (1, 4))

        assert [(row.attachment.attachment_id, row.promised) for row in held] == [
            ("att-1", True),
            ("att-2", False),
        ]
        assert held[0].attachment.connection.properties()["auth_password"] == "secret-of-1"
        assert held[0].attachment.multiattach
        assert held[0].device is not None
        assert held[0].device.device_info == device().device_info
        assert held[0].disk == {"target_dev": "vdb", "alias": "ua-att-1"}

        done, running, unsettled, detach = (rows[operation_id(n)] for n in (1, 3, 4, 5))
        assert (done.state, done.open, done.result) == ("done", False, {"device": None})
        assert (running.executing, running.deaths, running.cancel_wanted) == (True, 1, True)
        assert running.part.device is not None
        assert (running.part.promised, running.part.role) == (True, "joins")
        assert not unsettled.part.promised
        assert running.part.attachment is not None
        assert running.part.attachment.connection.properties()["auth_password"] == "secret-of-3"
        assert unsettled.cause is not None
        assert (unsettled.cause.code, unsettled.intended, unsettled.wake_at) == (
            "plug-refused",
            1,
            130.0,
        )
        assert (detach.part.attachment, detach.part.attachment_id) == (None, "att-5")
        assert (detach.verb, detach.part.role) == ("detach", "leaves")
        assert [row.sequence for row in rows.values()] == [1, 2, 3, 4]

        assert [(promise.attachment_id, promise.operation_id) for promise in promises] == [
            ("att-1", None),
            ("att-3", operation_id(3)),
        ]
        assert promises[1].volume_id == VOLUMES[3]
        assert promises[1].instance_id == INSTANCES[3]
        assert promises[1].multiattach
        assert promises[1].device == running.part.device
        where = "/dev/disk/by-id/wwn-0x1"
        assert fences == (Fence(1, None, VOLUMES[1], where), Fence(9, 9))
        assert (attached.connected, attached.device) == (True, held[0].device)
        assert (leaving.connected, leaving.device) == (True, None)
        assert quarantine[VOLUMES[6]]["reason"] == "wwn is 0x7, expected 0x6"
        assert [event for _, event, _ in letters] == ["attachment.attach.end"]

    def test_it_is_as_good_as_a_new_one(self, tmp_path: Path, number: int) -> None:
        make_file(tmp_path, number)
        new = tmp_path / "new"
        for directory in (tmp_path, new):
            with opened(directory):
                pass
        assert _tables(tmp_path / FILE_NAME) == _tables(new / FILE_NAME)
        assert version(tmp_path / FILE_NAME) == len(schema.MIGRATIONS)

    def test_closed_operations_lose_their_credentials(self, tmp_path: Path, number: int) -> None:
        """att-1 is attached and att-4 open; the attach that put att-1 there is over."""
        make_file(tmp_path, number)
        with opened(tmp_path) as journal:
            journal.write(lambda book: book.drop("att-1"))
            journal.scrub()
            content = b"".join(path.read_bytes() for path in tmp_path.iterdir())
        assert b"secret-of-1" not in content
        assert b"secret-of-4" in content

    def test_a_step_that_fails_changes_nothing(
        self, tmp_path: Path, number: int, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        path = make_file(tmp_path, number)
        before = _dump(path)
        broken = (*schema.MIGRATIONS[:number], "DROP TABLE outbox; SELECT no_such_function();")
        with monkeypatch.context() as patch:
            patch.setattr(schema, "MIGRATIONS", broken)
            with pytest.raises(Unavailable, match="no_such_function"), opened(tmp_path):
                pass
        assert (_dump(path), version(path)) == (before, number)
        with opened(tmp_path):
            assert version(path) == len(schema.MIGRATIONS)

    def test_a_reader_leaves_it_to_the_daemon(self, tmp_path: Path, number: int) -> None:
        path = make_file(tmp_path, number)
        with pytest.raises(ValueError, match=f"has schema {number}"):
            open_read_only(tmp_path)
        assert version(path) == number


def test_what_an_operation_has_learnt_becomes_its_attachments(tmp_path: Path) -> None:
    """Schema 3 knew one attachment an operation; what it warned of was told when it closed."""
    path = make_file(tmp_path, 3)
    with sqlite3.connect(path) as db:
        db.execute(
            "UPDATE operations SET body = json_set(body, '$.known.warnings', json_array('late'),"
            " '$.warnings', json_array('early')) WHERE operation_id IN (?, ?)",
            (operation_id(1), operation_id(3)),
        )
    db.close()
    with opened(tmp_path) as journal:
        rows = {row.operation_id: row for row in journal.read(lambda book: book.operations())}
    done, running, unsettled = (rows[operation_id(number)] for number in (1, 3, 4))
    assert done.warnings == ("early",), "its answer was given"
    assert running.warnings == ("early", "late")
    assert set(running.part.known) == {"device"}
    assert (running.known, running.part.generation) == ({}, 3)
    assert (unsettled.known, unsettled.part.known) == ({"undo_from": 1}, {})
    assert [step.state for step in unsettled.answer().steps][:2] == ["intended", "intended"]


@pytest.mark.parametrize("disconnected", [True, False, None])
def test_what_an_older_agent_proved_to_be_gone_is_gone(
    tmp_path: Path, disconnected: bool | None
) -> None:
    """By the last detach of the volume that was done, whatever attachment that was of."""
    path = make_file(tmp_path, 4)
    with sqlite3.connect(path) as db:
        for number, answer in enumerate((True, disconnected)):
            body = {"verb": "detach", "state": "done", "result": {"disconnected": answer}}
            db.execute(
                "INSERT INTO operations (operation_id, attachment_id, instance_id, volume_id, open,"
                " updated_at, body) VALUES (?, 'att-5', 'i', ?, 0, 120.0, ?)",
                (f"later-{number}", VOLUMES[5], json.dumps(body)),
            )
    db.close()
    with opened(tmp_path) as journal:
        assert journal.presence(VOLUMES[5]).connected is not bool(disconnected)


class TestNewer:
    @pytest.fixture
    def newer(self, tmp_path: Path) -> Path:
        with opened(tmp_path):
            pass
        db = sqlite3.connect(tmp_path / FILE_NAME)
        db.execute(f"PRAGMA user_version = {len(schema.MIGRATIONS) + 1}")
        db.close()
        return tmp_path

    def test_it_is_refused_and_left_alone(self, newer: Path) -> None:
        before = _dump(newer / FILE_NAME)
        for _ in range(2):  # the first refusal lets go of the daemon's lock
            with pytest.raises(ValueError, match="install the newer agent again"), opened(newer):
                pass
        assert _dump(newer / FILE_NAME) == before

    def test_a_reader_refuses_it_too(self, newer: Path) -> None:
        with pytest.raises(ValueError, match="install the newer agent again"):
            open_read_only(newer)


def _tables(path: Path) -> dict[str, list[tuple[object, ...]]]:
    """{table: its columns}, and the indexes; the order in which columns were added counts."""
    db = sqlite3.connect(path)
    names = db.execute("SELECT name, tbl_name FROM sqlite_master ORDER BY name").fetchall()
    tables = {
        name: db.execute(f"PRAGMA table_info({name})").fetchall() or [(table,)]
        for name, table in names
    }
    db.close()
    return tables


def _dump(path: Path) -> list[str]:
    db = sqlite3.connect(path)
    lines = list(db.iterdump())
    db.close()
    return lines
