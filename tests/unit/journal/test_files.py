"""The files: who may open them, what a kill leaves, and that ended secrets are in none of them."""

import os
import random
import shutil
import signal
import sqlite3
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from agent.errors import Busy, Unavailable
from agent.journal.record import Held, Part
from agent.journal.store import FILE_NAME, Journal, open_read_only
from agent.model.attachment import Attachment
from tests.samples import attachment
from tests.unit.journal.rows import (
    DISK,
    device,
    held,
    letter,
    letters,
    opened,
    operation_id,
    record,
)

ROOT = Path(__file__).parents[3]

LOG_NAME = f"{FILE_NAME}-wal"

NOBODY = 65534


class TestOneDaemon:
    def test_a_second_one_is_refused_and_the_first_goes_on(self, tmp_path: Path) -> None:
        with opened(tmp_path) as journal:
            with pytest.raises(Busy, match="stop it first"), opened(tmp_path):
                pass
            journal.write(letter("still here"))
        with opened(tmp_path) as journal:
            assert journal.read(letters) == ["still here"]

    def test_who_writes_beside_it_and_leaves_does_not_take_the_log_along(
        self, tmp_path: Path
    ) -> None:
        """sqlite3(1), or a program that makes backups: the last one out folds and deletes it."""
        visit = "import sqlite3, sys; db = sqlite3.connect(sys.argv[1]); SELECT; db.close()"
        visit = visit.replace("SELECT", "db.execute('SELECT count(*) FROM outbox').fetchone()")
        with opened(tmp_path) as journal:
            journal.write(letter("one"))
            subprocess.run([sys.executable, "-c", visit, tmp_path / FILE_NAME], check=True)
            log = os.stat(tmp_path / LOG_NAME)
            journal.write(letter("two"))
            assert os.stat(tmp_path / LOG_NAME).st_ino == log.st_ino
            copy = tmp_path / "as a kill leaves it"
            copy.mkdir()
            for name in (FILE_NAME, LOG_NAME):
                shutil.copy(tmp_path / name, copy)
        with opened(copy) as journal:
            assert journal.read(letters) == ["one", "two"]

    def test_nobody_but_the_owner_reads_the_files(self, tmp_path: Path) -> None:
        directory = tmp_path / "state"
        before = os.umask(0)
        try:
            with opened(directory) as journal:
                journal.write(letter("one"))
                files = {path.name: _mode(path) for path in directory.iterdir()}
        finally:
            os.umask(before)
        assert _mode(directory) == 0o700
        assert files.keys() >= {FILE_NAME, LOG_NAME, "daemon.lock"}
        assert set(files.values()) == {0o600}

    def test_a_file_that_was_open_to_others_is_closed_to_them(self, tmp_path: Path) -> None:
        with opened(tmp_path):
            pass
        (tmp_path / FILE_NAME).chmod(0o644)
        with opened(tmp_path):
            assert _mode(tmp_path / FILE_NAME) == 0o600

    def test_what_is_no_journal_is_refused_and_left_alone(self, tmp_path: Path) -> None:
        (tmp_path / FILE_NAME).write_bytes(b"this is no database" * 500)
        for _ in range(2):
            with pytest.raises(Unavailable, match="not a database"), opened(tmp_path):
                pass
        assert (tmp_path / FILE_NAME).read_bytes() == b"this is no database" * 500


class TestReaders:
    """attachctl beside the daemon, after it, and after a kill."""

    def test_while_the_daemon_writes(self, tmp_path: Path) -> None:
        with opened(tmp_path) as journal:
            journal.write(letter("one"))
            book = open_read_only(tmp_path)
            assert letters(book) == ["one"]
            journal.write(letter("two"))
            assert letters(book) == ["one", "two"]

    def test_a_reader_writes_nothing(self, tmp_path: Path) -> None:
        with opened(tmp_path), pytest.raises(sqlite3.OperationalError, match="readonly"):
            open_read_only(tmp_path).post("test", {})

    def test_after_the_daemon(self, tmp_path: Path) -> None:
        with opened(tmp_path) as journal:
            journal.write(letter("one"))
        assert not (tmp_path / LOG_NAME).exists()
        assert letters(open_read_only(tmp_path)) == ["one"]

    def test_after_a_kill_with_a_log_left_behind(self, killed: Path) -> None:
        assert (killed / LOG_NAME).stat().st_size > 0
        assert letters(open_read_only(killed)) == ["one", "two"]
        with opened(killed) as journal:
            assert journal.read(letters) == ["one", "two"]

    def test_a_name_that_an_uri_would_misread(self, tmp_path: Path) -> None:
        directory = tmp_path / "a?b#c%20d"
        with opened(directory) as journal:
            journal.write(letter("one"))
        assert letters(open_read_only(directory)) == ["one"]

    def test_there_is_none(self, tmp_path: Path) -> None:
        with pytest.raises(sqlite3.OperationalError):
            open_read_only(tmp_path)
        assert list(tmp_path.iterdir()) == []

    @pytest.mark.parametrize("left", ["closed", "killed"])
    def test_in_a_directory_where_it_may_not_write(
        self, left: str, request: pytest.FixtureRequest
    ) -> None:
        directory = request.getfixturevalue(left)
        with _may_only_read(directory):
            program = (
                "import os, sys\n"
                "from pathlib import Path\n"
                "from agent.journal.store import open_read_only\n"
                "from tests.unit.journal.rows import letters\n"
                "if os.geteuid() == 0:\n"
                f"    os.seteuid({NOBODY})\n"
                "assert not os.access(sys.argv[1], os.W_OK, effective_ids=True)\n"
                "assert letters(open_read_only(Path(sys.argv[1]))) == ['one', 'two']\n"
            )
            before = sorted(path.name for path in directory.iterdir())
            subprocess.run([sys.executable, "-c", program, str(directory)], check=True, cwd=ROOT)
            assert sorted(path.name for path in directory.iterdir()) == before

    def test_where_it_may_not_write_it_shows_everything_or_nothing(self, killed: Path) -> None:
        """The log cannot be read without its index, and without the log the file is old."""
        (killed / f"{FILE_NAME}-shm").unlink()
        with _may_only_read(killed):
            program = (
                "import os, sqlite3, sys\n"
                "from pathlib import Path\n"
                "from agent.journal.store import open_read_only\n"
                "if os.geteuid() == 0:\n"
                f"    os.seteuid({NOBODY})\n"
                "try:\n"
                "    open_read_only(Path(sys.argv[1]))\n"
                "except sqlite3.OperationalError:\n"
                "    sys.exit(7)\n"
            )
            argv = [sys.executable, "-c", program, str(killed)]
            assert subprocess.run(argv, cwd=ROOT).returncode == 7

    @pytest.fixture
    def closed(self, own_directory: Path) -> Path:
        with opened(own_directory) as journal:
            journal.write(letter("one"))
            journal.write(letter("two"))
        return own_directory

    @pytest.fixture
    def killed(self, own_directory: Path) -> Path:
        program = (
            "import os, signal, sys\n"
            "from pathlib import Path\n"
            "from tests.unit.journal.rows import letter, opened\n"
            "with opened(Path(sys.argv[1])) as journal:\n"
            "    journal.write(letter('one'))\n"
            "    journal.write(letter('two'))\n"
            "    os.kill(os.getpid(), signal.SIGKILL)\n"
        )
        argv = [sys.executable, "-c", program, str(own_directory)]
        assert subprocess.run(argv, cwd=ROOT).returncode == -signal.SIGKILL
        return own_directory

    @pytest.fixture
    def own_directory(self, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
        """Reachable by every user, unlike tmp_path."""
        with tempfile.TemporaryDirectory() as parent:
            os.chmod(parent, 0o755)
            directory = Path(parent) / "state"
            directory.mkdir()
            yield directory


class TestSecrets:
    CANARIES = 60

    def secret(self, number: int) -> str:
        return f"canary-{number:04}-of-the-storage"

    def iscsi(self, number: int) -> Attachment:
        return attachment(
            attachment_id=f"att-{number}",
            connection_info={
                "driver_volume_type": "iscsi",
                "data": {
                    "target_portal": "192.0.2.1:3260",
                    "target_iqn": "iqn.2026-01.example:one",
                    "target_lun": 1,
                    "auth_password": self.secret(number),
                    "vendor_token": self.secret(number),
                    "padding": "x" * random.Random(number).randrange(6000),
                },
            },
        )

    def attach(self, journal: Journal, number: int) -> None:
        asked = record(number, parts=(Part.of(self.iscsi(number), "joins"),))
        journal.write(lambda book: book.add(asked))
        journal.write(lambda book: book.save(asked.but(state="running", executing=True)))
        done = asked.but(state="done", direction="committed")
        place = Held(self.iscsi(number), operation_id(number), device(), DISK)
        journal.write(lambda book: (book.save(done), book.keep(place)))

    def detach(self, journal: Journal, number: int) -> None:
        asked = record(
            1000 + number,
            verb="detach",
            parts=(Part.of(self.iscsi(number), "joins"),),
            commit=0,
            steps=("u",),
        )
        journal.write(lambda book: book.add(asked))
        journal.write(lambda book: book.save(asked.but(state="waiting", wake_at=1.0)))
        done = asked.but(state="done", direction="committed")
        journal.write(lambda book: (book.save(done), book.drop(f"att-{number}")))

    def found(self, directory: Path) -> set[int]:
        content = b"".join(path.read_bytes() for path in directory.iterdir())
        return {n for n in range(self.CANARIES) if self.secret(n).encode() in content}

    def test_the_credentials_are_kept_while_they_are_needed(self, tmp_path: Path) -> None:
        with opened(tmp_path) as journal:
            self.attach(journal, 1)
        with opened(tmp_path) as journal:
            row = journal.read(lambda book: book.attachment("att-1"))
        assert row is not None
        assert row.attachment == self.iscsi(1)
        assert row.attachment.connection.properties()["auth_password"] == self.secret(1)
        assert row.attachment.connection.properties()["vendor_token"] == self.secret(1)

    def test_none_is_in_any_file_once_its_attachment_ended(self, tmp_path: Path) -> None:
        """In an order that splits, fills and empties pages."""
        chance = random.Random(1)
        attached: set[int] = set()
        with opened(tmp_path) as journal:
            for number in range(self.CANARIES):
                self.attach(journal, number)
                attached.add(number)
                if len(attached) > 10:
                    leaving = chance.choice(sorted(attached))
                    self.detach(journal, leaving)
                    attached.remove(leaving)
            assert self.found(tmp_path) > attached, "the log is where they are until then"
            assert journal.scrub()
            assert self.found(tmp_path) == attached
            for number in sorted(attached):
                self.detach(journal, number)
            assert journal.scrub()
            assert self.found(tmp_path) == set()

    def test_an_attach_that_was_undone_has_ended(self, tmp_path: Path) -> None:
        asked = record(1, parts=(Part.of(self.iscsi(1), "joins"),))
        with opened(tmp_path) as journal:
            journal.write(lambda book: book.add(asked))
            journal.write(lambda book: book.save(asked.but(state="undone", direction="undoing")))
            journal.scrub()
            assert self.found(tmp_path) == set()

    def test_a_stop_leaves_none_and_so_does_a_start_after_a_kill(self, tmp_path: Path) -> None:
        first, second = tmp_path / "first", tmp_path / "second"
        with opened(first) as journal:
            self.attach(journal, 1)
            self.detach(journal, 1)
            assert self.found(first) == {1}
            shutil.copytree(first, second)  # as a kill leaves it
        assert self.found(first) == set()
        with opened(second):
            assert self.found(second) == set()

    def test_a_reader_in_the_way_puts_it_off(self, tmp_path: Path) -> None:
        with opened(tmp_path) as journal:
            self.attach(journal, 1)
            reader = sqlite3.connect(tmp_path / FILE_NAME, isolation_level=None)
            reader.execute("BEGIN")
            reader.execute("SELECT * FROM operations").fetchall()
            self.detach(journal, 1)
            assert not journal.scrub()
            reader.execute("COMMIT")
            reader.close()
            assert journal.scrub()
            assert self.found(tmp_path) == set()

    def test_a_passphrase_is_never_written(self, tmp_path: Path) -> None:
        passphrase = {"format": "luks", "passphrase": self.secret(2)}
        locked = attachment(attachment_id="att-2", encryption=passphrase)
        with opened(tmp_path) as journal:
            journal.write(lambda book: book.add(record(2, parts=(Part.of(locked, "joins"),))))
            journal.write(lambda book: book.keep(Held(locked, operation_id(2), None, DISK)))
            assert self.found(tmp_path) == set()
            kept = journal.read(lambda book: book.operation(operation_id(2)))
        assert kept is not None
        assert kept.part.attachment is not None
        assert kept.part.attachment.encryption is not None
        assert kept.part.attachment.encryption.format == "luks"

    def test_a_secret_file_is_a_name_and_kept(self, tmp_path: Path) -> None:
        named = {"format": "luks2", "secret_file": "/etc/keys/volume"}
        with opened(tmp_path) as journal:
            journal.write(lambda book: book.keep(held(3, encryption=named)))
            kept = journal.read(lambda book: book.attachment("att-3"))
        assert kept == held(3, encryption=named)


def _mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@contextmanager
def _may_only_read(directory: Path) -> Iterator[None]:
    """The files belong to a user who may read them, and may write nowhere in the directory."""
    for path in directory.iterdir():
        if os.geteuid() == 0:
            os.chown(path, NOBODY, NOBODY)
        path.chmod(0o400)
    directory.chmod(0o555)
    try:
        yield
    finally:
        directory.chmod(0o700)
