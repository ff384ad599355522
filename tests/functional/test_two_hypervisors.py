"""Guests go from one hypervisor to another with a disk that others use as well.

No agent yet: what its adapter of libvirt does, while guests write, while the wire is cut, and when
the process that asked is killed.
"""

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import libvirt
import pytest

from agent.errors import MigrationFailed, TooLate, Unavailable, Unsupported
from agent.model.migration import Journey, MigrationOptions
from tests.functional.stranger import is_plugged, plug, unplug
from tests.functional.writer import Writer
from tests.lab.certificates import Authority
from tests.lab.guest import Guest, Shape, block_of
from tests.lab.lab import Lab
from tests.lab.libvirtd import Libvirtd
from tests.lab.loop_volume import LoopVolume
from tests.lab.patience import wait_until
from tests.lab.side import Side
from tests.lab.two_hypervisors import TwoHypervisors, address_of, hostname_of, libvirt_uri_for

pytestmark = pytest.mark.real

SLOWLY = 4 << 20
"""Bytes a second: a booted guest has some 45 MiB that are not zeros."""

ROUND_TRIPS = 3


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    with Lab() as lab:
        yield lab


@pytest.fixture(scope="module")
def two(lab: Lab) -> Iterator[TwoHypervisors]:
    with TwoHypervisors(lab) as two:
        yield two


@pytest.fixture(scope="module")
def sides(two: TwoHypervisors) -> Iterator[dict[Libvirtd, Side]]:
    with Side(two.left) as left, Side(two.right) as right:
        yield {two.left: left, two.right: right}


@pytest.fixture(scope="module")
def guests(two: TwoHypervisors) -> list[Guest]:
    """One that goes, and one that stays on the left."""
    guests = [two.guest(name) for name in ("traveller", "neighbour")]
    for guest in guests:
        guest.wait_ready()
    return guests


@pytest.fixture
def volume(lab: Lab) -> Iterator[LoopVolume]:
    with lab.volume() as volume:
        yield volume
        volume.assert_unused()


class Trip:
    """Of the traveller, from where it is, with a shared disk."""

    def __init__(self, two: TwoHypervisors, sides: dict[Libvirtd, Side], guest: Guest) -> None:
        self.two = two
        self.guest = guest
        self.here = sides[two.find(guest)]
        self.there = sides[two.other(guest.hypervisor)]
        self.migrations = self.here.migrations

    def journey(self, **options: int | bool | str) -> Journey:
        live_xml, persistent_xml = self.migrations.descriptions(self.guest.uuid)
        return Journey(
            libvirt_uri=libvirt_uri_for(self.there.libvirtd),
            migrate_uri=None,
            live_xml=live_xml,
            persistent_xml=persistent_xml,
            options=MigrationOptions.parse(options),
        )

    def begin(self, **options: int | bool | str) -> None:
        """The copy has begun; one that nothing holds back may be over before anybody looks."""
        self.migrations.start(self.guest.uuid, self.journey(**options))
        wait_until(
            lambda: self.phase() not in ("setup", "not known"), "the copy has begun", seconds=60
        )

    def phase(self) -> str | None:
        """None: nothing goes."""
        try:
            progress = self.migrations.progress(self.guest.uuid)
        except Unavailable:
            return "not known"
        return None if progress is None else progress.phase

    def wait_phase(self, phase: str | None, *, seconds: float = 60) -> None:
        wait_until(lambda: self.phase() == phase, f"its phase is {phase}", seconds=seconds)

    def wait_runs_there(self) -> None:
        def runs() -> bool:
            found = self.there.domains.look(self.guest.uuid)
            return found is not None and found.state == "running"

        wait_until(runs, "it runs over there", seconds=60)

    def hurry(self) -> None:
        self.guest.domain.migrateSetMaxSpeed(1000)

    def assert_runs_on_alone(self, libvirtd: Libvirtd) -> None:
        """Exactly one domain, exactly one QEMU, and it answers."""
        assert self.two.find(self.guest) is libvirtd
        assert self.guest.state == "running"
        other = self.two.other(libvirtd)
        wait_until(lambda: self.guest.name not in other.guest_pids(), "no second QEMU", seconds=10)
        assert self.guest.name in libvirtd.guest_pids()
        wait_until(lambda: not other.has(self.guest.uuid), "no second domain", seconds=10)
        self.guest.disks()


@pytest.fixture
def trip(
    two: TwoHypervisors, sides: dict[Libvirtd, Side], guests: list[Guest], volume: LoopVolume
) -> Iterator[Trip]:
    trip = Trip(two, sides, guests[0])
    plug(guests[0], volume)
    yield trip
    two.find(guests[0])
    unplug(guests[0], volume)


def test_it_writes_on_wherever_it_is_and_a_neighbour_sees_every_byte(
    two: TwoHypervisors,
    sides: dict[Libvirtd, Side],
    guests: list[Guest],
    volume: LoopVolume,
    rounds: int,
) -> None:
    traveller, neighbour = guests
    for guest in guests:
        plug(guest, volume)
    disk, seen = (guest.wait_for_disk(volume.volume_id).name for guest in guests)
    writer = Writer(two, traveller, disk)
    writer.start()
    try:
        for _ in range(2 * ROUND_TRIPS * rounds):
            trip = Trip(two, sides, traveller)
            before = writer.written
            trip.begin()
            trip.wait_phase(None)
            two.find(traveller)
            assert trip.migrations.refusal(traveller.uuid) is None
            wait_until(lambda: writer.written > before + 3, "it writes on", seconds=30)  # noqa: B023
            trip.assert_runs_on_alone(trip.there.libvirtd)
    finally:
        writer.stop()
    last = writer.written - 1
    assert neighbour.read(seen, offset_mib=last % 8) == f"word-{last}"
    assert volume.read(offset_mib=last % 8) == block_of(f"word-{last}")
    assert traveller.io_errors() == []
    for guest in guests:
        unplug(guest, volume)


def test_progress_goes_forward_and_is_over_at_the_end(trip: Trip) -> None:
    trip.begin(bandwidth_bytes_per_second=SLOWLY)
    left = []
    while (progress := trip.migrations.progress(trip.guest.uuid)) is not None:
        if progress.phase == "precopy":
            left.append(progress.remaining_bytes)
            assert progress.total_bytes >= progress.remaining_bytes
    # A new round begins with what the guest wrote in the last one: then it is more for a moment.
    assert max(left) == left[0] > left[-1]
    trip.assert_runs_on_alone(trip.there.libvirtd)


@pytest.mark.parametrize(
    "options",
    [
        {"auto_converge": True},
        {"parallel_connections": 2},
        {"post_copy": True},
        {"bandwidth_bytes_per_second": 64 << 20},
    ],
    ids=str,
)
def test_each_way_of_going(trip: Trip, options: dict[str, int | bool | str]) -> None:
    trip.migrations.start(trip.guest.uuid, trip.journey(**options))
    trip.wait_phase(None)
    assert trip.migrations.refusal(trip.guest.uuid) is None
    trip.assert_runs_on_alone(trip.there.libvirtd)


def test_for_how_long_it_may_stand_still(trip: Trip) -> None:
    trip.begin(bandwidth_bytes_per_second=SLOWLY, max_downtime_milliseconds=170)
    assert trip.guest.domain.migrateGetMaxDowntime() == 170
    trip.migrations.allow_downtime(trip.guest.uuid, 900)
    assert trip.guest.domain.migrateGetMaxDowntime() == 900
    trip.migrations.abort(trip.guest.uuid)
    trip.wait_phase(None)


def test_without_certificates_there_is_no_tls(trip: Trip) -> None:
    trip.migrations.start(trip.guest.uuid, trip.journey(tls=True))
    trip.wait_phase(None)
    refusal = trip.migrations.refusal(trip.guest.uuid)
    assert isinstance(refusal, Unsupported)
    assert "options.tls" in refusal.detail
    trip.assert_runs_on_alone(trip.here.libvirtd)


@pytest.fixture
def trusting(two: TwoHypervisors, tmp_path: Path) -> Iterator[None]:
    """Both have certificates of one authority."""
    authority = Authority(tmp_path)
    for libvirtd in (two.left, two.right):
        signed = authority.sign(hostname_of(libvirtd), address_of(libvirtd))
        shutil.copy(signed.authority, libvirtd.pki / "ca-cert.pem")
        for role in ("server", "client"):
            shutil.copy(signed.file, libvirtd.pki / f"{role}-cert.pem")
            shutil.copy(signed.key, libvirtd.pki / f"{role}-key.pem")
    yield
    for libvirtd in (two.left, two.right):
        for file in libvirtd.pki.iterdir():
            file.unlink()


@pytest.mark.usefixtures("trusting")
def test_with_certificates_it_goes_by_tls(trip: Trip) -> None:
    trip.migrations.start(trip.guest.uuid, trip.journey(tls=True))
    trip.wait_phase(None)
    assert trip.migrations.refusal(trip.guest.uuid) is None
    trip.assert_runs_on_alone(trip.there.libvirtd)


def test_four_that_share_a_volume_go_at_once(
    two: TwoHypervisors, sides: dict[Libvirtd, Side], volume: LoopVolume
) -> None:
    shape = Shape(has_system=False, memory_mib=32)
    crowd = [two.guest(f"member-{number}", shape=shape) for number in range(4)]
    for guest in crowd:
        plug(guest, volume, bus="scsi")
    trips = [Trip(two, sides, guest) for guest in crowd]
    for trip in trips:
        trip.migrations.start(trip.guest.uuid, trip.journey())
    for trip in trips:
        trip.wait_phase(None)
        assert trip.migrations.refusal(trip.guest.uuid) is None
        assert two.find(trip.guest) is two.right
        assert is_plugged(trip.guest, volume)
    assert len(volume.users()) == len(crowd)
    for guest in crowd:
        guest.destroy()
        guest.undefine()


def test_given_up_it_keeps_its_disk(trip: Trip, volume: LoopVolume) -> None:
    trip.begin(bandwidth_bytes_per_second=SLOWLY)
    trip.migrations.abort(trip.guest.uuid)
    trip.wait_phase(None)
    trip.assert_runs_on_alone(trip.here.libvirtd)
    assert is_plugged(trip.guest, volume)


def test_a_cut_while_it_is_copied_leaves_it_where_it_was(trip: Trip) -> None:
    trip.begin(bandwidth_bytes_per_second=SLOWLY)
    trip.two.cut()
    try:
        trip.wait_phase(None)
        trip.assert_runs_on_alone(trip.here.libvirtd)
    finally:
        trip.two.mend()
    refusal = trip.migrations.refusal(trip.guest.uuid)
    assert isinstance(refusal, MigrationFailed)
    assert "broke" in refusal.detail

    trip.begin()
    trip.wait_phase(None)
    trip.assert_runs_on_alone(trip.there.libvirtd)


def test_a_post_copy_that_is_cut_is_told_as_such_and_holds_nobody_up(
    two: TwoHypervisors, sides: dict[Libvirtd, Side]
) -> None:
    """Asked for numbers then, QEMU would hold libvirt up until TCP gives up: minutes. That it goes
    on when the wire is mended is in test_migrating.py."""
    guest = two.guest("lost")
    guest.wait_ready()
    trip = Trip(two, sides, guest)
    # In post-copy nothing else holds it back: it would be over before the wire is cut.
    guest.domain.migrateSetMaxSpeed(1, libvirt.VIR_DOMAIN_MIGRATE_MAX_SPEED_POSTCOPY)
    trip.begin(post_copy=True, bandwidth_bytes_per_second=SLOWLY)
    trip.migrations.start_post_copy(guest.uuid)
    trip.wait_runs_there()
    two.cut()
    try:
        with pytest.raises(TooLate):
            trip.migrations.abort(guest.uuid)
        trip.wait_phase("postcopy-failed")
        here, there = trip.here.domains.look(guest.uuid), trip.there.domains.look(guest.uuid)
        assert here is not None
        assert there is not None
        assert (here.state, here.job) == ("paused", "migration")
        assert (there.state, there.job) == ("running", "incoming migration")
        assert isinstance(trip.migrations.refusal(guest.uuid), MigrationFailed)
        with pytest.raises(TooLate):
            trip.migrations.abort(guest.uuid)
    finally:
        two.mend()
        for libvirtd in (two.left, two.right):
            if guest.name in libvirtd.guest_pids():
                os.kill(libvirtd.guest_pids()[guest.name], signal.SIGKILL)


@pytest.mark.parametrize("whose", ["here", "there"])
def test_a_libvirtd_that_is_killed_while_it_is_copied(trip: Trip, whose: str) -> None:
    trip.begin(bandwidth_bytes_per_second=SLOWLY)
    killed: Side = getattr(trip, whose)
    killed.libvirtd.kill()
    killed.libvirtd.start()
    trip.wait_phase(None)
    trip.assert_runs_on_alone(trip.here.libvirtd)


_ASKER = """
import os, sys, time
from agent.host.libvirt_connection import LibvirtConnection
from agent.host.libvirt_migrations import LibvirtMigrations
from agent.model.migration import Journey, MigrationOptions
uri, instance_id, destination = sys.argv[1:]
migrations = LibvirtMigrations(LibvirtConnection(uri), lambda _: None)
options = MigrationOptions(bandwidth_bytes_per_second=4 << 20)
journey = Journey(destination, None, *migrations.descriptions(instance_id), options)
migrations.start(instance_id, journey)
while migrations.progress(instance_id).phase != "precopy":
    time.sleep(0.01)
os.kill(os.getpid(), 9)
"""


@pytest.fixture
def adopted(trip: Trip) -> Iterator[Trip]:
    """Begun by a process that was killed, and seen by its next life."""
    uris = (trip.here.libvirtd.uri, trip.guest.uuid, libvirt_uri_for(trip.there.libvirtd))
    assert subprocess.run([sys.executable, "-c", _ASKER, *uris], timeout=60).returncode == -9
    with Side(trip.here.libvirtd) as life:
        trip.migrations = life.migrations
        assert trip.phase() == "precopy"
        yield trip


def test_who_asked_is_killed_and_it_goes_all_the_same(adopted: Trip) -> None:
    adopted.hurry()
    adopted.wait_phase(None)
    adopted.assert_runs_on_alone(adopted.there.libvirtd)
    statistics = wait_until(
        lambda: adopted.migrations.statistics(adopted.guest.uuid) or None,
        "how it was is heard",
        seconds=10,
    )
    assert statistics["transferred_bytes"] > 0


def test_who_asked_is_killed_and_another_life_gives_it_up(adopted: Trip) -> None:
    adopted.migrations.abort(adopted.guest.uuid)
    adopted.wait_phase(None)
    adopted.assert_runs_on_alone(adopted.here.libvirtd)
    assert adopted.migrations.refusal(adopted.guest.uuid) is None, "that life has asked nothing"


_VICTIM = """
import time
from tests.lab.guest import Shape
from tests.lab.lab import Lab
from tests.lab.two_hypervisors import TwoHypervisors
with Lab() as lab, TwoHypervisors(lab) as two:
    two.guest("lonely", shape=Shape(has_system=False, memory_mib=32))
    sides = (two.left, two.right)
    pids = [side.pid for side in sides] + [side.enclosure.first_pid for side in sides]
    print(*pids, *two.left.guest_pids().values(), flush=True)
    time.sleep(1000)
"""


def test_a_killed_test_leaves_nothing_of_either() -> None:
    """The network ends with the last process in it, and the wire with the network."""
    victim = subprocess.Popen([sys.executable, "-c", _VICTIM], stdout=subprocess.PIPE, text=True)
    assert victim.stdout is not None
    with victim.stdout as output:
        pids = output.readline().split()
    victim.kill()
    victim.wait()
    assert len(pids) == 5
    for pid in pids:
        wait_until(partial(_has_ended, pid), f"{pid} ends", seconds=10)
    with Lab():
        pass  # it removes the directory


def _has_ended(pid: str) -> bool:
    return not Path(f"/proc/{pid}").exists()
