"""prepare_migration, migrate and cancel_migration, from the request to the answer."""

from typing import Any

import pytest

from agent.errors import Busy, PlugRefused
from agent.guest.domain_xml import parse_domain
from agent.ports import INCOMING_MIGRATION
from agent.service.leases import COMING_SECONDS, LOOK_SECONDS
from agent.steps.migrate import DIES_OF_GOING_ON, FRESH_SECONDS
from tests.unit.operations.asking import ask, refused
from tests.unit.saga.stories import ONE, SHARED, TWO, device_stays, guest_is
from tests.unit.saga.stories_of_changes import grown
from tests.unit.saga.stories_of_imports import anothers, asked, entry
from tests.unit.saga.stories_of_moving import BOTH, ONE_OF_THEM, comes, holds, prepared, stalls
from tests.world.instants import Crash
from tests.world.road import STATISTICS
from tests.world.story import (
    VOLUMES,
    Ask,
    attach,
    attached,
    attachment,
    cancel_migration,
    connect_instance,
    detach,
    disconnect_instance,
    extend,
    let_pass,
    migrate,
    prepare_migration,
    request_id,
    set_iotune,
    swap,
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

    def test_a_lease_for_ever_is_refused_and_one_for_a_year_is_told(self, world: World) -> None:
        year = 366 * 24 * 3600
        code, detail = refused(world, prepare_migration(1, *ONE_OF_THEM, lease_seconds=year + 1))
        assert (code, "lease_seconds" in detail) == ("invalid", True)
        answer = ask(world, prepare_migration(2, *ONE_OF_THEM, lease_seconds=year))
        assert answer["result"]["lease_expires_at"] > "2028"

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

    def test_its_volume_is_extended_as_on_every_host(self, world: World) -> None:
        """Its guest is told where it is, and comes to a device that is as large."""
        prepared(world)
        grown(2 * GIB)(world)
        (row,) = ask(world, extend(2, 2 * GIB))["result"]
        assert (row["device_size_bytes"], row["guest_size_bytes"]) == (2 * GIB, None)
        (listed,) = world.agent.query("list_attachments", {})["attachments"]
        assert (listed["device"]["size_bytes"], listed["lease"]["migration_id"]) == (
            2 * GIB,
            "mig-1",
        )

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

    def test_a_disk_that_is_the_volume_by_another_way_keeps_it_and_is_told(
        self, world: World
    ) -> None:
        """Somebody has defined the instance here by himself: no cancel could ever succeed."""
        prepared(world)
        world.domains.add(ONE)
        guest = world.domains.guests[ONE]
        where = "<source file='/x'/><target dev='vda'/>"
        disk = f"<disk type='file'>{where}<serial>{VOLUMES[0]}</serial></disk>"
        for half in ("live", "inactive"):
            xml = getattr(guest, half)
            setattr(guest, half, xml.replace("</devices>", f"{disk}</devices>"))
        let_pass(2 * 3600)(world)
        (row,) = world.leased()
        assert row.lease is not None
        assert "vda is the volume" in str(row.lease.waiting_for)
        assert [record.verb for record in world.records()] == ["prepare_migration"]

    def test_a_host_that_is_silent_is_waited_for_once(self, world: World) -> None:
        for number in (1, 2):
            coming = attachment(number, volume=number, instance=number)
            different = {"instance": number, "migration_id": f"mig-{number}"}
            ask(world, prepare_migration(number, coming, **different))
        world.far.is_silent = True
        before = len(world.instants.passed)
        world.look_at_leases()
        asked = world.instants.passed[before:]
        assert asked.count("before ask whether a peer has given up") == 1

    def test_while_one_comes_the_hosts_of_others_are_asked_no_oftener(self, world: World) -> None:
        for number in (1, 2):
            coming = attachment(number, volume=number, instance=number)
            different = {"instance": number, "migration_id": f"mig-{number}"}
            ask(world, prepare_migration(number, coming, **different))
        world.domains.add(TWO)
        world.domains.guests[TWO].job = INCOMING_MIGRATION
        before = len(world.instants.passed)
        for _ in range(5):
            assert world.look_at_leases() == COMING_SECONDS
            world.clock.seconds += COMING_SECONDS
        asked = world.instants.passed[before:]
        assert asked.count("before ask whether a peer has given up") == 1
        world.clock.seconds += LOOK_SECONDS
        world.look_at_leases()
        asked = world.instants.passed[before:]
        assert asked.count("before ask whether a peer has given up") == 2

    def test_another_migration_that_was_given_up_says_nothing(self, world: World) -> None:
        prepared(world)
        world.far.given_up = frozenset({"mig-2"})
        let_pass(60)(world)
        assert world.leased()


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

    def test_what_comes_in_spite_of_it_keeps_its_attachments(self, world: World) -> None:
        """The source had asked just before; here the storage makes the cancel wait."""
        prepared(world)
        device_stays(world)
        ask(world, cancel_migration(1))
        (row,) = world.agent.query("list_attachments", {})["attachments"]
        assert (row["promised"], row["lease"] is None) == (False, False)
        comes(world)
        world.run()
        world.storage.disconnect_error = None
        let_pass(30)(world)
        answer = world.record(request_id(1)).answer()
        assert answer.state == "done"
        assert "migrate it back, or detach" in answer.warnings[0]
        (row,) = world.agent.query("list_attachments", {})["attachments"]
        assert (row["promised"], row["lease"]) == (True, None)
        detached = ask(world, detach(2))
        assert detached["result"]["disconnected"]
        assert parse_domain(str(world.domains.guests[ONE].live)).disks == ()

    def test_what_it_has_disconnected_is_kept_by_nobody(self, world: World) -> None:
        """An attachment from before, whose instance has left by other means, was to come back."""
        world.domains.add(ONE)
        attached(world)
        world.domains.undefine(ONE)
        prepare_migration(1, attachment(1)).send(world)
        answer = ask(world, cancel_migration(2))
        assert answer["result"]["attachments"][0]["disconnected"]
        assert world.agent.query("list_attachments", {})["attachments"] == []

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


@pytest.fixture
def source(world: World) -> World:
    """The guest is here, with volume 1, which is prepared far away."""
    world.domains.add(ONE)
    attached(world)
    world.far.leased["att-1"] = "mig-1"
    return world


def failed(world: World, asked: Ask) -> tuple[str, str]:
    error = ask(world, asked)["error"]
    return error["code"], error["detail"]


class TestMigrateRequest:
    @pytest.mark.parametrize(
        "destination",
        [
            {"libvirt_uri": "qemu+tcp://far/system"},
            {"host": "far", "libvirt_uri": "qemu+ssh://far/system?command=/bin/evil"},
            {"host": "far", "libvirt_uri": "qemu+tcp://far/system#x"},
            {"host": "far", "libvirt_uri": "test:///default"},
            {"host": "far", "libvirt_uri": "qemu+tcp://far/system", "migrate_uri": "exec:evil"},
        ],
        ids=str,
    )
    def test_where_it_cannot_go(self, source: World, destination: dict[str, str]) -> None:
        assert refused(source, migrate(1, 1, destination=destination))[0] == "invalid"

    def test_where_its_volume_is_smaller_it_does_not_go(self, source: World) -> None:
        """It was extended here since: what the guest has beyond would be I/O errors there."""
        source.far.shows["att-1"] = GIB
        grown(2 * GIB)(source)
        ask(source, extend(1, 2 * GIB))
        code, detail = failed(source, migrate(2, 1))
        assert (code, "send extend to that host" in detail) == ("migration-failed", True)
        source.far.shows["att-1"] = 2 * GIB
        assert ask(source, migrate(3, 1))["state"] == "done"

    @pytest.mark.parametrize(
        ("name", "there"),
        [("volume_id", VOLUMES[4]), ("multiattach", True), ("access_mode", "ro")],
        ids=str,
    )
    def test_what_was_prepared_must_be_what_the_guest_has(
        self, source: World, name: str, there: object
    ) -> None:
        source.far.otherwise["att-1"] = {name: there}
        code, detail = failed(source, migrate(1, 1))
        assert (code, f"{name} {there}" in detail) == ("invalid", True)
        assert "start-migration" not in " ".join(source.instants.passed)

    @pytest.mark.parametrize("half", ["live", "inactive"])
    def test_a_device_that_nobody_named_keeps_it_here(self, source: World, half: str) -> None:
        """Over there the path may be another tenant's volume."""
        guest = source.domains.guests[ONE]
        disk = "<disk type='block'><source dev='/dev/dm-3'/><target dev='vdz'/></disk>"
        setattr(guest, half, getattr(guest, half).replace("</devices>", f"{disk}</devices>"))
        code, detail = failed(source, migrate(1, 1))
        assert (code, "vdz (/dev/dm-3)" in detail) == ("unsupported", True)
        assert "start-migration" not in " ".join(source.instants.passed)
        said = {"same_devices": ["/dev/dm-3"]}
        assert ask(source, migrate(2, 1, options=said))["state"] == "done"

    def test_every_attachment_goes_along(self, source: World) -> None:
        code, detail = refused(source, migrate(1))
        assert (code, "att-1" in detail) == ("invalid", True)

    def test_and_none_that_is_not_here(self, source: World) -> None:
        assert refused(source, migrate(1, 1, 2))[0] == "unknown-attachment"

    def test_what_is_no_part_is_refused_before_anything_is_touched(self, source: World) -> None:
        wrong = migrate(1, parts={"att-1": "<disk type='block'><target dev='vda'/></disk>"})
        answer = ask(source, wrong)
        assert answer["error"]["code"] == "invalid"
        assert "nothing was touched" in answer["error"]["detail"]
        assert "start-migration" not in " ".join(source.instants.passed)

    def test_a_downtime_is_allowed_step_by_step(self, source: World) -> None:
        stalls(source)
        wishes = {"max_downtime_milliseconds": 500, "downtime_steps": 5}
        ask(source, migrate(1, 1, options=wishes))
        for seconds, allowed in ((40, 200), (30, 300), (300, 500)):
            let_pass(seconds)(source)
            assert source.road.trips[ONE].downtime_milliseconds == allowed
        assert source.instants.passed.count("after allow-downtime") == 4

    def test_what_somebody_has_paused_goes_but_not_in_post_copy(self, source: World) -> None:
        holds(source)
        code, detail = failed(source, migrate(1, 1, options={"post_copy": True}))
        assert (code, "post_copy" in detail) == ("unsupported", True)
        assert ask(source, migrate(2, 1))["state"] == "done"
        assert source.far.domains.guests[ONE].is_paused

    @pytest.mark.parametrize("after_seconds", [1, 3600])
    def test_a_life_that_never_began_it_asks_once_more_whether_it_may(
        self, source: World, after_seconds: int
    ) -> None:
        """The destination was told to cancel meanwhile, which the source does not know."""

        def kill(name: str) -> None:
            if name == "before start-migration":
                raise Crash(name)

        source.instants.watch = kill
        with pytest.raises(Crash):
            ask(source, migrate(1, 1))
        source.instants.watch = lambda name: None
        source.die()
        if after_seconds > FRESH_SECONDS:
            source.far.leased.clear()
        source.clock.pass_to(source.clock.monotonic() + after_seconds)
        source.start()
        source.run()
        answer = source.record(request_id(1)).answer()
        if after_seconds > FRESH_SECONDS:
            assert (answer.error and answer.error.code) == "migration-failed"
            assert answer.state == "undone"
            assert ONE not in source.far.domains.guests
        else:
            assert answer.state == "done"

    def test_what_stands_for_another_reason_does_not_go(self, source: World) -> None:
        """A migration before it, whose outcome nobody knows; an error of its storage."""
        source.domains.guests[ONE].is_paused = True
        assert failed(source, migrate(1, 1))[0] == "busy"


class TestWhileItGoes:
    @pytest.fixture
    def source(self, source: World) -> World:
        stalls(source)
        ask(source, migrate(1, 1))
        return source

    def test_it_says_how_far_it_is(self, source: World) -> None:
        answer = source.record(request_id(1)).answer()
        assert answer.state == "waiting"
        assert answer.waiting_for == "the migration to far, in precopy"
        assert answer.progress is not None
        assert 0 <= answer.progress.done < answer.progress.total
        assert answer.progress.eta_seconds
        assert (answer.progress.dirty_rate, answer.progress.downtime_milliseconds) == (4096, 300)

    @pytest.mark.parametrize(
        "other",
        [
            attach(2, 5, volume=2),
            detach(2),
            extend(2, 2 * GIB),
            disconnect_instance(2),
            swap(2),
            set_iotune(2, {"total_iops_sec": 100}),
            migrate(2, 1, migration_id="mig-2"),
            prepare_migration(2, attachment(5, volume=2), migration_id="mig-2"),
        ],
        ids=lambda other: other.verb,
    )
    def test_every_command_on_the_instance_is_busy(self, source: World, other: Ask) -> None:
        assert refused(source, other)[0] == "busy"

    def test_a_life_that_finds_it_goes_on_with_it(self, source: World) -> None:
        source.die()
        source.road.pace = "goes"
        source.start()
        source.run()
        assert source.record(request_id(1)).state == "done"
        assert source.storage.devices == {}

    def test_both_paused_is_for_people_and_nothing_is_started_or_disconnected(
        self, source: World
    ) -> None:
        source.road.trips.clear()
        source.domains.guests[ONE].job = source.far.domains.guests[ONE].job = None
        source.domains.guests[ONE].is_paused = True
        let_pass(120)(source)
        answer = source.record(request_id(1)).answer()
        assert answer.state == "unsettled"
        assert answer.error is not None
        assert "nobody can say where" in answer.error.detail
        assert source.domains.guests[ONE].is_paused
        assert source.far.domains.guests[ONE].is_paused
        assert source.storage.devices

    def test_called_off_so_late_that_it_may_run_there_is_told_by_that_host_alone(
        self, source: World
    ) -> None:
        """libvirt lets the guest go on here where no answer comes to the switch."""
        source.far.is_silent = True
        source.road.is_cut = True
        source.domains.guests[ONE].is_paused = True
        let_pass(120)(source)
        assert source.record(request_id(1)).state == "unsettled"
        source.far.is_silent = False
        let_pass(120)(source)
        assert source.record(request_id(1)).state == "undone"
        assert source.storage.devices

    def test_called_off_before_the_guest_stood_it_never_left(self, source: World) -> None:
        source.far.is_silent = True
        source.road.is_cut = True
        let_pass(10)(source)
        assert source.record(request_id(1)).state == "undone"

    def test_that_it_stands_here_since_is_told(self, source: World) -> None:
        source.road.trips.clear()
        source.domains.guests[ONE].job = None
        source.domains.guests[ONE].is_paused = True
        del source.far.domains.guests[ONE]
        let_pass(30)(source)
        answer = source.record(request_id(1)).answer()
        assert answer.state == "undone"
        assert answer.error is not None
        assert "virsh resume" in answer.error.detail

    def test_two_that_run_are_told_at_once(self, source: World) -> None:
        source.road.trips.clear()
        source.domains.guests[ONE].job = source.far.domains.guests[ONE].job = None
        source.far.domains.guests[ONE].is_paused = False
        let_pass(5)(source)
        answer = source.record(request_id(1)).answer()
        assert answer.state == "unsettled"
        assert answer.error is not None
        assert "must never be" in answer.error.detail

    def test_what_is_left_here_is_cleared_only_when_it_runs_over_there(self, source: World) -> None:
        source.road.switch(ONE)
        source.run()
        source.road.trips.clear()
        source.domains.guests[ONE].job = source.far.domains.guests[ONE].job = None
        source.far.domains.guests[ONE].is_paused = True
        let_pass(30)(source)
        assert source.record(request_id(1)).state == "unsettled"
        assert source.domains.guests[ONE].live is not None
        assert source.storage.devices
        source.far.domains.guests[ONE].is_paused = False
        let_pass(120)(source)
        assert source.record(request_id(1)).state == "done"
        assert ONE not in source.domains.guests
        assert source.storage.devices == {}

    @pytest.mark.parametrize(
        ("runs", "silent", "says"),
        [
            (True, False, "RUNS HERE again"),
            (True, True, "RUNS HERE again"),
            (False, False, "has it no more; it stands here"),
        ],
    )
    def test_where_it_is_here_after_all_nobody_is_told_to_start_a_second_one(
        self, source: World, runs: bool, silent: bool, says: str
    ) -> None:
        """What somebody has started at the source, though it had been switched over."""
        source.road.switch(ONE)
        source.run()
        source.road.trips.clear()
        source.domains.guests[ONE].job = None
        source.domains.guests[ONE].is_paused = not runs
        del source.far.domains.guests[ONE]
        source.far.is_silent = silent
        let_pass(30)(source)
        answer = source.record(request_id(1)).answer()
        assert (answer.state, source.storage.devices != {}) == ("unsettled", True)
        assert answer.error is not None
        assert says in answer.error.detail

    def test_a_libvirt_that_dies_of_going_on_is_not_asked(self, source: World) -> None:
        """Once it is another, it is."""
        source.far.domains.libvirt = DIES_OF_GOING_ON
        source.road.switch(ONE)
        source.road.is_cut = True
        source.run()
        source.road.trips[ONE].is_lost = True
        source.road.is_cut = False
        let_pass(60)(source)
        answer = source.record(request_id(1)).answer()
        assert answer.state == "waiting"
        assert "libvirt 11.3.0 of far may die" in (answer.waiting_for or "")
        assert source.road.trips[ONE].phase == "postcopy-failed"
        source.far.domains.libvirt = source.domains.libvirt
        source.road.pace = "goes"
        let_pass(60)(source)
        assert source.record(request_id(1)).state == "done"

    def test_a_post_copy_whose_other_half_is_lost_is_for_people(self, source: World) -> None:
        source.road.switch(ONE)
        source.road.is_cut = True
        source.run()
        del source.far.domains.guests[ONE]
        let_pass(60)(source)
        answer = source.record(request_id(1)).answer()
        assert answer.state == "unsettled"
        assert answer.error is not None
        assert "Nobody starts it" in answer.error.detail
        assert source.storage.devices


class TestMoved:
    def test_the_answer_has_numbers(self, source: World) -> None:
        result = ask(source, migrate(1, 1))["result"]
        assert result["downtime_ms"] == STATISTICS["downtime_milliseconds"]
        assert result["bytes"]["transferred"] == STATISTICS["transferred_bytes"]
        assert result["attachments"] == [
            {"attachment_id": "att-1", "disconnected": True, "awaiting_unmap": False}
        ]

    def test_it_is_over_on_this_side(self, source: World) -> None:
        ask(source, migrate(1, 1))
        assert refused(source, cancel_migration(2))[0] == "too-late"
        assert refused(source, prepare_migration(3, *ONE_OF_THEM))[0] == "stale"

    def test_a_disk_that_was_swapped_goes_by_what_it_is_found_by(self, source: World) -> None:
        assert ask(source, swap(1))["state"] == "done"
        source.far.leased = {"att-2": "mig-1"}
        assert ask(source, migrate(2, 2))["state"] == "done"
        live = source.far.domains.guests[ONE].live
        assert live is not None
        disk = parse_domain(live).disk_by_alias("ua-att-1")
        assert disk is not None
        assert disk.source == "/dev/disk/by-id/far-2"

    def test_no_disk_may_be_copied_before(self, source: World) -> None:
        source.copies.pace = "stalls"
        ask(source, swap(1))
        assert refused(source, migrate(2, 1))[0] == "busy"

    def test_no_disk_is_taken_over_from_then_on(self, world: World) -> None:
        """It would go along, and its attachment stay."""
        world.domains.add(ONE)
        anothers()(world)
        attached(world, 2, volume=2)
        world.far.leased["att-2"] = "mig-1"
        rows = list[dict[str, Any]]()
        world.meanwhile["before descriptions"] = lambda w: rows.extend(asked(w, entry()))
        ask(world, migrate(1, 2))
        assert [row["error"]["code"] for row in rows] == ["busy"]

    def test_nothing_else_may_be_open_before(self, source: World) -> None:
        guest_is("stubborn")(source)
        ask(source, detach(1))
        assert refused(source, migrate(2, 1))[0] == "busy"


class TestArrived:
    @pytest.fixture
    def there(self, world: World) -> World:
        prepared(world)
        comes(world)
        world.run()
        return world

    def test_it_is_an_attachment_like_others_with_the_marks_that_it_brought(
        self, there: World
    ) -> None:
        (row,) = there.agent.query("list_attachments", {})["attachments"]
        assert row["lease"] is None
        disk = row["disk"]
        assert (disk["alias"], disk["live"], disk["persistent"]) == ("ua-old-1", True, True)
        live = there.domains.guests[ONE].live
        assert live is not None
        assert parse_domain(live).notes["ua-old-1"].attachment_id == "att-1"
        told = [one["event_type"] for one in there.letters()]
        assert told.count("attachment.arrived") == 1

    def test_its_note_is_no_condition(self, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
        prepared(world)
        comes(world)

        def refuses(instance_id: str, metadata_xml: str) -> None:
            raise PlugRefused("simulated: no metadata today")

        monkeypatch.setattr(world.domains, "note", refuses)
        world.run()
        assert world.leased() == []

    def test_it_is_its_attachment_once_that_is_noted(
        self, world: World, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The note that it brings along says that the disk is the attachment's over there."""
        prepared(world)
        comes(world)

        def occupied(instance_id: str, metadata_xml: str) -> None:
            raise Busy("simulated: another job")

        with monkeypatch.context() as patched:
            patched.setattr(world.domains, "note", occupied)
            with pytest.raises(Busy):
                world.run()
        assert world.leased()
        world.look_at_leases()
        assert world.leased() == []
        assert ask(world, detach(2, 1))["result"]["disconnected"] is True

    def test_while_it_comes_it_is_looked_for_often(self, world: World) -> None:
        prepared(world)
        assert world.look_at_leases() is None
        stalls(world)
        comes(world)
        world.run()
        assert world.look_at_leases() == COMING_SECONDS
        world.road.pace = "goes"
        world.run()
        assert world.look_at_leases() is None

    def test_while_it_comes_and_when_it_has_come_the_audit_finds_nothing(
        self, world: World
    ) -> None:
        prepared(world)
        stalls(world)
        comes(world)
        world.run()
        assert world.domains.guests[ONE].job == "incoming migration"
        assert world.agent.query("audit", {})["findings"] == []
        world.road.pace = "goes"
        world.run()
        assert world.leased() == []
        assert world.agent.query("audit", {})["findings"] == []

    def test_its_disk_is_as_the_guest_has_it(self, world: World) -> None:
        """Whatever was said, or not, when it was prepared."""
        prepared(world)
        comes(world, bus="scsi")
        world.run()
        assert world.leased() == []
        assert world.agent.query("audit", {})["findings"] == []

    def test_it_can_be_detached(self, there: World) -> None:
        assert ask(there, detach(1))["result"]["disconnected"]
        assert there.storage.devices == {}

    def test_and_goes_back_with_the_same_alias(self, there: World) -> None:
        there.far.leased = {"att-1": "mig-2"}
        answer = ask(there, migrate(1, 1, migration_id="mig-2"))
        assert answer["state"] == "done"
        live = there.far.domains.guests[ONE].live
        assert live is not None
        disk = parse_domain(live).disk_by_alias("ua-old-1")
        assert disk is not None
        assert disk.source == "/dev/disk/by-id/far-1"

    def test_what_it_did_not_bring_is_given_back_in_the_end(self, world: World) -> None:
        prepared(world, *BOTH)
        comes(world, without="old-2")
        world.run()
        assert [row.attachment.attachment_id for row in world.leased()] == ["att-2"]
        let_pass(4000)(world)
        assert world.leased() == []
        assert len(world.storage.devices) == 1
