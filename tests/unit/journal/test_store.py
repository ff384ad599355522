"""Writing: durable in groups, each change for itself, and what a full disk does."""

import resource
import signal
import sqlite3
import struct
import subprocess
import sys
import threading
import timeit
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from agent.errors import Busy, Unavailable
from agent.journal.book import Book
from agent.journal.store import FILE_NAME, Journal
from tests.samples import VOLUMES
from tests.unit.journal.rows import letter, letters, opened, operation_id, record

ENOUGH_SECONDS = 60

ROOT = Path(__file__).parents[3]


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    with opened(tmp_path) as journal:
        yield journal


class TestDurability:
    def test_what_write_returned_is_there_after_a_kill(self, tmp_path: Path) -> None:
        """Eight threads write and say so; whatever was said is in the file."""
        program = (
            "import sys, threading\n"
            "from pathlib import Path\n"
            "from tests.unit.journal.rows import letter, opened\n"
            "def work(name):\n"
            "    for number in range(100_000):\n"
            "        journal.write(letter(f'{name}-{number}'))\n"
            "        sys.stdout.write(f'{name}-{number}\\n')\n"
            "        sys.stdout.flush()\n"
            "with opened(Path(sys.argv[1])) as journal:\n"
            "    for name in range(8):\n"
            "        threading.Thread(target=work, args=(name,)).start()\n"
            "    threading.Event().wait()\n"
        )
        writer = subprocess.Popen(
            [sys.executable, "-c", program, str(tmp_path)], stdout=subprocess.PIPE, cwd=ROOT
        )
        assert writer.stdout is not None
        said = [writer.stdout.readline() for _ in range(200)]
        writer.kill()
        said += writer.stdout.readlines()
        writer.wait()
        with opened(tmp_path) as journal:
            written = set(journal.read(letters))
        whole = {line.decode().strip() for line in said if line.endswith(b"\n")}
        assert len(whole) >= 200
        assert whole <= written

    def test_every_commit_is_synced_to_the_log(self, journal: Journal) -> None:
        """FULL: NORMAL would lose the last commits at a power loss."""

        def pragma(name: str) -> Callable[[Book], object]:
            return lambda book: book._db.execute(f"PRAGMA {name}").fetchone()[0]

        assert journal.write(pragma("journal_mode")) == "wal"
        assert journal.write(pragma("synchronous")) == 2

    def test_a_reader_sees_one_moment(self, journal: Journal) -> None:
        """An operation that closes between two questions would else be in neither answer."""

        def before_and_after(book: Book) -> tuple[list[str], list[str]]:
            before = letters(book)
            _in_thread(lambda: journal.write(letter("between")))
            return before, letters(book)

        assert journal.read(before_and_after) == ([], [])
        assert journal.read(letters) == ["between"]

    def test_a_reader_does_not_wait_for_a_commit(self, journal: Journal) -> None:
        with _held_commit(journal) as release:
            assert journal.read(letters) == []
            release()
        assert journal.read(letters) == ["first"]

    def test_everything_at_once(self, journal: Journal) -> None:
        """Writers, readers and the emptying of the log are in nobody's way."""
        over = threading.Event()
        broken: list[Exception] = []

        def again_and_again(work: Callable[[], object]) -> None:
            try:
                while not over.is_set():
                    work()
            except Unavailable as error:
                broken.append(error)

        background = [lambda: journal.read(letters), journal.scrub, lambda: journal.promises("")]
        threads = [
            threading.Thread(target=again_and_again, args=(work,)) for work in background * 2
        ]
        for thread in threads:
            thread.start()
        try:
            for number in range(200):
                journal.write(letter(f"{number}"))
        finally:
            over.set()
            for thread in threads:
                thread.join(ENOUGH_SECONDS)
        assert broken == []
        assert journal.read(letters) == [f"{number}" for number in range(200)]


class TestGroupCommit:
    def test_who_waits_is_written_together(self, journal: Journal, tmp_path: Path) -> None:
        journal.scrub()
        with _held_commit(journal) as release:
            threads = [
                threading.Thread(target=journal.write, args=(letter(f"{number}"),))
                for number in range(40)
            ]
            for thread in threads:
                thread.start()
            release()
        for thread in threads:
            thread.join(ENOUGH_SECONDS)
        assert len(journal.read(letters)) == 41
        assert _commits(tmp_path / f"{FILE_NAME}-wal") < 20

    def test_each_gets_its_own_result(self, journal: Journal) -> None:
        found: dict[int, int] = {}

        def add(number: int) -> None:
            found[number] = journal.write(lambda book: book.add(record(number))).sequence

        threads = [threading.Thread(target=add, args=(number,)) for number in range(1, 30)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(ENOUGH_SECONDS)
        kept = journal.read(lambda book: book.open_operations())
        assert {operation_id(number): at for number, at in found.items()} == {
            row.operation_id: row.sequence for row in kept
        }

    @pytest.mark.parametrize(
        ("failing", "error"),
        [
            (lambda book: _refuse(book, Busy("somebody is there")), Busy),
            (lambda book: _refuse(book, KeyError("a defect")), KeyError),
            (lambda book: book.add(record(1)), sqlite3.IntegrityError),
        ],
        ids=["refusal", "defect", "twice"],
    )
    def test_a_change_that_fails_undoes_itself_alone(
        self, journal: Journal, failing: Callable[[Book], object], error: type[Exception]
    ) -> None:
        journal.write(lambda book: book.add(record(1)))
        errors: list[Exception] = []

        def fail() -> None:
            with pytest.raises(error) as caught:
                journal.write(failing)
            errors.append(caught.value)

        with _held_commit(journal) as release:
            work = [fail, *(_writing(journal, f"{number}") for number in range(4)), fail]
            threads = [threading.Thread(target=do) for do in work]
            for thread in threads:
                thread.start()
            release()
        for thread in threads:
            thread.join(ENOUGH_SECONDS)
        assert [type(caught) for caught in errors] == [error, error]
        assert sorted(journal.read(letters)) == ["0", "1", "2", "3", "first"]


class TestCost:
    """A month of closed operations is in the way of nothing that is asked all the time."""

    @pytest.mark.parametrize(
        "question",
        [
            lambda book: book.promises(""),
            lambda book: book.open_operations(),
            lambda book: book.open_operations(attachment_id="att-1"),
            lambda book: book.open_operations(volume_id=VOLUMES[0]),
            lambda book: book.count_open(),
            lambda book: book.operation(operation_id(1)),
        ],
        ids=["promises", "open", "of attachment", "of volume", "count", "one"],
    )
    def test_closed_operations_cost_nothing(self, question: Callable[[Book], object]) -> None:
        def best_seconds(closed: int) -> float:
            with opened(None) as journal:
                journal.write(lambda book: book.add(record(1)))
                for number in range(closed):
                    row = record(number + 2, state="done", result={"text": "x" * 1000})
                    journal.write(lambda book, row=row: book.add(row))
                return min(timeit.repeat(lambda: journal.read(question), number=3, repeat=20))

        assert best_seconds(4000) < 8 * best_seconds(0)


class TestNoRoom:
    def test_a_file_that_may_not_grow(self, journal: Journal, tmp_path: Path) -> None:
        journal.write(letter("before"))
        with _files_at_most(_size(tmp_path) + 8192), pytest.raises(Unavailable) as caught:
            journal.write(letter("x" * 400_000))
        assert caught.value.retriable
        assert str(tmp_path) in caught.value.detail
        assert "make room on the disk" in caught.value.detail
        assert journal.read(letters) == ["before"]
        journal.write(letter("after"))
        assert journal.read(letters) == ["before", "after"]

    def test_everybody_in_the_group_is_told(self, journal: Journal, tmp_path: Path) -> None:
        told: list[str] = []

        def write(text: str) -> None:
            try:
                journal.write(letter(text))
            except Unavailable:
                told.append(text[:1])

        texts = [f"{number}" * 400_000 for number in range(4)]
        threads = [threading.Thread(target=write, args=(text,)) for text in texts]
        with (
            _files_at_most(_size(tmp_path) + 8192),
            _held_commit(journal, "x" * 400_000, raises=Unavailable) as release,
        ):
            for thread in threads:
                thread.start()
            release()
            for thread in threads:
                thread.join(ENOUGH_SECONDS)
        assert sorted(told) == ["0", "1", "2", "3"]
        assert journal.read(letters) == []

    def test_a_closed_journal_takes_nothing(self, tmp_path: Path) -> None:
        with opened(tmp_path) as journal:
            pass
        for late in (lambda: journal.write(letter("late")), lambda: journal.read(letters)):
            with pytest.raises(Unavailable, match="the agent is stopping"):
                late()

    def test_what_cannot_be_read_says_that_nothing_was_changed(self, journal: Journal) -> None:
        with pytest.raises(Unavailable, match="what was asked may be asked again"):
            journal.read(lambda book: book._db.execute("SELECT * FROM nothing"))

    @pytest.mark.real
    def test_a_full_disk(self, tmp_path: Path) -> None:
        """A file system of its own, in a mount namespace of its own."""
        program = (
            "import os, sys\n"
            "from pathlib import Path\n"
            "from agent.errors import Unavailable\n"
            "from tests.unit.journal.rows import letter, letters, opened\n"
            "place = Path(sys.argv[1])\n"
            "with opened(place) as journal:\n"
            "    journal.write(letter('before'))\n"
            "    filler = place / 'filler'\n"
            "    try:\n"
            "        filler.write_bytes(bytes(10 << 20))\n"
            "    except OSError:\n"
            "        pass\n"
            "    refused = 0\n"
            "    for _ in range(3):\n"
            "        try:\n"
            "            journal.write(letter('x' * 100_000))\n"
            "        except Unavailable as error:\n"
            "            refused += 1\n"
            "    assert refused == 3, refused\n"
            "    journal.scrub()\n"
            "    assert journal.read(letters) == ['before']\n"
            "    filler.unlink()\n"
            "    journal.write(letter('after'))\n"
            "    assert journal.scrub()\n"
            "with opened(place) as journal:\n"
            "    assert journal.read(letters) == ['before', 'after']\n"
        )
        mount = f'mount -t tmpfs -o size=600k none {tmp_path} && exec "$@"'
        subprocess.run(
            ["unshare", "-m", "sh", "-c", mount, "sh", sys.executable, "-c", program, tmp_path],
            check=True,
            cwd=ROOT,
        )


# setting the scene


def _refuse(book: Book, error: Exception) -> None:
    """Half done, then an error."""
    book.post("test", {"text": "half done"})
    raise error


def _writing(journal: Journal, text: str) -> Callable[[], None]:
    return lambda: journal.write(letter(text))


@contextmanager
def _held_commit(
    journal: Journal, text: str = "first", raises: type[Exception] | None = None
) -> Iterator[Callable[[], None]]:
    """A commit under way that ends when told; what comes meanwhile waits and is written after."""
    under_way, told, failed = threading.Event(), threading.Event(), []

    def slow(book: Book) -> None:
        under_way.set()
        assert told.wait(ENOUGH_SECONDS)
        book.post("test", {"text": text})

    def write() -> None:
        try:
            journal.write(slow)
        except Unavailable as error:
            failed.append(type(error))

    thread = threading.Thread(target=write)
    thread.start()
    assert under_way.wait(ENOUGH_SECONDS)
    yield told.set
    thread.join(ENOUGH_SECONDS)
    assert not thread.is_alive()
    assert failed == ([] if raises is None else [raises])


def _in_thread(work: Callable[[], object]) -> None:
    thread = threading.Thread(target=work)
    thread.start()
    thread.join(ENOUGH_SECONDS)
    assert not thread.is_alive()


@contextmanager
def _files_at_most(size_bytes: int) -> Iterator[None]:
    """No file of this process may be written beyond that; a write there fails with EFBIG."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, before)


def _size(directory: Path) -> int:
    return max(path.stat().st_size for path in directory.iterdir())


def _commits(log: Path) -> int:
    """How many transactions the write-ahead log holds (sqlite.org/fileformat2.html, 4.1): the
    last frame of each gives the size of the database after it, the others 0."""
    content = log.read_bytes()
    page_size, _, salt = struct.unpack(">II8s", content[8:24])
    frames = range(32, len(content), 24 + page_size)
    headers = [struct.unpack(">II8s", content[at : at + 16]) for at in frames]
    return sum(1 for _, size, own in headers if size and own == salt)
