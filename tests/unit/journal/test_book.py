"""What the rows say: operations, attachments, promises, fences, retention."""

import sqlite3
from collections.abc import Iterator
from typing import Any

import pytest

from agent.journal.book import Book
from agent.journal.record import Fence, Record
from agent.journal.store import Journal
from agent.model.outcome import Problem
from tests.samples import INSTANCES, VOLUMES
from tests.unit.journal.rows import device, held, opened, operation_id, part, record


@pytest.fixture
def journal() -> Iterator[Journal]:
    with opened(None) as journal:
        yield journal


class TestOperations:
    def test_what_was_written_is_read_again(self, journal: Journal) -> None:
        trouble = Problem(code="connect-failed", retriable=True, detail="no portal answered")
        asked = record(
            state="unsettled",
            direction="undoing",
            known={"undo_from": 1},
            parts=(part(1, generation=3, known={"device": device().reveal()}), part(2)),
            subjects=("att-1", "att-2"),
            deadline_at=500.0,
            cause=trouble,
            trouble=trouble,
            warnings=("cache: forced to none",),
        )
        added = journal.write(lambda book: book.add(asked))
        assert added == asked.but(sequence=1)
        assert journal.read(lambda book: book.operation(asked.operation_id)) == added

    def test_open_ones_come_in_the_order_of_acceptance(self, journal: Journal) -> None:
        for number in (3, 1, 2):
            journal.write(lambda book, number=number: book.add(record(number)))
        journal.write(lambda book: book.save(record(1, state="done")))
        found = journal.read(lambda book: book.open_operations())
        assert [row.operation_id for row in found] == [operation_id(3), operation_id(2)]
        assert journal.read(lambda book: book.count_open()) == 2
        assert len(journal.read(lambda book: book.operations())) == 3

    def test_one_on_an_instance_that_has_no_volume_is_of_it(self, journal: Journal) -> None:
        """As a migrate of it is, with no parts."""
        bare = record(1).but(verb="migrate", parts=(), steps=("move-instance",), commit=0)
        for row in (bare, record(2, parts=(part(2, instance_id=INSTANCES[1]),))):
            journal.write(lambda book, row=row: book.add(row))

        def numbers(**wanted: str | bool) -> list[str]:
            found = journal.read(lambda book: book.operations(**wanted))
            return [row.operation_id for row in found]

        assert numbers(instance_id=INSTANCES[0]) == [bare.operation_id]
        assert numbers(instance_id=INSTANCES[0], open=True) == [bare.operation_id]
        assert numbers(instance_id=INSTANCES[0], open=False) == []
        assert numbers(instance_id=INSTANCES[0], attachment_id="att-2") == []

    def test_open_ones_of_an_attachment_or_a_volume(self, journal: Journal) -> None:
        gone = part(3).but(attachment=None, volume_id=None, role="leaves")
        both = (part(4), part(5, volume_id=VOLUMES[2]))
        for row in (
            record(1),
            record(2, parts=(part(2, volume_id=VOLUMES[1]),)),
            record(3, verb="detach", parts=(gone,)),
            record(4, parts=both),
        ):
            journal.write(lambda book, row=row: book.add(row))

        def numbers(**wanted: str) -> list[int]:
            found = journal.read(lambda book: book.open_operations(**wanted))
            return [row.sequence for row in found]

        assert numbers(attachment_id="att-1") == [1]
        assert numbers(volume_id=VOLUMES[1]) == [2]
        assert numbers(attachment_id="att-3") == [3]
        assert numbers(attachment_id="att-5") == [4]
        assert numbers(volume_id=VOLUMES[0]) == [1, 4]
        assert numbers(volume_id=VOLUMES[2]) == [4]
        assert numbers(attachment_id="att-4", volume_id=VOLUMES[2]) == [], "of one part"
        assert numbers(attachment_id="att-1", volume_id=VOLUMES[1]) == []

    @pytest.mark.parametrize(
        ("wanted", "found"),
        [
            ({}, [1, 2, 3]),
            ({"open": True}, [1, 2]),
            ({"open": False}, [3]),
            ({"operation_id": operation_id(2)}, [2]),
            ({"attachment_id": "att-3"}, [3]),
            ({"instance_id": INSTANCES[1]}, [2]),
            ({"volume_id": VOLUMES[0]}, [1, 3]),
            ({"volume_id": VOLUMES[0], "open": True}, [1]),
            ({"state": "done"}, [3]),
            ({"migration_id": "trip-1"}, [2]),
            ({"before": 3}, [1, 2]),
            ({"limit": 2}, [2, 3]),
            ({"before": 3, "limit": 1}, [2]),
            ({"volume_id": VOLUMES[0], "before": 3, "limit": 2}, [1]),
            ({"limit": 0}, []),
        ],
    )
    def test_all_that_match(
        self, journal: Journal, wanted: dict[str, Any], found: list[int]
    ) -> None:
        other = part(2, volume_id=VOLUMES[1], instance_id=INSTANCES[1])
        trip = {"migration_id": "trip-1"}
        for row in (record(1), record(2, parts=(other,), known=trip), record(3, state="done")):
            journal.write(lambda book, row=row: book.add(row))
        matching = journal.read(lambda book: book.operations(**wanted))
        assert [row.sequence for row in matching] == found

    def test_a_wish_to_cancel_outlives_later_saves(self, journal: Journal) -> None:
        journal.write(lambda book: book.add(record()))
        journal.write(lambda book: book.cancel(operation_id(1)))
        journal.write(lambda book: book.save(record(position=1)))
        found = journal.read(lambda book: book.operation(operation_id(1)))
        assert found is not None
        assert (found.cancel_wanted, found.position) == (True, 1)

    def test_an_operation_is_accepted_once(self, journal: Journal) -> None:
        journal.write(lambda book: book.add(record()))
        with pytest.raises(sqlite3.IntegrityError):
            journal.write(lambda book: book.add(record()))
        assert len(journal.read(lambda book: book.operations())) == 1

    def test_a_closed_one_keeps_its_answer_and_loses_its_attachments(
        self, journal: Journal
    ) -> None:
        two = record(parts=(part(1), part(2)))
        journal.write(lambda book: book.add(two))
        done = two.but(state="done", direction="committed", result={"disk": None})
        journal.write(lambda book: book.save(done))
        found = journal.read(lambda book: book.operation(operation_id(1)))
        assert found is not None
        assert found.answer() == done.answer()
        assert [part.attachment for part in found.parts] == [None, None]
        assert found.volume_ids == (VOLUMES[0],)


class TestAttachments:
    def test_what_was_kept_is_read_again(self, journal: Journal) -> None:
        journal.write(lambda book: book.keep(held()))
        assert journal.read(lambda book: book.attachment("att-1")) == held()
        assert journal.read(lambda book: book.attachments()) == [held()]

    def test_those_of_one_volume(self, journal: Journal) -> None:
        for number, volume_id in ((1, VOLUMES[0]), (2, VOLUMES[1]), (3, VOLUMES[0])):
            row = held(number, volume_id=volume_id)
            journal.write(lambda book, row=row: book.keep(row))
        found = journal.read(lambda book: book.attachments(volume_id=VOLUMES[0]))
        assert found == [held(1), held(3)]

    def test_a_dropped_one_is_unknown(self, journal: Journal) -> None:
        journal.write(lambda book: book.keep(held()))
        journal.write(lambda book: book.drop("att-1"))
        assert journal.read(lambda book: book.attachment("att-1")) is None

    def test_the_device_is_known_until_it_ends(self, journal: Journal) -> None:
        journal.write(lambda book: book.keep(held()))
        journal.withdraw("att-1")
        assert journal.device_of("att-1") == device()
        assert journal.device_of("att-2") is None


class TestPromises:
    def test_attachments_and_operations_that_promise_count(self, journal: Journal) -> None:
        journal.write(lambda book: book.keep(held(1, multiattach=True)))
        connected = record(2, parts=(part(2, known={"device": device(2).reveal()}),))
        journal.write(lambda book: book.add(connected))
        first, second = journal.promises(besides="")
        assert (first.attachment_id, first.operation_id, first.multiattach) == ("att-1", None, True)
        assert (second.attachment_id, second.operation_id) == ("att-2", operation_id(2))
        assert (first.device, second.device) == (device(1), device(2))
        assert (first.volume_id, first.instance_id) == (VOLUMES[0], INSTANCES[0])
        assert second.multiattach is False

    def test_the_one_that_asks_does_not_count(self, journal: Journal) -> None:
        journal.write(lambda book: book.add(record()))
        assert journal.promises(besides=operation_id(1)) == []

    @pytest.mark.parametrize(
        "gone",
        [record().but_parts(promised=False), record(state="undone"), record(state="done")],
        ids=["withdrawn", "undone", "done"],
    )
    def test_these_do_not_count(self, journal: Journal, gone: Record) -> None:
        journal.write(lambda book: book.add(record()))
        journal.write(lambda book: book.save(gone))
        assert journal.promises(besides="") == []

    def test_of_several_those_count_that_promise(self, journal: Journal) -> None:
        two = record(parts=(part(1).but(promised=False), part(2)))
        journal.write(lambda book: book.add(two))
        assert [promise.attachment_id for promise in journal.promises(besides="")] == ["att-2"]

    def test_a_withdrawn_attachment_does_not_count(self, journal: Journal) -> None:
        journal.write(lambda book: book.keep(held()))
        journal.withdraw("att-1")
        assert journal.promises(besides="") == []

    def test_an_attach_of_what_is_there_promises_again(self, journal: Journal) -> None:
        journal.write(lambda book: book.keep(held()))
        journal.withdraw("att-1")
        journal.write(lambda book: book.keep(held()))
        assert [promise.attachment_id for promise in journal.promises(besides="")] == ["att-1"]


class TestVolumes:
    def presence(self, journal: Journal) -> tuple[bool, bool, bool]:
        found = journal.presence(VOLUMES[0])
        return found.connected, found.awaiting_unmap, found.device is not None

    def test_of_what_it_never_heard_nothing_is_claimed(self, journal: Journal) -> None:
        assert self.presence(journal) == (True, False, False)

    def test_from_the_intent_to_connect_until_the_disconnect(self, journal: Journal) -> None:
        asked = journal.write(lambda book: book.add(record().but_parts(promised=False)))
        assert self.presence(journal) == (False, False, False)
        journal.write(lambda book: book.save(asked.but_parts(promised=True)))
        assert self.presence(journal) == (True, False, False)
        connected = asked.but_parts(promised=True, known={"device": device().reveal()})
        journal.write(lambda book: book.save(connected))
        assert self.presence(journal) == (True, False, True)
        journal.write(
            lambda book: book.save(connected.but_parts(promised=False).but(state="undone"))
        )
        assert self.presence(journal) == (True, False, True)
        journal.disconnected(VOLUMES[0])
        assert self.presence(journal) == (False, False, False)

    def test_who_asks_for_a_detach_says_that_it_may_be_here(self, journal: Journal) -> None:
        journal.write(
            lambda book: book.add(record(parts=(part().but(promised=False, role="leaves"),)))
        )
        assert self.presence(journal) == (True, False, False)

    @pytest.mark.parametrize("who", ["an attachment", "an operation"])
    def test_a_promise_that_came_meanwhile_keeps_it_here(self, journal: Journal, who: str) -> None:
        if who == "an attachment":
            journal.write(lambda book: book.keep(held()))
        else:
            journal.write(lambda book: book.add(record()))
        journal.disconnected(VOLUMES[0])
        assert self.presence(journal)[0] is True

    def test_what_awaits_its_unmapping_keeps_its_device(self, journal: Journal) -> None:
        journal.write(lambda book: book.keep(held()))
        journal.write(lambda book: book.drop("att-1"))
        journal.disconnected(VOLUMES[0])
        journal.leave_behind(VOLUMES[0], device())
        assert self.presence(journal) == (False, True, True)
        journal.reclaim(VOLUMES[0])
        assert self.presence(journal) == (False, False, False)

    @pytest.mark.parametrize(("is_here", "is_known"), [(False, False), (True, True)])
    def test_it_is_forgotten_with_its_last_fence_unless_it_is_here(
        self, journal: Journal, is_here: bool, is_known: bool
    ) -> None:
        journal.write(lambda book: book.add(record(state="undone").but_parts(promised=is_here)))
        journal.write(lambda book: book.keep(held()) if is_here else None)
        journal.write(lambda book: book.drop("att-1"))

        def rows(book: Book) -> int:
            return len(book._db.execute("SELECT * FROM volumes").fetchall())

        journal.write(
            lambda book: book.raise_fence(
                "att-1", newest=None, detached=None, now=300.0, volume_id=VOLUMES[0]
            )
        )
        journal.write(lambda book: book.prune(200.0, now=9e9))
        assert journal.read(rows) == 1
        journal.write(lambda book: book.prune(400.0, now=9e9))
        assert journal.read(rows) == is_known


class TestFences:
    def test_never_seen_is_told_from_never_numbered(self, journal: Journal) -> None:
        _raise_fence(journal, "att-1", newest=None)
        assert journal.read(lambda book: book.fence("att-1")) == Fence(None, None)
        assert journal.read(lambda book: book.fence("att-2")) is None

    def test_a_fence_is_never_lowered(self, journal: Journal) -> None:
        _raise_fence(journal, "att-1", newest=5, detached=4)
        _raise_fence(journal, "att-1", newest=2, detached=None)
        _raise_fence(journal, "att-1", newest=None, detached=0)
        assert journal.read(lambda book: book.fence("att-1")) == Fence(5, 4)

    def test_generation_zero_is_a_generation(self, journal: Journal) -> None:
        _raise_fence(journal, "att-1", newest=0)
        assert journal.read(lambda book: book.fence("att-1")) == Fence(0, None)


class TestRetention:
    """Everything below was written at 100; what closed before 200 is dropped."""

    def prune(self, journal: Journal) -> int:
        return journal.write(lambda book: book.prune(200.0, now=9e9))

    def test_closed_ones_go_and_open_ones_stay(self, journal: Journal) -> None:
        for number, state in ((1, "done"), (2, "running"), (3, "unsettled"), (4, "undone")):
            row = record(number, state=state)
            journal.write(lambda book, row=row: book.add(row))
        assert self.prune(journal) == 2
        left = journal.read(lambda book: book.operations())
        assert [row.operation_id for row in left] == [operation_id(2), operation_id(3)]

    def test_what_may_be_sent_again_stays(self, journal: Journal) -> None:
        """The retention time was longer when it was accepted."""
        journal.write(lambda book: book.add(record(state="done", not_after=500.0)))
        assert journal.write(lambda book: book.prune(200.0, now=400.0)) == 0
        assert journal.write(lambda book: book.prune(200.0, now=600.0)) == 1

    def test_what_closed_lately_stays(self, journal: Journal) -> None:
        journal.write(lambda book: book.add(record(state="done", updated_at=200.0)))
        assert self.prune(journal) == 0

    def test_a_fence_goes_with_the_last_that_needs_it(self, journal: Journal) -> None:
        _raise_fence(journal, "att-1", newest=1)
        self.prune(journal)
        assert journal.read(lambda book: book.fence("att-1")) is None

    def test_a_fence_outlives_an_attachment(self, journal: Journal) -> None:
        _raise_fence(journal, "att-1", newest=1)
        journal.write(lambda book: book.keep(held()))
        self.prune(journal)
        assert journal.read(lambda book: book.fence("att-1")) == Fence(1, None)

    @pytest.mark.parametrize("state", ["waiting", "unsettled"])
    def test_a_fence_outlives_an_open_operation(self, journal: Journal, state: str) -> None:
        _raise_fence(journal, "att-1", newest=1, detached=1)
        journal.write(lambda book: book.add(record(verb="detach", state=state)))
        self.prune(journal)
        assert journal.read(lambda book: book.fence("att-1")) == Fence(1, 1)

    def test_a_fence_is_as_old_as_its_last_use(self, journal: Journal) -> None:
        _raise_fence(journal, "att-1", newest=1)
        _raise_fence(journal, "att-1", newest=1, now=250.0)
        self.prune(journal)
        assert journal.read(lambda book: book.fence("att-1")) == Fence(1, None)


class TestQuarantine:
    def test_until_it_is_released(self, journal: Journal) -> None:
        journal.quarantine(VOLUMES[0], device(), "wwn is 0x2, expected 0x1")
        assert journal.quarantined(VOLUMES[0]) == "wwn is 0x2, expected 0x1"
        assert journal.quarantined(VOLUMES[1]) is None
        (row,) = journal.read(lambda book: book.quarantined()).values()
        assert (row["device"]["path"], row["at"]) == (device().path, 1000.0)
        assert journal.write(lambda book: book.release(VOLUMES[0])) is True
        assert journal.write(lambda book: book.release(VOLUMES[0])) is False
        assert journal.quarantined(VOLUMES[0]) is None


class TestOutbox:
    def test_oldest_first_until_posted(self, journal: Journal) -> None:
        for text in ("one", "two", "three"):
            journal.write(lambda book, text=text: book.post("test", {"text": text}))
        first = journal.read(lambda book: book.letters(2))
        assert first == [
            (1, "test", {"text": "one", "sequence": 1}),
            (2, "test", {"text": "two", "sequence": 2}),
        ]
        journal.write(lambda book: book.posted(2))
        assert [row[0] for row in journal.read(lambda book: book.letters(9))] == [3]

    def test_a_sequence_is_never_used_twice(self, journal: Journal) -> None:
        journal.write(lambda book: book.post("test", {}))
        journal.write(lambda book: book.posted(1))
        journal.write(lambda book: book.post("test", {}))
        assert [row[0] for row in journal.read(lambda book: book.letters(9))] == [2]


def _raise_fence(
    journal: Journal,
    attachment_id: str,
    *,
    newest: int | None,
    detached: int | None = None,
    now: float = 100.0,
) -> None:
    journal.write(
        lambda book: book.raise_fence(attachment_id, newest=newest, detached=detached, now=now)
    )
