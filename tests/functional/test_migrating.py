"""Instances go from one hypervisor to the other by their agents, with volumes that others share.

Two agents, two libvirtds, one broker. Whoever is killed on the way, one guest runs in the end, each
side has connected what is used there, and no operation is open.
"""

import contextlib
import os
import random
import signal
import sys
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import libvirt
import pytest
from oslo_config import cfg

from agent.bus.client import AgentClient
from agent.host.libvirt_abilities import version_of
from agent.model.outcome import Answer
from agent.steps.migrate import DIES_OF_GOING_ON
from tests.functional.orchestrator import OPERATION_SECONDS, Orchestrator, Wish, wish
from tests.functional.test_imports import imported, plug_as_nova, plug_by_hand
from tests.functional.writer import Writer
from tests.lab import newer_agent
from tests.lab.agent_process import AgentProcess
from tests.lab.guest import Guest, Shape, block_of
from tests.lab.lab import Lab
from tests.lab.libvirtd import Libvirtd
from tests.lab.loop_volume import LoopVolume
from tests.lab.patience import wait_until
from tests.lab.two_hypervisors import TwoHypervisors, hostname_of, libvirt_uri_for

pytestmark = [pytest.mark.real, pytest.mark.timeout(900)]

SLOWLY = {"bandwidth_bytes_per_second": 4 << 20}
"""A booted guest has some 45 MiB that are not zeros."""

POST_COPY = libvirt.VIR_DOMAIN_MIGRATE_MAX_SPEED_POSTCOPY

ROUND_TRIPS = 5

SHARED = {"multiattach": True}

EACH_AND_BOTH = [("here",), ("there",), ("here", "there")]


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

    def prepare(
        self, *wanted: Wish, meanwhile: "Callable[[Trip], None] | None" = None
    ) -> dict[str, str]:
        """``wanted``: the attachments here; over there each has another id."""
        self.coming = [
            {**one, "attachment_id": str(uuid.uuid4()), "replaces": one["attachment_id"]}
            for one in wanted
        ]
        accepted = self.there.client.prepare_migration(
            self.migration_id, self.guest.uuid, self.coming, source_host=self.here.host
        )
        if meanwhile is not None:
            meanwhile(self)
        done = self.there.finish(accepted)
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

    def is_broken(self) -> bool:
        """A post-copy, by the word of the source's operation."""
        found = self.here.client.list_operations(open=True)
        return any("postcopy-failed" in (row["waiting_for"] or "") for row in found)

    def go(self, *wanted: Wish, **options: Any) -> list[Wish]:
        """It must succeed; the attachments over there."""
        return self.end(self.begin(self.prepare(*wanted), **options))

    def end(self, accepted: Answer, *, seconds: float = OPERATION_SECONDS) -> list[Wish]:
        """It must succeed, and nothing of it be left here; the attachments over there."""
        answer = self.here.finish(accepted, seconds=seconds)
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
        self.dawdle_in_post_copy()
        accepted = self.begin(parts, post_copy=True, **SLOWLY)
        self.wait_copied(accepted)
        self.guest.domain.migrateStartPostCopy()
        self.wait_switched()
        return accepted

    def wait_switched(self) -> None:
        """It runs over there, and its memory is still here."""
        self.wait_runs_there()
        assert self.here.client.get_instance(self.guest.uuid)["job"] == "migration"

    def wait_runs_there(self) -> None:
        wait_until(
            lambda: self.there.client.get_instance(self.guest.uuid)["state"] == "running",
            "it runs over there",
            seconds=60,
        )

    def wait_for(self, accepted: Answer, what: str) -> None:
        """It is told as what it waits for."""
        operation_id = accepted.operation_id
        assert operation_id is not None
        wait_until(
            lambda: what in (self.here.client.get_operation(operation_id).waiting_for or ""),
            what,
            seconds=120,
        )

    def dawdle_in_post_copy(self) -> None:
        """Before it begins: whoever switches it over, it is not over before we have looked."""
        self.guest.domain.migrateSetMaxSpeed(1, POST_COPY)

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
        wait_until(lambda: not other.has(self.guest.uuid), "no second domain", seconds=20)
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
    wait_until(lambda: not is_on_its_way(guest, sides), "no trip is left open", seconds=60)
    side = sides[two.find(guest)]
    for row in side.rows(guest):
        answer = side.finish(side.client.detach(row["attachment_id"], guest.uuid))
        assert answer.state == "done", answer


def is_on_its_way(guest: Guest, sides: dict[Libvirtd, Side]) -> bool:
    """Also by what a test that failed has left: the next one is not to suffer from it."""
    return any(
        side.open_operations() or any(row["lease"] for row in side.rows(guest))
        for side in sides.values()
    )


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
        for _ in range(2 * ROUND_TRIPS * rounds):
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
    another = {**attached, "attachment_id": str(uuid.uuid4()), "volume_id": str(uuid.uuid4())}
    client = trip.here.client
    for refused in (
        client.attach(another),
        client.detach(attached["attachment_id"], trip.guest.uuid),
    ):
        assert (refused.error and refused.error.code) == "busy", refused
    cancelled = trip.here.finish(trip.here.client.cancel_migration(trip.migration_id))
    assert cancelled.state == "done", cancelled
    assert trip.here.finish(accepted).state == "cancelled"
    trip.assert_has_stayed()


@pytest.mark.parametrize("killed", EACH_AND_BOTH, ids="+".join)
def test_agents_that_are_killed_while_it_is_copied(
    two: TwoHypervisors,
    sides: dict[Libvirtd, Side],
    travelling: list[Guest],
    attached: Wish,
    killed: tuple[str, ...],
) -> None:
    trip = Trip(two, sides, travelling[0])
    accepted = trip.begin(trip.prepare(attached), **SLOWLY)
    trip.wait_copied(accepted)
    victims = [getattr(trip, name).agent for name in killed]
    for agent in victims:
        agent.kill()
    trip.hurry()
    for agent in victims:
        agent.start()
    trip.end(accepted)


def test_agents_that_are_killed_before_and_after_the_copy(
    two: TwoHypervisors, sides: dict[Libvirtd, Side], travelling: list[Guest], attached: Wish
) -> None:
    """The destination's gets ready again; the source's finds that the guest has gone."""
    trip = Trip(two, sides, travelling[0])
    parts = trip.prepare(attached, meanwhile=kill_agents("there"))
    accepted = trip.begin(parts, **SLOWLY)
    trip.wait_copied(accepted)
    trip.hurry()
    wait_until(lambda: two.find(trip.guest) is trip.there.libvirtd, "it has gone", seconds=60)
    kill_agents("here")(trip)
    trip.end(accepted)


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
    trip.wait_for(accepted, "to say that it has the instance")
    assert trip.here.rows(trip.guest) != []
    trip.there.agent.start()
    trip.end(accepted)


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


def test_both_paused_is_for_people_and_goes_on_when_they_have_looked(
    two: TwoHypervisors, sides: dict[Libvirtd, Side], travelling: list[Guest], attached: Wish
) -> None:
    """As after several deaths: nobody is left who can tell. The source's is made by hand."""
    trip = Trip(two, sides, travelling[0])
    accepted = trip.begin(trip.prepare(attached), **SLOWLY)
    trip.wait_copied(accepted)
    trip.here.agent.kill()
    trip.hurry()
    wait_until(lambda: two.find(trip.guest) is trip.there.libvirtd, "it has gone", seconds=60)
    trip.guest.pause()
    paused = libvirt.VIR_DOMAIN_START_PAUSED
    left = trip.here.libvirtd.connection().createXML(trip.guest.xml(), paused)
    trip.here.agent.start()

    def state() -> str:
        assert accepted.operation_id is not None
        return trip.here.client.get_operation(accepted.operation_id).state

    wait_until(lambda: state() == "unsettled", "somebody must look", seconds=120)
    assert (trip.guest.state, left.state()[0]) == ("paused", libvirt.VIR_DOMAIN_PAUSED)
    assert [len(side.rows(trip.guest)) for side in (trip.here, trip.there)] == [1, 1]
    trip.guest.resume()
    trip.end(accepted, seconds=180)


def test_in_post_copy_nothing_is_disconnected_before_all_of_it_is_there(
    two: TwoHypervisors, sides: dict[Libvirtd, Side], travelling: list[Guest], attached: Wish
) -> None:
    trip = Trip(two, sides, travelling[0])
    accepted = trip.begin_post_copy(trip.prepare(attached))
    late = trip.here.client.cancel_migration(trip.migration_id)
    assert (late.error and late.error.code) == "too-late", late
    trip.wait_for(accepted, "to fetch the rest")
    assert trip.here.rows(trip.guest) != []
    assert trip.there.rows(trip.guest)[0]["lease"] is not None
    trip.hurry_post_copy()
    trip.end(accepted)


def test_what_takes_too_long_ends_in_post_copy(
    two: TwoHypervisors, sides: dict[Libvirtd, Side], travelling: list[Guest], attached: Wish
) -> None:
    options = {"post_copy": True, "on_timeout": "post_copy", "completion_timeout_seconds": 1}
    trip = Trip(two, sides, travelling[0])
    trip.dawdle_in_post_copy()
    accepted = trip.begin(trip.prepare(attached), **options, **SLOWLY)
    trip.wait_switched()
    trip.hurry_post_copy()
    trip.end(accepted)


@pytest.mark.parametrize("killed", EACH_AND_BOTH, ids="+".join)
def test_agents_that_are_killed_in_post_copy(
    two: TwoHypervisors,
    sides: dict[Libvirtd, Side],
    travelling: list[Guest],
    attached: Wish,
    killed: tuple[str, ...],
) -> None:
    trip = Trip(two, sides, travelling[0])
    accepted = trip.begin_post_copy(trip.prepare(attached))
    kill_agents(*killed)(trip)
    trip.hurry_post_copy()
    trip.end(accepted)


@pytest.mark.parametrize("whose", ["here", "there"])
def test_a_libvirtd_that_is_killed_in_post_copy(
    two: TwoHypervisors,
    sides: dict[Libvirtd, Side],
    travelling: list[Guest],
    attached: Wish,
    whose: str,
) -> None:
    """QEMU goes on, and nobody disturbs it: libvirt needs not know of the other libvirt."""
    trip = Trip(two, sides, travelling[0])
    accepted = trip.begin_post_copy(trip.prepare(attached))
    kill_libvirtd(whose)(trip)
    if whose == "there":
        trip.wait_for(accepted, "postcopy-failed")
    trip.hurry_post_copy()
    trip.end(accepted, seconds=180)


def test_a_wire_that_is_cut_in_post_copy(
    two: TwoHypervisors,
    sides: dict[Libvirtd, Side],
    travelling: list[Guest],
    attached: Wish,
    volume: LoopVolume,
) -> None:
    """Half of its memory is on each side: nobody starts it anew, nothing is disconnected, and it
    goes on when the wire is mended."""
    trip = Trip(two, sides, travelling[0])
    accepted = trip.begin_post_copy(trip.prepare(attached))
    both = (trip.here, trip.there)
    two.cut()
    try:
        trip.wait_for(accepted, "postcopy-failed")
        kill_agents("here", "there")(trip)
        trip.wait_for(accepted, "postcopy-failed")
        seen = [side.client.get_instance(trip.guest.uuid) for side in both]
        assert [(row["state"], row["job"]) for row in seen] == [
            ("paused", "migration"),
            ("running", "incoming migration"),
        ]
        assert len(volume.users()) == 2
        assert [len(side.rows(trip.guest)) for side in both] == [1, 1]
    finally:
        two.mend()
    trip.hurry_post_copy()
    trip.end(accepted, seconds=180)


def test_a_post_copy_that_both_have_given_up(
    two: TwoHypervisors, sides: dict[Libvirtd, Side], travelling: list[Guest], attached: Wish
) -> None:
    """The wire is cut for so long that the QEMUs hang up, too: it goes on by a new connection.

    What the guest needs to stand by is there already: an emulated QEMU that waits for a page in an
    interrupt keeps its monitor locked, and nobody could tell it of the new connection."""
    if version_of(two.right.connection().getLibVersion()) >= DIES_OF_GOING_ON:
        pytest.skip("this libvirt dies of it, and is not asked")
    trip = Trip(two, sides, travelling[0])
    accepted = trip.begin_post_copy(trip.prepare(attached))
    trip.guest.is_now_at(trip.there.libvirtd)
    trip.guest.boot_id(seconds=120)
    trip.guest.is_now_at(trip.here.libvirtd)
    two.cut()
    try:
        trip.wait_for(accepted, "postcopy-failed")
        two.hang_up()
    finally:
        two.mend()
    trip.hurry_post_copy()
    trip.end(accepted, seconds=180)


def test_a_guest_that_dies_in_a_broken_post_copy(
    two: TwoHypervisors, sides: dict[Libvirtd, Side], volume: LoopVolume
) -> None:
    """Nobody starts it anew. When both are gone, nothing of it is left at the source."""
    guest = two.guest("lost")
    guest.wait_ready()
    wanted = wish(guest, volume, **SHARED)
    sides[two.left].orchestrator.attached(wanted)
    trip = Trip(two, sides, guest)
    accepted = trip.begin_post_copy(trip.prepare(wanted))
    two.cut()
    try:
        trip.wait_for(accepted, "postcopy-failed")
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


@pytest.fixture
def upgraded(two: TwoHypervisors, sides: dict[Libvirtd, Side]) -> Iterator[Side]:
    """The right one has an agent of the next wire, the left one's is of this."""
    side = sides[two.right]
    shipped = side.agent.program
    for program in ([sys.executable, str(Path(newer_agent.__file__))], shipped):
        side.agent.kill()
        side.agent.program = program
        side.agent.start()
        side.agent.wait_connected()
        if program is not shipped:
            yield side


def test_agents_of_this_wire_and_the_next_go_side_by_side(
    two: TwoHypervisors,
    sides: dict[Libvirtd, Side],
    travelling: list[Guest],
    attached: Wish,
    upgraded: Side,
) -> None:
    """There and back: each is source and destination once, and asks the other."""
    versions = {side.client.describe()["wire"] for side in sides.values()}
    assert versions == {"1.0", newer_agent.NEXT}
    for _ in range(2):
        (attached,) = Trip(two, sides, travelling[0]).go(attached)


def test_cancelled_at_the_source_before_it_is_asked_to_go(
    two: TwoHypervisors, sides: dict[Libvirtd, Side], travelling: list[Guest], attached: Wish
) -> None:
    """It knows nothing of the destination, which finds out."""
    trip = Trip(two, sides, travelling[0])
    trip.prepare(attached)
    assert trip.here.finish(trip.here.client.cancel_migration(trip.migration_id)).state == "done"
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
        accepted = trip.begin(trip.prepare(wanted), post_copy=True, **SLOWLY)
        trip.wait_percent(accepted, percent)
        DISASTERS[what](trip)
        answer = trip.here.finish(accepted, seconds=180)
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


def in_post_copy(act: Callable[[Trip], None]) -> Callable[[Trip], None]:
    """Switched over first, unless it has gone already; it fetches what is missing slowly until
    that has happened."""

    def switch(trip: Trip) -> None:
        try:
            trip.guest.domain.migrateSetMaxSpeed(1, POST_COPY)
            trip.guest.domain.migrateStartPostCopy()
        except libvirt.libvirtError as error:
            print(f"it has gone before: {error}")
        trip.wait_runs_there()
        act(trip)
        trip.hurry_post_copy()

    return switch


def cut_wire(trip: Trip) -> None:
    """For longer than libvirt's keep-alive lets it be; mended when both sides have noticed."""
    trip.two.cut()
    try:
        wait_until(trip.is_over, "both sides have noticed", seconds=120)
    finally:
        trip.two.mend()


def cut_in_post_copy(trip: Trip) -> None:
    """Until one side has noticed: the memory of the guest is on both."""
    trip.two.cut()
    try:
        wait_until(lambda: trip.is_over() or trip.is_broken(), "it is noticed", seconds=120)
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
DISASTERS |= {
    f"{what}, in post-copy": in_post_copy(act)
    for what, act in {**DISASTERS, "the wire is cut": cut_in_post_copy}.items()
}
