"""What guests' disks could not read or write: told of the attachment, counted, never in a flood."""

from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import replace
from typing import Any

import pytest

from agent.errors import Internal, Unavailable
from agent.model.io_error import IoError
from agent.service.audit import audit
from agent.service.io_errors import IO_ERROR, TELL_AGAIN_SECONDS, IoErrors
from agent.service.metrics import Metrics
from tests.unit.saga.stories import ONE, SHARED, TWO, host, meanwhile, shared
from tests.world.story import VOLUMES, attach, attached, detach, request_id
from tests.world.world import World


@pytest.fixture
def world() -> Iterator[World]:
    made = World()
    made.start()
    yield made
    made.close()


class Ear:
    def __init__(self, world: World) -> None:
        self.world = world
        self.metrics = Metrics(world.journal, world.clock, {}, lambda: 0, lambda: 0)
        self.errors = IoErrors(world.host, world.journal, self.metrics.io_errors)
        self.read = len(world.letters())

    def hears(self, alias: str, times: int = 1, *, instance: str = ONE, **what: Any) -> bool:
        error = IoError(instance_id=instance, alias=alias, **{"action": "report", **what})
        return [self.errors.heard(error) for _ in range(times)][-1]

    def tells(self) -> list[dict[str, Any]]:
        self.errors.look()
        letters = self.world.letters()[self.read :]
        self.read += len(letters)
        return letters

    def listed(self) -> list[Any]:
        rows = self.world.agent.query("list_attachments", {"filters": {}})["attachments"]
        return [row["io_errors"] for row in rows]

    def counted(self) -> dict[str, float]:
        (metric,) = self.metrics._io_errors.collect()
        return {
            sample.labels["action"]: sample.value
            for sample in metric.samples
            if sample.name.endswith("_total")
        }


def test_an_error_is_told_of_its_attachment_alone(world: World) -> None:
    shared(world)
    ear = Ear(world)
    assert ear.hears("ua-att-2", instance=TWO)
    (letter,) = ear.tells()
    assert letter["event_type"] == IO_ERROR
    assert letter["attachment_ids"] == ["att-2"]
    assert (letter["instance_id"], letter["volume_ids"]) == (TWO, [VOLUMES[0]])
    assert (letter["action"], letter["reason"], letter["errors"]) == ("report", None, 1)
    assert letter["operation_id"] is None
    first, second, third = ear.listed()
    assert (first, third) == (None, None)
    assert second["errors"] == 1
    assert ear.counted() == {"report": 1}


def test_a_flood_is_one_notification_in_its_time(world: World) -> None:
    host()(world)
    attached(world)
    ear = Ear(world)
    assert ear.hears("ua-att-1")
    assert [letter["errors"] for letter in ear.tells()] == [1]
    for _ in range(3):
        world.clock.seconds += TELL_AGAIN_SECONDS / 4
        assert not ear.hears("ua-att-1", 1000, reason="enospc")
        assert ear.tells() == []
    world.clock.seconds += TELL_AGAIN_SECONDS / 4
    (letter,) = ear.tells()
    assert (letter["errors"], letter["reason"]) == (3000, "enospc")
    assert letter["first_at"] < letter["last_at"]
    [listed] = ear.listed()
    assert (listed["errors"], listed["last_at"]) == (3001, letter["last_at"])
    assert ear.counted() == {"report": 3001}
    world.clock.seconds += TELL_AGAIN_SECONDS
    assert ear.tells() == []


def test_a_clock_that_is_set_back_keeps_nothing_secret(world: World) -> None:
    host()(world)
    attached(world)
    ear = Ear(world)
    ear.hears("ua-att-1")
    assert len(ear.tells()) == 1
    world.clock.set_back(10 * TELL_AGAIN_SECONDS)
    world.clock.seconds += TELL_AGAIN_SECONDS
    assert ear.hears("ua-att-1")


def test_one_disk_that_floods_does_not_silence_another(world: World) -> None:
    shared(world)
    ear = Ear(world)
    ear.hears("ua-att-1", 500)
    assert len(ear.tells()) == 1
    ear.hears("ua-att-1", 500)
    assert ear.hears("ua-att-3")
    assert [letter["attachment_ids"] for letter in ear.tells()] == [["att-3"]]


@pytest.mark.parametrize("alias", ["ua-att-9", "virtio-disk0"])
def test_a_disk_that_is_not_ours_is_nobodys_business(world: World, alias: str) -> None:
    host()(world)
    attached(world)
    ear = Ear(world)
    ear.hears(alias)
    ear.hears("ua-att-1", instance=TWO)
    assert ear.tells() == []
    assert ear.counted() == {}
    assert ear.listed() == [None]


def test_a_disk_that_fails_before_its_attach_is_done_is_told_too(world: World) -> None:
    host()(world)
    ear = Ear(world)
    told: list[str] = []

    def fail(world: World) -> None:
        ear.hears("ua-att-1")
        told.extend(letter["event_type"] for letter in ear.tells())

    meanwhile("after plug", fail)(world)
    attach(1)(world)
    world.run()
    assert world.record(request_id(1)).state == "done"
    assert IO_ERROR in told


def test_what_the_journal_did_not_take_is_told_later(world: World) -> None:
    host()(world)
    attached(world)
    ear = Ear(world)
    ear.hears("ua-att-1", 2)
    world.instants.faults[len(world.instants.passed)] = "unavailable"
    with pytest.raises(Unavailable, match="the journal"):
        ear.tells()
    ear.hears("ua-att-1")
    assert [letter["errors"] for letter in ear.tells()] == [3]


def test_a_guest_that_qemu_has_paused_is_found_by_the_audit(world: World) -> None:
    host()(world)
    attached(world, **SHARED, disk={"error_policy": "stop"})
    world.domains.guests[ONE].is_paused = True
    assert audit(world.host, world.journal)["findings"] == []
    ear = Ear(world)
    ear.hears("ua-att-1", action="stop")
    ear.tells()
    [finding] = audit(world.host, world.journal)["findings"]
    assert finding["kind"] == "paused-by-io-error"
    assert "virsh resume guest-1" in finding["advice"]
    world.domains.guests[ONE].is_paused = False
    assert audit(world.host, world.journal)["findings"] == []


def test_a_guest_that_was_paused_while_nobody_listened_is_told_once(world: World) -> None:
    shared(world)
    guest, ear = world.domains.guests[ONE], Ear(world)
    guest.is_paused, guest.errors = True, {"vda": "enospc"}
    assert ear.tells() == []
    for letters in (1, 0):
        ear.errors.connected()
        told = ear.tells()
        assert len(told) == letters
        for letter in told:
            assert letter["attachment_ids"] == ["att-1"]
            assert (letter["action"], letter["reason"]) == ("stop", "enospc")
        world.clock.seconds += TELL_AGAIN_SECONDS
    [finding] = audit(world.host, world.journal)["findings"]
    assert (finding["kind"], finding["attachment_id"]) == ("paused-by-io-error", "att-1")


def test_who_is_paused_while_libvirt_is_lost_once_more_is_told(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    shared(world)
    guest, ear, look = world.domains.guests[ONE], Ear(world), world.domains.look

    def look_and_lose(instance_id: str) -> Any:
        found = look(instance_id)
        if instance_id == TWO:
            guest.is_paused, guest.errors = True, {"vda": "enospc"}
            ear.errors.connected()
        return found

    ear.errors.connected()
    monkeypatch.setattr(world.domains, "look", look_and_lose)
    assert ear.tells() == []
    monkeypatch.undo()
    assert [letter["attachment_ids"] for letter in ear.tells()] == [["att-1"]]


def test_a_guest_that_somebody_else_has_paused_is_not(world: World) -> None:
    shared(world)
    world.domains.guests[ONE].is_paused = True
    ear = Ear(world)
    ear.errors.connected()
    assert ear.tells() == []


def test_what_could_not_be_asked_is_asked_later(world: World) -> None:
    shared(world)
    guest, ear = world.domains.guests[ONE], Ear(world)
    guest.is_paused, guest.errors = True, {"vda": None}
    ear.errors.connected()
    world.domains.is_away = True
    with pytest.raises(Unavailable):
        ear.tells()
    world.domains.is_away = False
    assert len(ear.tells()) == 1


@pytest.mark.parametrize("job", [None, "incoming migration"])
def test_a_paused_guest_that_does_not_answer_silences_nobody(
    world: World, monkeypatch: pytest.MonkeyPatch, job: str | None
) -> None:
    shared(world)
    for instance_id in (ONE, TWO):
        world.domains.guests[instance_id].is_paused = True
        world.domains.guests[instance_id].errors = {"vda": None}
    ask, look = world.domains.disk_errors, world.domains.look

    def hangs(instance_id: str) -> Any:
        if instance_id == ONE:
            raise Unavailable("libvirt", "QEMU is stuck")
        return ask(instance_id)

    def with_job(instance_id: str) -> Any:
        found = look(instance_id)
        return found and replace(found, job=job if instance_id == ONE else found.job)

    ear = Ear(world)
    ear.errors.connected()
    with monkeypatch.context() as patch:
        patch.setattr(world.domains, "disk_errors", hangs)
        patch.setattr(world.domains, "look", with_job)
        with nullcontext() if job else pytest.raises(Unavailable):
            ear.errors.look()
    assert sorted(letter["instance_id"] for letter in ear.tells()) == [ONE, TWO]


def test_what_nobody_foresaw_loses_nothing(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    shared(world)
    guest, ear = world.domains.guests[ONE], Ear(world)
    guest.is_paused, guest.errors = True, {"vda": None}
    ear.errors.connected()
    for broken in (world.domains, "disk_errors"), (world.journal, "write"):
        with monkeypatch.context() as patch:
            patch.setattr(*broken, lambda *_: 1 / 0)
            with pytest.raises(Internal):
                ear.tells()
    assert len(ear.tells()) == 1


def test_what_was_counted_outlives_the_agent_and_ends_with_the_attachment(world: World) -> None:
    host()(world)
    attached(world)
    ear = Ear(world)
    ear.hears("ua-att-1")
    ear.tells()
    world.die()
    world.start()
    rows = world.agent.query("list_attachments", {"filters": {}})["attachments"]
    assert [row["io_errors"]["errors"] for row in rows] == [1]
    detach(1)(world)
    world.run()
    attach(2)(world)
    world.run()
    rows = world.agent.query("list_attachments", {"filters": {}})["attachments"]
    assert [row["io_errors"] for row in rows] == [None]
