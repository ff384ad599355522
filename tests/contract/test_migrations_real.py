"""The contract of ports.Migrations between two real libvirtds, and what only those can do."""

from collections.abc import Callable, Iterator
from contextlib import suppress

import libvirt
import pytest

from tests.contract.migrations import Bench, MigrationsContract
from tests.lab.guest import Guest, Shape
from tests.lab.lab import Lab
from tests.lab.libvirtd import Libvirtd
from tests.lab.patience import wait_until
from tests.lab.side import Side
from tests.lab.two_hypervisors import TwoHypervisors, address_of, libvirt_uri_for

pytestmark = pytest.mark.real

SHAPE = Shape(spare_ports=4, scsi_controllers=1, memory_mib=192)

FAST_MIB_PER_SECOND = 1000


@pytest.fixture(scope="module")
def two() -> Iterator[TwoHypervisors]:
    with Lab() as lab, TwoHypervisors(lab) as two:
        yield two


@pytest.fixture(scope="module")
def sides(two: TwoHypervisors) -> Iterator[dict[Libvirtd, Side]]:
    with Side(two.left) as left, Side(two.right) as right:
        yield {two.left: left, two.right: right}


@pytest.fixture(scope="module")
def guest(two: TwoHypervisors) -> Guest:
    """Booted: a memory without a system in it is copied in no time."""
    guest = two.guest("traveller", shape=SHAPE)
    guest.wait_ready()
    return guest


def make_bench(two: TwoHypervisors, sides: dict[Libvirtd, Side], guest: Guest) -> Bench:
    here = sides[guest.hypervisor]
    there = sides[two.other(guest.hypervisor)]

    def domain(side: Side) -> libvirt.virDomain:
        return side.libvirtd.connection().lookupByUUIDString(guest.uuid)

    def hurry() -> None:
        """Unless it is over."""
        with suppress(libvirt.libvirtError):
            domain(here).migrateSetMaxSpeed(FAST_MIB_PER_SECOND)

    def wait(is_so: Callable[[], bool], what: str) -> None:
        wait_until(is_so, what, seconds=60)

    return Bench(
        here=here.migrations,
        here_domains=here.domains,
        there=there.migrations,
        there_domains=there.domains,
        instance_id=guest.uuid,
        there_uri=libvirt_uri_for(there.libvirtd),
        nowhere_uri=f"qemu+tcp://{address_of(there.libvirtd)}:1/system",
        hurry=hurry,
        wait=wait,
        stirred=lambda: here.stirred[guest.uuid],
        suspend=lambda: domain(here).suspend(),
        resume=lambda: domain(there).resume(),
    )


class TestReal(MigrationsContract):
    @pytest.fixture
    def bench(
        self, two: TwoHypervisors, sides: dict[Libvirtd, Side], guest: Guest
    ) -> Iterator[Bench]:
        yield make_bench(two, sides, guest)
        two.find(guest)
        assert guest.state == "running"
        assert guest.disks() == (), "it answers"


def test_what_is_transient_stays_so(two: TwoHypervisors, sides: dict[Libvirtd, Side]) -> None:
    guest = two.guest("fleeting", shape=Shape(has_system=False, memory_mib=32), is_persistent=False)
    bench = make_bench(two, sides, guest)
    assert bench.journey().persistent_xml is None
    bench.here.start(guest.uuid, bench.journey())
    bench.wait_over()
    bench.assert_runs_there()
    two.find(guest)
    assert not guest.domain.isPersistent()
    guest.destroy()


def test_a_leftover_is_cleared(two: TwoHypervisors, sides: dict[Libvirtd, Side]) -> None:
    guest = two.guest("leftover", shape=Shape(has_system=False, memory_mib=32), start=False)
    migrations = sides[two.left].migrations
    guest.start(paused=True)
    migrations.clear(guest.uuid)
    assert guest.state == "gone"
    guest.define()
    migrations.clear(guest.uuid)
    assert guest.state == "gone"


def test_the_password_of_a_console_goes_along(
    two: TwoHypervisors, sides: dict[Libvirtd, Side]
) -> None:
    guest = two.guest("secretive", shape=Shape(has_system=False, memory_mib=32), start=False)
    xml = guest.xml().replace(
        "</devices>", "<graphics type='vnc' port='-1' passwd='pa55'/></devices>"
    )
    two.left.connection().defineXML(xml)
    guest.domain.create()
    for half in sides[two.left].migrations.descriptions(guest.uuid):
        assert half is not None
        assert "pa55" in half
    assert "pa55" not in repr(make_bench(two, sides, guest).journey())
    guest.destroy()
    guest.undefine()


def test_a_disk_that_only_this_host_caches_does_not_go(
    two: TwoHypervisors, sides: dict[Libvirtd, Side]
) -> None:
    """libvirt's own word, should ours not have seen it before (VIR_ERR_MIGRATE_UNSAFE)."""
    disk = (
        "<disk type='file' device='disk'><driver name='qemu' type='raw' cache='writeback'/>"
        f"<source file='{two.left.directory}/cached'/><target dev='sda' bus='scsi'/></disk>"
    )
    (two.left.directory / "cached").write_bytes(bytes(1 << 20))
    guest = two.guest("cached", shape=Shape(has_system=False, memory_mib=32, disks=[disk]))
    bench = make_bench(two, sides, guest)
    bench.here.start(guest.uuid, bench.journey())
    bench.wait_over()
    refusal = bench.here.refusal(guest.uuid)
    assert refusal is not None
    assert refusal.code == "unsupported"
    assert "cache none" in refusal.detail
    bench.assert_runs_here()
    guest.destroy()
    guest.undefine()
    assert libvirt.VIR_ERR_MIGRATE_UNSAFE == 81
