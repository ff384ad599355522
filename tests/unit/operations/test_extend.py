"""extend, from the request to the answer."""

from typing import Any

import pytest

from tests.unit.operations.asking import ask, refused
from tests.unit.saga.stories import ONE, SHARED, TWO, away, back, device_stays
from tests.unit.saga.stories_of_changes import GIB, grown
from tests.unit.saga.stories_of_networks import own_disk, shown_to_guest
from tests.world.story import (
    VOLUMES,
    attach,
    attached,
    attachment,
    detach,
    extend,
    request_id,
)
from tests.world.world import World


@pytest.fixture
def two(world: World) -> World:
    """Two guests have volume 1."""
    world.domains.add(TWO)
    attached(world, 1, **SHARED)
    attached(world, 2, instance=2, **SHARED)
    return world


class TestRequest:
    @pytest.mark.parametrize("size_bytes", [0, -512, 2 * GIB + 1, "2147483648", None, 1.5])
    def test_a_size_is_a_number_of_whole_sectors(self, world: World, size_bytes: Any) -> None:
        attached(world)
        code, detail = refused(world, extend(1, size_bytes))
        assert (code, "size_bytes" in detail) == ("invalid", True)

    def test_a_volume_that_was_never_here(self, world: World) -> None:
        code, detail = refused(world, extend(1, 2 * GIB))
        assert code == "unknown-attachment"
        assert "attached nowhere nothing is to be done" in detail

    def test_a_volume_that_has_left(self, world: World) -> None:
        attached(world)
        ask(world, detach(1))
        assert refused(world, extend(2, 2 * GIB))[0] == "unknown-attachment"

    def test_less_than_there_is_names_both_sizes(self, world: World) -> None:
        attached(world)
        code, detail = refused(world, extend(1, GIB // 2))
        assert code == "invalid"
        assert str(GIB) in detail
        assert str(GIB // 2) in detail

    def test_what_the_request_said_counts_and_not_what_an_array_rounds_up(
        self, world: World
    ) -> None:
        """The same size is sent again, and is no shrinking."""
        attached(world)
        grown(2 * GIB + (64 << 20))(world)
        for number in (1, 2):
            (row,) = ask(world, extend(number, 2 * GIB))["result"]
            assert row["device_size_bytes"] == 2 * GIB + (64 << 20)
        assert refused(world, extend(3, 2 * GIB - 512))[0] == "invalid"

    def test_less_than_an_extend_that_waits(self, world: World) -> None:
        attached(world)
        grown(3 * GIB)(world)
        away(world)
        extend(1, 3 * GIB).send(world)
        world.run()
        code, detail = refused(world, extend(2, 2 * GIB))
        assert (code, request_id(1) in detail) == ("stale", True)

    def test_another_protocol_than_it_is_attached_by(self, world: World) -> None:
        attached(world)
        other = {"driver_volume_type": "local", "data": {"device_path": "/dev/vg/volume-1"}}
        code, detail = refused(world, extend(1, 2 * GIB, connection_info=other))
        assert (code, "driver_volume_type" in detail) == ("invalid", True)

    def test_what_does_not_fit_the_attachment_is_refused_and_the_journal_stays_readable(
        self, world: World
    ) -> None:
        attached(world)
        info = attachment()["connection_info"]
        info = {**info, "data": {**info["data"], "encrypted": True}}
        code, detail = refused(world, extend(1, 2 * GIB, connection_info=info))
        assert (code, "encryption is missing" in detail) == ("invalid", True)
        assert ask(world, detach(2))["state"] == "done"

    def test_this_host_need_not_reach_what_its_guests_reach_by_themselves(
        self, world: World
    ) -> None:
        shown_to_guest(1)(world)
        attached(world, **own_disk(1))
        world.storage.lacks = "iscsiadm"
        info = attachment()["connection_info"]
        assert ask(world, extend(1, GIB, connection_info=info))["state"] == "done"

    def test_what_this_host_cannot_reach_is_refused(self, world: World) -> None:
        attached(world)
        world.storage.lacks = "iscsiadm"
        info = attachment()["connection_info"]
        assert refused(world, extend(1, GIB, connection_info=info))[0] == "unsupported"

    def test_an_unsettled_volume_is_busy(self, world: World) -> None:
        attached(world, 1, **SHARED)
        world.domains.add(TWO)
        device_stays(world)
        detach(1)(world)
        world.run()
        assert refused(world, extend(2, 2 * GIB))[0] == "busy"


class TestAnswer:
    def test_each_attachment_has_its_row(self, two: World) -> None:
        grown(2 * GIB)(two)
        answer = ask(two, extend(1, 2 * GIB))
        assert answer["state"] == "done"
        assert answer["result"] == [
            {
                "attachment_id": f"att-{number}",
                "instance_id": instance,
                "device_size_bytes": 2 * GIB,
                "guest_size_bytes": 2 * GIB,
                "error": None,
            }
            for number, instance in ((1, ONE), (2, TWO))
        ]
        assert answer["warnings"] == []
        steps = [(step["name"], step["attachment_id"]) for step in answer["steps"]]
        assert steps == [
            ("extend-volume", None),
            ("grow-disk", "att-1"),
            ("grow-disk", "att-2"),
        ]

    def test_the_notifications_name_whom_it_is_about(self, two: World) -> None:
        grown(2 * GIB)(two)
        ask(two, extend(1, 2 * GIB))
        letters = [one for one in two.letters() if one["event_type"].startswith("attachment.ext")]
        assert [one["event_type"] for one in letters] == [
            "attachment.extend.start",
            "attachment.extend.end",
        ]
        for letter in letters:
            assert (letter["instance_id"], letter["instance_ids"]) == (None, [ONE, TWO])
            assert letter["volume_ids"] == [VOLUMES[0]]

    def test_a_guest_that_was_given_the_volume_by_somebody_else_is_told_of(
        self, two: World
    ) -> None:
        """Its journal row is gone: the request is about the others."""
        two.journal.write(lambda book: book.drop("att-2"))
        grown(2 * GIB)(two)
        answer = ask(two, extend(1, 2 * GIB))
        assert len(answer["result"]) == 1
        (warning,) = answer["warnings"]
        assert TWO in warning
        assert "is not told" in warning
        assert two.domains.size(TWO, "vda") == GIB

    def test_a_plan_of_it_reads_only(self, two: World) -> None:
        grown(2 * GIB)(two)
        found = two.agent.query(
            "plan", {"verb": "extend", "request": dict(extend(1, 2 * GIB).request)}
        )
        assert (found["refusal"], found["commit"]) == (None, "extend-volume")
        assert found["steps"] == ["extend-volume", "grow-disk", "grow-disk"]
        assert {device.size_bytes for device in two.storage.devices.values()} == {GIB}


class TestAfterIt:
    def test_the_listed_device_has_its_new_size(self, two: World) -> None:
        grown(2 * GIB)(two)
        ask(two, extend(1, 2 * GIB))
        rows = two.agent.query("list_attachments", {})["attachments"]
        assert [row["device"]["size_bytes"] for row in rows] == [2 * GIB, 2 * GIB]

    def test_the_same_attach_is_refused_with_the_old_size_and_done_with_the_new(
        self, world: World
    ) -> None:
        attached(world, size_bytes=GIB)
        grown(2 * GIB)(world)
        ask(world, extend(1, 2 * GIB))
        assert ask(world, attach(2, size_bytes=2 * GIB))["state"] == "done"

    def test_it_comes_back_after_a_power_loss_with_the_new_size_only(self, world: World) -> None:
        attached(world, size_bytes=GIB)
        grown(2 * GIB)(world)
        ask(world, extend(1, 2 * GIB))
        grown(GIB)(world)  # the storage side has restored an old backup
        world.lose_power()
        report = world.reconnect()
        assert f"size is {GIB} bytes, expected {2 * GIB}" in report
        world.start()

    def test_new_credentials_serve_the_extend_and_replace_nothing(self, world: World) -> None:
        attached(world)
        grown(2 * GIB)(world)
        new = attachment(1)["connection_info"]
        new["data"]["auth_password"] = "neu"
        extend(1, 2 * GIB, connection_info=new).send(world)
        [open_one] = world.journal.read(lambda book: book.open_operations())
        assert open_one.parts[0].attachment is not None
        assert open_one.parts[0].attachment.connection.properties()["auth_password"] == "neu"
        world.run()
        assert world.record(request_id(1)).state == "done"
        row = world.journal.read(lambda book: book.attachment("att-1"))
        assert row is not None
        assert row.attachment.connection.properties()["auth_password"] == "geheim"


def test_each_guest_is_told_in_its_own_turn(two: World) -> None:
    """One that is occupied by another operation holds up the other's end, and not its growing."""
    grown(2 * GIB)(two)
    away(two)
    extend(1, 2 * GIB).send(two)
    two.run()
    back(two)
    two.run()
    assert two.record(request_id(1)).state == "done"
    calls = [name for name in two.instants.passed if name == "after resize"]
    assert len(calls) == 2


def test_a_guest_is_told_of_what_its_qemu_has_seen_already(world: World) -> None:
    """It was opened as large by a QEMU that had the guest come from another host."""
    attached(world)
    grown(2 * GIB)(world)
    world.domains.guests[ONE].sizes["vda"] = 2 * GIB
    [row] = ask(world, extend(1, 2 * GIB))["result"]
    assert row["guest_size_bytes"] == 2 * GIB
    assert "after resize" in world.instants.passed
