"""Instances go from one hypervisor to the other by their agents, with volumes that others share.

Two agents, two libvirtds, one broker. Whoever is killed on the way, one guest runs in the end, each
side has connected what is used there, and no operation is open.
"""

import contextlib
import os
import random
import signal
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import libvirt
import pytest
from oslo_config import cfg

from agent.bus.client import AgentClient
from agent.model.outcome import Answer
from tests.functional.orchestrator import OPERATION_SECONDS, Orchestrator, Wish, wish
from tests.functional.test_imports import imported, plug_as_nova, plug_by_hand
from tests.functional.writer import Writer
from tests.lab.agent_process import AgentProcess
from tests.lab.guest import Guest, Shape, block_of
from tests.lab.lab import Lab
from tests.lab.libvirtd import Libvirtd
from tests.lab.loop_volume import LoopVolume
from tests.lab.patience import wait_until
from tests.lab.two_hypervisors import TwoHypervisors, hostname_of, libvirt_uri_for

pytestmark = pytest.mark.real

SLOWLY = {"bandwidth_bytes_per_second": 4 << 20}
"""A booted guest has some 45 MiB that are not zeros."""

POST_COPY = libvirt.VIR_DOMAIN_MIGRATE_MAX_SPEED_POSTCOPY

ROUND_TRIPS = 3

SHARED = {"multiattach": True}


class Side:
    """A hypervisor with its agent."""

    def __init__(self, two: TwoHypervisors, libvirtd: Libvirtd, url: str) -> None:
        self.libvirtd = libvirtd
        self.host = hostname_of(libvirtd)
        self.agent: AgentProcess = two.agent(libvirtd)
        self.client = AgentClient(cfg.CONF, self.host, url=url)
        self.orchestrator = Orchestrator(self.client)
        self.agent.wait_connected()

    def close(self) -> None:
        self.client.close()
        self.agent.close()

    def finish(self, accepted: Answer, *, seconds: float = OPERATION_SECONDS) -> Answer:
        return self.orchestrator.finish(accepted, seconds=seconds)

    def rows(self, guest: Guest) -> list[dict[str, Any]]:
        return self.client.list_attachments(instance_id=guest.uuid)

    def open_operations(self) -> list[dict[str, Any]]:
        return self.client.list_operations(open=True)


@pytest.fixture(scope="module")
def two(lab: Lab) -> Iterator[TwoHypervisors]:
    with TwoHypervisors(lab) as two:
        yield two


@pytest.fixture(scope="module")
def sides(two: TwoHypervisors, lab: Lab) -> Iterator[dict[Libvirtd, Side]]:
    sides = {one: Side(two, one, lab.broker.url) for one in (two.left, two.right)}
    yield sides
    for side in sides.values():
        side.close()


@pytest.fixture(scope="module")
def travelling(two: TwoHypervisors) -> list[Guest]:
    """One that goes, and one that stays on the left."""
    guests = [two.guest(name) for name in ("wanderer", "homebody")]
    for guest in guests:
        guest.wait_ready()
    return guests


@pytest.fixture
def volume(lab: Lab) -> Iterator[LoopVolume]:
    with lab.volume() as volume:
        yield volume
        volume.assert_unused()


class Trip:
    """Of a guest with its attachments, to the other side from wherever it is."""

    def __init__(self, two: TwoHypervisors, sides: dict[Libvirtd, Side], guest: Guest) -> None:
        self.two, self.sides, self.guest = two, sides, guest
        self.here = sides[two.find(guest)]
        self.there = sides[two.other(guest.hypervisor)]
        self.migration_id = str(uuid.uuid4())
        self.coming: list[Wish] = []

    def prepare(self, *wanted: Wish, **different: Any) -> dict[str, str]:
        """``wanted``: the attachments here; over there each has another id."""
        self.coming = [
            {**one, "attachment_id": str(uuid.uuid4()), "replaces": one["attachment_id"]}
            for one in wanted
        ]
        done = self.there.finish(
            self.there.client.prepare_migration(
                self.migration_id,
                self.guest.uuid,
                self.coming,
                source_host=self.here.host,
                **different,
            )
        )
        assert done.state == "done", done
        assert isinstance(done.result, dict)
        return dict(done.result["parts"])

    def begin(self, parts: dict[str, str], **options: Any) -> Answer:
        uri = libvirt_uri_for(self.there.libvirtd)
        answer = self.here.client.migrate(
            self.migration_id,
            self.guest.uuid,
            {"host": self.there.host, "libvirt_uri": uri},
            parts,
            options=options,
        )
        assert answer.state == "accepted", answer
        return answer

    def wait_copied(self, accepted: Answer) -> None:
        """The copy has begun."""

        def is_copied() -> bool:
            operation_id = accepted.operation_id
            assert operation_id is not None
            found = self.here.client.get_operation(operation_id)
            assert not found.closed, found
            return found.progress is not None

        wait_until(is_copied, "the copy has begun", seconds=60)

    def wait_percent(self, accepted: Answer, percent: int) -> None:
        """So much is copied, or it is over already."""
        operation_id = accepted.operation_id
        assert operation_id is not None

        def is_copied() -> bool:
            found = self.here.client.get_operation(operation_id)
            is_far = found.progress is not None and found.progress.percent >= percent
            return is_far or found.closed

        wait_until(is_copied, f"{percent} % are copied", seconds=60)

    def is_over(self) -> bool:
        """Neither side has a migration of it any more, by the word of its agent."""
        seen = [side.client.get_instance(self.guest.uuid) for side in (self.here, self.there)]
        return [row["present"] for row in seen].count(True) == 1 and not any(
            row["job"] for row in seen
        )

    def go(self, *wanted: Wish, **options: Any) -> list[Wish]:
        """It must succeed; the attachments over there."""
        accepted = self.begin(self.prepare(*wanted), **options)
        answer = self.here.finish(accepted)
        assert answer.state == "done", answer
        self.assert_has_gone()
        return self.arrived()

    def arrived(self) -> list[Wish]:
        wait_until(
            lambda: (
                [row["lease"] for row in self.there.rows(self.guest)] == [None] * len(self.coming)
            ),
            "the agent over there has seen it come",
            seconds=20,
        )
        return [{k: v for k, v in one.items() if k != "replaces"} for one in self.coming]

    def hurry(self) -> None:
        self.guest.domain.migrateSetMaxSpeed(1000)

    def begin_post_copy(self, parts: dict[str, str]) -> Answer:
        """Somebody switches it over, and it fetches what is missing slowly: until told to hurry."""
        accepted = self.begin(parts, post_copy=True, **SLOWLY)
        self.wait_copied(accepted)
        self.guest.domain.migrateSetMaxSpeed(1, POST_COPY)
        self.guest.domain.migrateStartPostCopy()
        wait_until(
            lambda: self.there.client.get_instance(self.guest.uuid)["state"] == "running",
            "it runs over there",
            seconds=60,
        )
        assert self.here.client.get_instance(self.guest.uuid)["job"] == "migration"
        return accepted

    def wait_for(self, accepted: Answer, what: str) -> None:
        """It is told as what it waits for."""
        operation_id = accepted.operation_id
        assert operation_id is not None
        wait_until(
            lambda: what in (self.here.client.get_operation(operation_id).waiting_for or ""),
            what,
            seconds=120,
        )

    def hurry_post_copy(self) -> None:
        """Unless it is over."""
        with contextlib.suppress(libvirt.libvirtError):
            self.guest.domain.migrateSetMaxSpeed(1000, POST_COPY)

    def assert_runs_on_alone(self, side: Side) -> None:
        """Exactly one domain, exactly one QEMU, and it answers."""
        assert self.two.find(self.guest) is side.libvirtd
        assert self.guest.state == "running"
        other = self.two.other(side.libvirtd)
        wait_until(lambda: self.guest.name not in other.guest_pids(), "no second QEMU", seconds=20)
        assert self.guest.uuid not in [d.UUIDString() for d in other.connection().listAllDomains()]
        self.guest.disks()

    def assert_has_gone(self) -> None:
        self.assert_runs_on_alone(self.there)
        assert self.here.rows(self.guest) == []
        assert self.here.open_operations() == []

    def assert_has_stayed(self) -> None:
        """And the destination gives back what it has prepared, untold."""
        self.assert_runs_on_alone(self.here)
        wait_until(lambda: self.there.rows(self.guest) == [], "all is given back", seconds=60)
        for side in (self.here, self.there):
            wait_until(lambda: side.open_operations() == [], "nothing is open", seconds=20)  # noqa: B023


@pytest.fixture
def attached(
    two: TwoHypervisors,
    sides: dict[Libvirtd, Side],
    travelling: list[Guest],
    volume: LoopVolume,
) -> Iterator[Wish]:
    """To the wanderer, wherever it is; taken away wherever it is by then."""
    guest = travelling[0]
    wanted = wish(guest, volume, **SHARED)
    sides[two.find(guest)].orchestrator.attached(wanted)
    yield wanted
    side = sides[two.find(guest)]
    for row in side.rows(guest):
        answer = side.finish(side.client.detach(row["attachment_id"], guest.uuid))
        assert answer.state == "done", answer


def test_it_writes_on_wherever_it_is_and_a_neighbour_sees_every_byte(
    two: TwoHypervisors,
    sides: dict[Libvirtd, Side],
    travelling: list[Guest],
    volume: LoopVolume,
    rounds: int,
) -> None:
    guest, neighbour = travelling
    stays = wish(neighbour, volume, **SHARED)
    goes = wish(guest, volume, **SHARED)
    for wanted in (stays, goes):
        sides[two.left].orchestrator.attached(wanted)
    disk, seen = (one.wait_for_disk(volume.volume_id).name for one in travelling)
    writer = Writer(two, guest, disk)
    writer.start()
    try:
        for _ in range(ROUND_TRIPS * rounds * 2):
            before = writer.written
            (goes,) = Trip(two, sides, guest).go(goes)
            wait_until(lambda: writer.written > before + 3, "it writes on", seconds=30)  # noqa: B023
            assert neighbour.write(seen, "mine", offset_mib=9) is None
    finally:
        writer.stop()
    last = writer.written - 1
    assert neighbour.read(seen, offset_mib=last % 8) == f"word-{last}"
    assert volume.read(offset_mib=last % 8) == block_of(f"word-{last}")
    assert guest.io_errors() == []
    for wanted in (goes, stays):
        result = sides[two.left].orchestrator.detached(wanted)
        assert result["disconnected"] == (wanted is stays)


def test_alias_and_serial_are_what_they_were_and_the_answer_has_numbers(
    two: TwoHypervisors, sides: dict[Libvirtd, Side], travelling: list[Guest], attached: Wish
) -> None:
    trip = Trip(two, sides, travelling[0])
    (before,) = trip.here.rows(trip.guest)
    parts = trip.prepare(attached)
    answer = trip.here.finish(trip.begin(parts))
    assert isinstance(answer.result, dict), answer
    assert answer.result["bytes"]["transferred"] > 0
    assert answer.result["durations"]["total_ms"] > 0
    assert answer.result["attachments"][0]["disconnected"]
    trip.arrived()
    (after,) = trip.there.rows(trip.guest)
    for same in ("alias", "serial", "target_dev", "address", "live", "persistent"):
        assert after["disk"][same] == before["disk"][same]
    assert trip.there.client.audit()["findings"] == []
    late = trip.here.client.cancel_migration(trip.migration_id)
    assert late.error is not None
    assert late.error.code == "too-late"


def test_while_it_goes_everything_on_it_is_busy_and_a_cancel_calls_it_back(
    two: TwoHypervisors, sides: dict[Libvirtd, Side], travelling: list[Guest], attached: Wish
) -> None:
    trip = Trip(two, sides, travelling[0])
    accepted = trip.begin(trip.prepare(attached), **SLOWLY)
    trip.wait_copied(accepted)
    refused = trip.here.client.detach(attached["attachment_id"], trip.guest.uuid)
    assert refused.error is not None
    assert refused.error.code == "busy"
    cancelled = trip.here.finish(trip.here.client.cancel_migration(trip.migration_id))
    assert cancelled.state == "done", cancelled
    assert trip.here.finish(accepted).state == "cancelled"
    trip.assert_has_stayed()


@pytest.mark.parametrize("killed", ["here", "there", "both"])
def test_agents_that_are_killed_while_it_is_copied(
    two: TwoHypervisors,
    sides: dict[Libvirtd, Side],
    travelling: list[Guest],
    attached: Wish,
    killed: str,
) -> None:
    trip = Trip(two, sides, travelling[0])
    accepted = trip.begin(trip.prepare(attached), **SLOWLY)
    trip.wait_copied(accepted)
    victims = {"here": [trip.here], "there": [trip.there], "both": [trip.here, trip.there]}[killed]
    for side in victims:
        side.agent.kill()
    trip.hurry()
    for side in victims:
        side.agent.start()
    assert trip.here.finish(accepted).state == "done"
    trip.assert_has_gone()
    trip.arrived()


def test_an_agent_that_is_away_when_it_comes_has_it_when_it_is_back(
    two: TwoHypervisors, sides: dict[Libvirtd, Side], travelling: list[Guest], attached: Wish
) -> None:
    """Nobody can say before that it has come: the source waits, and disconnects nothing."""
    trip = Trip(two, sides, travelling[0])
    accepted = trip.begin(trip.prepare(attached), **SLOWLY)
    trip.wait_copied(accepted)
    trip.there.agent.kill()
    trip.hurry()
    wait_until(lambda: two.find(trip.guest) is trip.there.libvirtd, "it has gone", seconds=60)
    assert trip.here.rows(trip.guest) != []
    trip.there.agent.start()
    assert trip.here.finish(accepted).state == "done"
    trip.assert_has_gone()
    trip.arrived()


@pytest.mark.parametrize("whose", ["here", "there"])
def test_a_libvirtd_that_is_killed_while_it_is_copied(
    two: TwoHypervisors,
    sides: dict[Libvirtd, Side],
    travelling: list[Guest],
    attached: Wish,
    whose: str,
) -> None:
    trip = Trip(two, sides, travelling[0])
    accepted = trip.begin(trip.prepare(attached), **SLOWLY)
    trip.wait_copied(accepted)
    killed: Side = getattr(trip, whose)
    killed.libvirtd.kill()
    killed.libvirtd.start()
    assert trip.here.finish(accepted).state == "undone"
    trip.assert_has_stayed()


def test_a_wire_that_is_cut_while_it_is_copied(
    two: TwoHypervisors, sides: dict[Libvirtd, Side], travelling: list[Guest], attached: Wish
) -> None:
    trip = Trip(two, sides, travelling[0])
    accepted = trip.begin(trip.prepare(attached), **SLOWLY)
    trip.wait_copied(accepted)
    two.cut()
    try:
        answer = trip.here.finish(accepted)
    finally:
        two.mend()
    assert answer.state == "undone"
    assert answer.error is not None
    assert answer.error.code == "migration-failed"
    wait_until(
        lambda: not trip.there.client.get_instance(trip.guest.uuid)["present"],
        "the other side has noticed",
        seconds=60,
    )
    trip.assert_has_stayed()


def test_in_post_copy_nothing_is_disconnected_before_all_of_it_is_there(
    two: TwoHypervisors, sides: dict[Libvirtd, Side], travelling: list[Guest], attached: Wish
) -> None:
    trip = Trip(two, sides, travelling[0])
    accepted = trip.begin_post_copy(trip.prepare(attached))
    late = trip.here.client.cancel_migration(trip.migration_id)
    assert (late.error and late.error.code) == "too-late", late
    assert trip.here.rows(trip.guest) != []
    assert trip.there.rows(trip.guest)[0]["lease"] is not None
    trip.hurry_post_copy()
    assert trip.here.finish(accepted).state == "done"
    trip.assert_has_gone()
    trip.arrived()


def test_what_takes_too_long_ends_in_post_copy(
    two: TwoHypervisors, sides: dict[Libvirtd, Side], travelling: list[Guest], attached: Wish
) -> None:
    options = {"post_copy": True, "on_timeout": "post_copy", "completion_timeout_seconds": 1}
    Trip(two, sides, travelling[0]).go(attached, **options, **SLOWLY)


@pytest.mark.parametrize("killed", ["here", "there", "both"])
def test_agents_that_are_killed_in_post_copy(
    two: TwoHypervisors,
    sides: dict[Libvirtd, Side],
    travelling: list[Guest],
    attached: Wish,
    killed: str,
) -> None:
    trip = Trip(two, sides, travelling[0])
    accepted = trip.begin_post_copy(trip.prepare(attached))
    victims = {"here": [trip.here], "there": [trip.there], "both": [trip.here, trip.there]}[killed]
    for side in victims:
        side.agent.kill()
    for side in victims:
        side.agent.start()
    trip.hurry_post_copy()
    assert trip.here.finish(accepted).state == "done"
    trip.assert_has_gone()
    trip.arrived()


def test_a_libvirtd_that_is_killed_in_post_copy(
    two: TwoHypervisors, sides: dict[Libvirtd, Side], travelling: list[Guest], attached: Wish
) -> None:
    """That of the source: QEMU goes on. If the other's is, they have lost each other, as below."""
    trip = Trip(two, sides, travelling[0])
    accepted = trip.begin_post_copy(trip.prepare(attached))
    trip.here.libvirtd.kill()
    trip.here.libvirtd.start()
    trip.hurry_post_copy()
    assert trip.here.finish(accepted).state == "done"
    trip.assert_has_gone()
    trip.arrived()


def test_a_wire_that_is_cut_in_post_copy(
    two: TwoHypervisors, sides: dict[Libvirtd, Side], volume: LoopVolume
) -> None:
    """Half of its memory is on each side: nobody starts it anew, and nothing is disconnected."""
    guest = two.guest("lost")
    guest.wait_ready()
    wanted = wish(guest, volume, **SHARED)
    sides[two.left].orchestrator.attached(wanted)
    trip = Trip(two, sides, guest)
    accepted = trip.begin_post_copy(trip.prepare(wanted))
    two.cut()
    try:
        trip.wait_for(accepted, "postcopy-failed")
        for side in (trip.here, trip.there):
            side.agent.kill()
            side.agent.start()
        trip.wait_for(accepted, "postcopy-failed")
        seen = [side.client.get_instance(guest.uuid) for side in (trip.here, trip.there)]
        assert [(row["state"], row["job"]) for row in seen] == [
            ("paused", "migration"),
            ("running", "incoming migration"),
        ]
        assert len(volume.users()) == 2
        assert [len(side.rows(guest)) for side in (trip.here, trip.there)] == [1, 1]
    finally:
        two.mend()
        for libvirtd in (two.left, two.right):
            if guest.name in libvirtd.guest_pids():
                os.kill(libvirtd.guest_pids()[guest.name], signal.SIGKILL)
    trip.here.libvirtd.kill()  # it still waits for the other to go on with the post-copy
    trip.here.libvirtd.start()
    assert trip.here.finish(accepted).state == "done"
    (arrived,) = trip.arrived()
    assert trip.here.rows(guest) == []
    assert trip.there.orchestrator.detached(arrived)["disconnected"]
    trip.there.libvirtd.connection().lookupByUUIDString(guest.uuid).undefine()


def test_what_takes_too_long_is_given_up(
    two: TwoHypervisors, sides: dict[Libvirtd, Side], travelling: list[Guest], attached: Wish
) -> None:
    trip = Trip(two, sides, travelling[0])
    accepted = trip.begin(trip.prepare(attached), completion_timeout_seconds=1, **SLOWLY)
    answer = trip.here.finish(accepted)
    assert (answer.state, answer.error and answer.error.code) == ("undone", "migration-failed")
    trip.assert_has_stayed()


def test_a_host_that_is_not_prepared_is_refused_before_anything_is_touched(
    two: TwoHypervisors, sides: dict[Libvirtd, Side], travelling: list[Guest], attached: Wish
) -> None:
    trip = Trip(two, sides, travelling[0])
    part = '<disk type="block"><source dev="/dev/null"/></disk>'
    answer = trip.here.finish(trip.begin({attached["attachment_id"]: part}))
    assert answer.error is not None
    assert answer.error.code == "migration-failed"
    assert "nothing was touched" in answer.error.detail
    trip.assert_has_stayed()


@pytest.mark.parametrize("plug_it", [plug_as_nova, plug_by_hand])
def test_what_was_imported_goes_along(
    two: TwoHypervisors,
    sides: dict[Libvirtd, Side],
    travelling: list[Guest],
    volume: LoopVolume,
    plug_it: Callable[[Guest, LoopVolume, str], None],
) -> None:
    guest = travelling[0]
    side = sides[two.find(guest)]
    plug_it(guest, volume, "vdz")
    wanted = wish(guest, volume)
    imported(side.orchestrator, wanted)
    trip = Trip(two, sides, guest)
    (arrived,) = trip.go(wanted)
    assert trip.there.client.audit()["findings"] == []
    assert trip.there.orchestrator.detached(arrived)["disconnected"]


def test_a_disk_that_is_a_file_of_this_host_keeps_it_here(
    two: TwoHypervisors, sides: dict[Libvirtd, Side]
) -> None:
    file = two.left.directory / "root.img"
    file.write_bytes(bytes(1 << 20))
    disk = (
        "<disk type='file' device='disk'><driver name='qemu' type='raw' cache='none'/>"
        f"<source file='{file}'/><target dev='sda' bus='scsi'/></disk>"
    )
    guest = two.guest("rooted", shape=Shape(has_system=False, memory_mib=32, disks=[disk]))
    trip = Trip(two, sides, guest)
    answer = trip.here.finish(trip.begin({}))
    assert answer.error is not None
    assert answer.error.code == "unsupported"
    assert str(file) in answer.error.detail
    assert "nothing was touched" in answer.error.detail
    guest.destroy()
    guest.undefine()


def test_four_that_share_a_volume_go_at_once(
    two: TwoHypervisors, sides: dict[Libvirtd, Side], volume: LoopVolume
) -> None:
    shape = Shape(has_system=False, memory_mib=32)
    crowd = [two.guest(f"traveller-{number}", shape=shape) for number in range(4)]
    wanted = [wish(guest, volume, disk={"bus": "scsi"}, **SHARED) for guest in crowd]
    for one in wanted:
        sides[two.left].orchestrator.attached(one)
    trips = [Trip(two, sides, guest) for guest in crowd]
    parts = [trip.prepare(one) for trip, one in zip(trips, wanted, strict=True)]
    accepted = [trip.begin(part) for trip, part in zip(trips, parts, strict=True)]
    for trip, one in zip(trips, accepted, strict=True):
        assert trip.here.finish(one).state == "done"
        assert two.find(trip.guest) is two.right
    assert len(volume.users()) == len(crowd)
    results = []
    for trip in trips:
        (one,) = trip.arrived()
        results.append(trip.there.orchestrator.detached(one)["disconnected"])
        trip.guest.destroy()
        trip.guest.undefine()
    assert results == [False, False, False, True]


def test_whatever_dies_at_whatever_instant(
    two: TwoHypervisors,
    sides: dict[Libvirtd, Side],
    travelling: list[Guest],
    volume: LoopVolume,
    rounds: int,
    seed: int,
) -> None:
    """A few instants; ``tools/soak`` takes fifty. Everybody is back at once, so it ends."""
    chance, guest = random.Random(seed), travelling[0]
    wanted = wish(guest, volume, **SHARED)
    sides[two.find(guest)].orchestrator.attached(wanted)
    for number in range(1 + rounds):
        trip = Trip(two, sides, guest)
        what, percent = chance.choice(sorted(DISASTERS)), chance.randrange(101)
        print(f"{number}: {what} at {percent} %, from {trip.here.host}")
        accepted = trip.begin(trip.prepare(wanted), **SLOWLY)
        trip.wait_percent(accepted, percent)
        DISASTERS[what](trip)
        answer = trip.here.finish(accepted)
        assert answer.state in ("done", "undone"), answer
        if answer.state == "done":
            (wanted,) = trip.arrived()
            trip.assert_has_gone()
        else:
            trip.assert_has_stayed()
    assert sides[two.find(guest)].orchestrator.detached(wanted)["disconnected"]


def kill_agents(*names: str) -> Callable[[Trip], None]:
    def act(trip: Trip) -> None:
        agents = [getattr(trip, name).agent for name in names]
        for agent in agents:
            agent.kill()
        for agent in agents:
            agent.start()

    return act


def kill_libvirtd(name: str) -> Callable[[Trip], None]:
    def act(trip: Trip) -> None:
        libvirtd = getattr(trip, name).libvirtd
        libvirtd.kill()
        libvirtd.start()

    return act


def cut_wire(trip: Trip) -> None:
    """For longer than libvirt's keep-alive lets it be; mended when both sides have noticed."""
    trip.two.cut()
    try:
        wait_until(trip.is_over, "both sides have noticed", seconds=120)
    finally:
        trip.two.mend()


DISASTERS: dict[str, Callable[[Trip], None]] = {
    "the agent here is killed": kill_agents("here"),
    "the agent there is killed": kill_agents("there"),
    "both agents are killed": kill_agents("here", "there"),
    "libvirtd here is killed": kill_libvirtd("here"),
    "libvirtd there is killed": kill_libvirtd("there"),
    "the wire is cut": cut_wire,
}
