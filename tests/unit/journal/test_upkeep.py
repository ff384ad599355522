"""What is old goes, what has ended is in no file, and nobody waits for a disk that is silent."""

import logging
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from agent.journal.book import Book
from agent.journal.store import FILE_NAME, Journal
from agent.journal.upkeep import PRUNE_EVERY_SECONDS, Upkeep
from tests.unit.journal.rows import StoppedClock, letter, opened, operation_id, record

LOG_NAME = f"{FILE_NAME}-wal"

ENOUGH_SECONDS = 60

DAY = 86400.0


def test_what_closed_before_the_retention_goes_once_an_hour(tmp_path: Path) -> None:
    clock = StoppedClock(100 * DAY)
    with opened(tmp_path, clock) as journal:
        upkeep = Upkeep(journal, clock, retention_seconds=DAY)
        for number, age in ((1, 2 * DAY), (2, DAY - PRUNE_EVERY_SECONDS * 3 / 2), (3, 0.0)):
            row = record(number, state="done", updated_at=clock.time - age, not_after=0.0)
            journal.write(lambda book, row=row: book.add(row))

        def left() -> list[str]:
            return [row.operation_id for row in journal.read(lambda book: book.operations())]

        upkeep.turn()
        assert left() == [operation_id(1), operation_id(2), operation_id(3)]
        clock.time += PRUNE_EVERY_SECONDS
        upkeep.turn()
        assert left() == [operation_id(2), operation_id(3)]
        clock.time += PRUNE_EVERY_SECONDS * 0.9
        upkeep.turn()
        assert left() == [operation_id(2), operation_id(3)]
        clock.time += PRUNE_EVERY_SECONDS * 0.1
        upkeep.turn()
        assert left() == [operation_id(3)]


@pytest.mark.parametrize("days", [60, -60])
def test_a_clock_that_was_wrong_for_a_while_makes_nothing_old(tmp_path: Path, days: int) -> None:
    """As at the boot of a host, until the network tells the time."""
    clock = StoppedClock(100 * DAY)
    with opened(tmp_path, clock) as journal:
        journal.write(lambda book: book.add(record(1, updated_at=clock.now())))
        clock.ahead = days * DAY
        upkeep = Upkeep(journal, clock, retention_seconds=30 * DAY)
        journal.write(lambda book: book.save(record(1, state="done", updated_at=clock.now())))
        upkeep.turn()
        clock.ahead = 0.0
        for _ in range(3):
            clock.time += PRUNE_EVERY_SECONDS
            upkeep.turn()
        assert journal.read(lambda book: book.operation(operation_id(1))) is not None


def test_an_hour_in_which_the_clock_was_set_drops_nothing(tmp_path: Path) -> None:
    """It may be wrong now, and set right in the next."""
    clock = StoppedClock(100 * DAY)
    with opened(tmp_path, clock) as journal:
        row = record(1, state="done", updated_at=clock.now())
        journal.write(lambda book: book.add(row))
        upkeep = Upkeep(journal, clock, retention_seconds=30 * DAY)
        clock.time += PRUNE_EVERY_SECONDS
        clock.ahead = 60 * DAY
        upkeep.turn()
        assert journal.read(lambda book: book.operation(operation_id(1))) is not None


def test_each_turn_empties_the_log(tmp_path: Path) -> None:
    clock = StoppedClock()
    with opened(tmp_path, clock) as journal:
        upkeep = Upkeep(journal, clock, retention_seconds=DAY)
        for text in ("one", "two"):
            journal.write(letter(text))
            assert (tmp_path / LOG_NAME).stat().st_size > 0
            upkeep.turn()
            assert (tmp_path / LOG_NAME).stat().st_size == 0


def test_a_journal_that_is_closed_stops_no_thread(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    clock = StoppedClock(100 * DAY)
    with opened(tmp_path, clock) as journal:
        upkeep = Upkeep(journal, clock, retention_seconds=DAY)
        journal.write(letter("one"))
    clock.time += PRUNE_EVERY_SECONDS
    with caplog.at_level(logging.ERROR):
        upkeep.turn()
    assert "old operations stay in the journal" in caplog.text
    assert not journal.scrub()


def test_a_disk_that_does_not_answer_is_seen_by_who_does_not_wait_for_it(tmp_path: Path) -> None:
    with opened(tmp_path) as journal:
        assert journal.silent_seconds() == 0
        with locked(tmp_path):
            writer = threading.Thread(target=journal.write, args=(letter("late"),))
            writer.start()
            pause = threading.Event()
            while not journal.silent_seconds():
                pause.wait(0.01)
            first = journal.silent_seconds()
            pause.wait(0.05)
            assert journal.silent_seconds() > first > 0
        writer.join(ENOUGH_SECONDS)
        assert journal.silent_seconds() == 0


def test_a_disk_that_does_not_answer_keeps_nobody_from_the_end(tmp_path: Path) -> None:
    journal = Journal(tmp_path, StoppedClock())
    asked, answers = threading.Event(), threading.Event()

    def hangs(_book: Book) -> None:
        asked.set()
        assert answers.wait(ENOUGH_SECONDS)

    writer = threading.Thread(target=journal.write, args=(hangs,))
    writer.start()
    assert asked.wait(ENOUGH_SECONDS)
    assert not journal.close(within_seconds=0.05)
    answers.set()
    writer.join(ENOUGH_SECONDS)
    assert journal.close()
    with opened(tmp_path):
        pass


@contextmanager
def locked(directory: Path) -> Iterator[None]:
    """Another process has the file, as a disk that hangs would."""
    with closing(sqlite3.connect(directory / FILE_NAME, isolation_level=None)) as db:
        db.execute("BEGIN IMMEDIATE")
        yield
        db.execute("ROLLBACK")
