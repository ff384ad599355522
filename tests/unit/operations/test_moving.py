"""prepare_migration and cancel_migration, from the request to the answer."""

from typing import Any

import pytest

from tests.unit.operations.asking import ask, refused
from tests.unit.saga.stories import ONE, SHARED, TWO, guest_is
from tests.unit.saga.stories_of_moving import BOTH, ONE_OF_THEM, comes, prepared, stalls
from tests.world.story import (
    Ask,
    attach,
    attached,
    attachment,
    cancel_migration,
    connect_instance,
    detach,
    disconnect_instance,
    extend,
    prepare_migration,
    request_id,
)
from tests.world.world import World

GIB = 1 << 30


@pytest.fixture
def world(world: World) -> World:
    world.domains.undefine(ONE)
    return world


class TestPrepareRequest:
    @pytest.mark.parametrize(
        ("attachments", "wrong"),
        [
            ((attachment(1), attachment(1, volume=2)), "there twice"),
            ((attachment(1, instance=2),), "another instance_id"),
            (({**attachment(1), "replaces": "a b"},), "replaces"),
            ((attachment(1), {**attachment(2, volume=2), "replaces": "old-1"}), "the same one"),
        ],
    )
    def test_what_is_wrong(
        self, world: World, attachments: tuple[dict[str, Any], ...], wrong: str
    ) -> None:
        code, detail = refused(world, prepare_migration(1, *attachments))
        assert (code, wrong in detail) == ("invalid", True), detail

    def test_reservations_do_not_go_along(self, world: World) -> None:
        lun = attachment(1, disk={"bus": "scsi", "type": "lun", "reservations": "managed"})
        answer = ask(world, prepare_migration(1, lun))
        assert answer["error"]["code"] == "unsupported"
        assert "nothing was touched" in answer["error"]["detail"]
        assert world.storage.connects == 0


class TestPrepared:
    def test_the_parts_have_what_is_of_the_host_and_nothing_of_the_guest(
        self, world: World
    ) -> None:
        answer = ask(world, prepare_migration(1, *BOTH))
        parts = answer["result"]["parts"]
        assert set(parts) == {"old-1", "old-2"}
        assert 'type="block"' in parts["old-1"]
        (device,) = [d for d in world.storage.devices.values() if d.volume_id.endswith("1")]
        assert any(f'dev="{name}"' in parts["old-1"] for name in device.names)
        for of_the_guest in ("target", "serial", "alias", "address", "shareable"):
            assert f"<{of_the_guest}" not in parts["old-1"]

    def test_it_is_listed_with_its_lease(self, world: World) -> None:
        prepared(world, lease_seconds=60)
        (row,) = world.agent.query("list_attachments", {})["attachments"]
        lease = row["lease"]
        assert (lease["migration_id"], lease["replaces"]) == ("mig-1", "old-1")
        assert lease["expires_at"] == world.record(request_id(900)).result["lease_expires_at"]  # type: ignore[index,call-overload]

    @pytest.mark.parametrize(
        "other",
        [
            attach(2, 5, volume=2),
            detach(2),
            connect_instance(2, attachment(5, volume=2)),
            disconnect_instance(2),
            extend(2, 2 * GIB),
            prepare_migration(2, *ONE_OF_THEM, migration_id="mig-2"),
        ],
        ids=lambda other: other.verb,
    )
    def test_until_it_has_come_every_command_on_the_instance_is_busy(
        self, world: World, other: Ask
    ) -> None:
        prepared(world)
        code, detail = refused(world, other)
        assert (code, "mig-1" in detail) == ("busy", True), detail

    def test_another_instance_is_not_held_up(self, world: World) -> None:
        prepared(world, attachment(1, **SHARED))
        world.domains.add(TWO)
        assert ask(world, attach(2, 2, instance=2, **SHARED))["state"] == "done"

    def test_nothing_else_may_be_open_on_the_instance(self, world: World) -> None:
        world.domains.add(ONE)
        attached(world)
        guest_is("stubborn")(world)
        ask(world, detach(1))
        code, _ = refused(world, prepare_migration(2, attachment(2, volume=2)))
        assert code == "busy"

    def test_its_lease_survives_a_restart(self, world: World) -> None:
        prepared(world)
        before = world.leased()
        world.die()
        world.start()
        assert world.leased() == before


class TestCancel:
    def test_the_answer_says_what_was_given_back(self, world: World) -> None:
        prepared(world)
        assert ask(world, cancel_migration(1))["result"] == {
            "migration_id": "mig-1",
            "cancelled": [],
            "attachments": [
                {"attachment_id": "att-1", "disconnected": True, "awaiting_unmap": False}
            ],
        }

    def test_it_names_what_it_has_cancelled(self, world: World) -> None:
        prepare_migration(1, *ONE_OF_THEM).send(world)
        answer = ask(world, cancel_migration(2))
        assert answer["result"]["cancelled"] == [request_id(1)]
        assert world.record(request_id(1)).state == "cancelled"

    def test_what_comes_late_is_stale(self, world: World) -> None:
        ask(world, cancel_migration(1))
        assert refused(world, prepare_migration(2, *ONE_OF_THEM))[0] == "stale"
        other = prepare_migration(3, *ONE_OF_THEM, migration_id="mig-2")
        assert ask(world, other)["state"] == "done"

    def test_while_it_comes_it_says_where_to_cancel(self, world: World) -> None:
        prepared(world)
        stalls(world)
        comes(world)
        world.run()
        answer = ask(world, cancel_migration(1))
        assert answer["state"] == "waiting"
        assert "where it comes from" in answer["waiting_for"]


def test_a_plan_of_it_is_shown(world: World) -> None:
    request = dict(prepare_migration(1, *ONE_OF_THEM).request)
    shown = world.agent.query("plan", {"verb": "prepare_migration", "request": request})
    assert shown["refusal"] is None
    assert shown["commit"] == "hand-over-parts"
    assert world.storage.connects == 0
