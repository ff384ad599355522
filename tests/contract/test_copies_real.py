"""The contract of ports.Copies on a real libvirtd with real QEMUs, and what only those can do."""

import threading
from collections.abc import Callable, Iterator

import pytest

from agent.errors import Unsupported
from agent.host.libvirt_connection import LibvirtConnection
from agent.host.libvirt_copies import LibvirtCopies
from agent.host.libvirt_domains import LibvirtDomains
from agent.host.libvirt_events import LibvirtEvents
from agent.model.copy import CopyWishes
from agent.ports import SYNCHRONOUS_WRITES
from tests.contract.copies import MIB, CopiedDisk, CopiesContract, CopyBench, destination_xml
from tests.lab.guest import Guest, Shape
from tests.lab.lab import Lab
from tests.lab.patience import wait_until

pytestmark = pytest.mark.real

BARE = Shape(has_system=False, spare_ports=1, memory_mib=32)


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    with Lab() as lab:
        yield lab


@pytest.fixture(scope="module")
def connection(lab: Lab) -> Iterator[LibvirtConnection]:
    connection = LibvirtConnection(lab.libvirtd.uri)
    yield connection
    connection.close()


@pytest.fixture(scope="module")
def guests(lab: Lab) -> tuple[Guest, Guest, Guest]:
    """Running, shut off, transient."""
    return (
        lab.guest(shape=BARE),
        lab.guest(shape=BARE, start=False),
        lab.guest(shape=BARE, is_persistent=False),
    )


class TestReal(CopiesContract):
    @pytest.fixture
    def bench(
        self, lab: Lab, connection: LibvirtConnection, guests: tuple[Guest, Guest, Guest]
    ) -> CopyBench:
        return CopyBench(
            domains=LibvirtDomains(connection),
            copies=LibvirtCopies(connection),
            running=guests[0].uuid,
            shut_off=guests[1].uuid,
            transient=guests[2].uuid,
            make_volume=lambda size_bytes: lab.volume(size_mib=size_bytes // MIB).path,
            wait=lambda condition, what: wait_until(condition, what, seconds=30) and None,
        )

    def test_with_synchronous_writes(self, disk: CopiedDisk) -> None:
        disk.start(disk.bench.make_volume(16 * MIB), synchronous_writes=True)
        disk.wait_copied()
        disk.abort()

    def test_without_them_they_are_refused(
        self, disk: CopiedDisk, connection: LibvirtConnection
    ) -> None:
        copies = LibvirtCopies(connection, without={SYNCHRONOUS_WRITES})
        xml = destination_xml(disk.bench.make_volume(16 * MIB))
        with pytest.raises(Unsupported):
            copies.start(
                disk.instance_id, disk.target_dev, xml, CopyWishes(synchronous_writes=True)
            )
        assert disk.live.copies_to is None

    def test_libvirtd_dies_and_the_copy_is_found_again(self, disk: CopiedDisk, lab: Lab) -> None:
        destination = disk.bench.make_volume(16 * MIB)
        disk.start(destination, bandwidth_bytes_per_second=4 * MIB)
        lab.libvirtd.kill()
        lab.libvirtd.start()

        def is_back() -> bool:
            return disk.bench.domains.answering()

        wait_until(is_back, "libvirt is back", seconds=30)
        assert disk.live.copies_to == destination
        disk.wait_copied()
        disk.pivot()
        assert disk.live.source == destination

    def test_being_ready_and_each_end_stir_the_instance(self, disk: CopiedDisk, lab: Lab) -> None:
        heard: list[str] = []
        connected = threading.Event()
        connection = LibvirtConnection(lab.libvirtd.uri)
        events = LibvirtEvents(connection, heard.append, connected.set)
        events.start()
        assert connected.wait(30)

        def stirred(by: Callable[[], None], what: str) -> None:
            heard.clear()
            by()
            wait_until(lambda: disk.instance_id in heard, what, seconds=30)

        destination = disk.bench.make_volume(16 * MIB)
        stirred(lambda: disk.start(destination), "it is ready")
        assert disk.live.is_copied
        stirred(disk.abort, "it was given up")
        stirred(lambda: disk.start(destination), "it is ready again")
        stirred(disk.pivot, "it has pivoted")
        small = disk.bench.make_volume(8 * MIB)
        stirred(lambda: disk.start(small), "it has failed")
        events.close()
        connection.close()
