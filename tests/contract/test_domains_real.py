"""The contract of ports.Domains on a real libvirtd with real QEMUs, and what only those can do."""

import gc
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import libvirt
import pytest
from lxml import etree

from agent.errors import Busy, NoFreeAddress, PlugRefused, Unavailable
from agent.guest.domain_xml import parse_domain
from agent.host.libvirt_abilities import DETACH_BY_ALIAS
from agent.host.libvirt_connection import LibvirtConnection
from agent.host.libvirt_domains import ASK_AGAIN_SECONDS, LibvirtDomains
from agent.ports import LUKS2, Domains
from tests.contract.domains import (
    MIB,
    Bench,
    Disk,
    DomainsContract,
    alias_of,
    disks,
    look,
    make_disk,
)
from tests.lab.guest import Guest, Shape
from tests.lab.lab import Lab
from tests.lab.loop_volume import LoopVolume
from tests.lab.patience import PATIENCE, wait_until

pytestmark = pytest.mark.real

BARE = Shape(has_system=False, spare_ports=4, memory_mib=32)

FIRST_TO_BOOT = (
    "<disk type='file' device='cdrom'><target dev='sda' bus='scsi'/><boot order='1'/></disk>"
)


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


def make_bench(lab: Lab, domains: Domains, guests: tuple[Guest, Guest, Guest]) -> Bench:
    running, shut_off, transient = (guest.uuid for guest in guests)

    made: dict[str, LoopVolume] = {}

    def make_volume() -> str:
        volume = lab.volume(size_mib=1)
        made[volume.path] = volume
        return volume.path

    def is_released(instance_id: str, alias: str) -> bool:
        found = domains.look(instance_id)
        assert found is not None
        assert found.live_xml is not None
        return parse_domain(found.live_xml).disk_by_alias(alias) is None

    def wait_released(instance_id: str, alias: str) -> None:
        wait_until(lambda: is_released(instance_id, alias), f"{alias} is let go", seconds=20)

    return Bench(
        domains=domains,
        running=running,
        shut_off=shut_off,
        transient=transient,
        make_volume=make_volume,
        wait_released=wait_released,
        grow=lambda path, size_bytes: made[path].grow(size_bytes // MIB),
    )


class TestByAlias(DomainsContract):
    @pytest.fixture
    def bench(
        self, lab: Lab, connection: LibvirtConnection, guests: tuple[Guest, Guest, Guest]
    ) -> Bench:
        return make_bench(lab, LibvirtDomains(connection), guests)


class TestByXmlReadJustBefore(DomainsContract):
    """As on a libvirt before 4.4."""

    @pytest.fixture
    def bench(
        self, lab: Lab, connection: LibvirtConnection, guests: tuple[Guest, Guest, Guest]
    ) -> Bench:
        return make_bench(lab, LibvirtDomains(connection, without={DETACH_BY_ALIAS}), guests)

    def test_versions_are_three_numbers(self, bench: Bench) -> None:
        assert {DETACH_BY_ALIAS, LUKS2} <= set(bench.domains.capabilities().missing)


class TestRefusals:
    """Which of our errors libvirt's and QEMU's own become."""

    @pytest.fixture
    def bench(
        self, lab: Lab, connection: LibvirtConnection, guests: tuple[Guest, Guest, Guest]
    ) -> Bench:
        return make_bench(lab, LibvirtDomains(connection), guests)

    def test_a_volume_that_is_open_elsewhere_is_refused(self, bench: Bench) -> None:
        first = make_disk(bench)
        second = make_disk(bench, path=first.path)
        bench.domains.plug(bench.running, first.xml())
        with pytest.raises(PlugRefused, match="has it open exclusively"):
            bench.domains.plug(bench.transient, second.xml())
        assert not second.is_in(look(bench, bench.transient).live_xml)

    def test_a_path_that_is_not_there_is_refused(self, bench: Bench) -> None:
        disk = make_disk(bench, path="/nonexistent/volume")
        with pytest.raises(PlugRefused, match="No such file"):
            bench.domains.plug(bench.running, disk.xml())
        assert not disk.is_in(look(bench, bench.running).live_xml)

    def test_a_boot_order_that_is_taken_is_refused_in_either_half(
        self, lab: Lab, connection: LibvirtConnection
    ) -> None:
        guest = lab.guest(shape=replace(BARE, disks=[FIRST_TO_BOOT]))
        bench = make_bench(lab, LibvirtDomains(connection), (guest, guest, guest))
        disk = make_disk(bench)
        ordered = disk.xml().replace("<backingStore/>", "<backingStore/><boot order='{}'/>")
        for put in (bench.domains.plug, bench.domains.define):
            with pytest.raises(PlugRefused, match="boot order"):
                put(guest.uuid, ordered.format(1))
            put(guest.uuid, ordered.format(2))

    def test_limits_that_qemu_refuses_are_shown_and_not_in_force(self, bench: Bench) -> None:
        """Why the agent asks QEMU, and why it takes no such burst in the first place."""
        disk = make_disk(bench)
        limits = {
            "total_iops_sec": 900,
            "total_iops_sec_max": 10**15,
            "total_iops_sec_max_length": 2,
        }
        asked = "".join(f"<{name}>{value}</{name}>" for name, value in limits.items())
        bench.domains.plug(
            bench.transient,
            disk.xml().replace("<backingStore/>", f"<backingStore/><iotune>{asked}</iotune>"),
        )
        live_xml = look(bench, bench.transient).live_xml
        assert live_xml is not None
        assert "<total_iops_sec>900</total_iops_sec>" in live_xml
        assert bench.domains.limits(bench.transient, disk.target_dev)["total_iops_sec"] == 0

    def test_no_pcie_port_left_is_no_free_address(self, bench: Bench) -> None:
        plugged: list[Disk] = []

        def plug_until_refused() -> None:
            for _ in range(BARE.spare_ports + 4):
                disk = make_disk(bench)
                bench.domains.plug(bench.running, virtio(disk))
                plugged.append(disk)

        with pytest.raises(NoFreeAddress):
            plug_until_refused()
        assert plugged, "there was no port at all"

    def test_a_disk_that_is_copied_is_busy(
        self, lab: Lab, bench: Bench, guests: tuple[Guest, Guest, Guest], tmp_path: Path
    ) -> None:
        disk = make_disk(bench)
        bench.domains.plug(bench.transient, disk.xml())
        copy = tmp_path / "copy"
        copy.write_bytes(bytes(1 << 20))
        domain = guests[2].domain
        domain.blockCopy(
            disk.target_dev,
            f"<disk type='file'><driver type='raw'/><source file='{copy}'/></disk>",
            {},
            libvirt.VIR_DOMAIN_BLOCK_COPY_REUSE_EXT,
        )
        try:
            assert look(bench, bench.transient).job is None, "a block job is no job"
            with pytest.raises(Busy):
                bench.domains.unplug(bench.transient, disk.alias)
            assert disk.is_in(look(bench, bench.transient).live_xml)
        finally:
            domain.blockJobAbort(disk.target_dev)
        bench.domains.unplug(bench.transient, disk.alias)
        bench.wait_released(bench.transient, disk.alias)

    def test_a_guest_that_must_help_and_does_not_keeps_its_disk(self, bench: Bench) -> None:
        disk = make_disk(bench)
        bench.domains.plug(bench.transient, virtio(disk))
        in_unplug_seconds = 0.0
        for _ in range(2):
            started = time.monotonic()
            bench.domains.unplug(bench.transient, disk.alias)
            in_unplug_seconds += time.monotonic() - started
            time.sleep(ASK_AGAIN_SECONDS)
        assert in_unplug_seconds < ASK_AGAIN_SECONDS * PATIENCE, "unplug waited"
        live_xml = look(bench, bench.transient).live_xml
        assert live_xml is not None
        assert disk.alias in {alias_of(found) for found in disks(live_xml)}

    def test_errors_keep_their_cause_whenever_garbage_is_collected(self, bench: Bench) -> None:
        """Freeing one of libvirt's objects wipes the error that the binding has not read yet."""
        disk = make_disk(bench, path="/nonexistent/volume")
        others: list[str] = []

        def ask_often() -> None:
            for _ in range(150):
                try:
                    bench.domains.plug(bench.running, disk.xml())
                except PlugRefused:
                    continue
                except Unavailable as error:
                    others.append(str(error))

        threshold = gc.get_threshold()
        gc.set_threshold(23)
        try:
            threads = [threading.Thread(target=ask_often) for _ in range(4)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
        finally:
            gc.set_threshold(*threshold)
        assert others == []


def test_all_bears_with_guests_that_come_and_go(lab: Lab, connection: LibvirtConnection) -> None:
    domains = LibvirtDomains(connection)
    steady = lab.guest(shape=BARE, start=False)
    fleeting = lab.guest(shape=BARE, start=False)
    fleeting.undefine()
    over = threading.Event()

    def churn() -> None:
        while not over.is_set():
            fleeting.define()
            fleeting.undefine()

    thread = threading.Thread(target=churn)
    thread.start()
    try:
        for _ in range(100):
            found = domains.all()
            assert steady.uuid in {look.instance_id for look in found}
            assert all(look.live_xml or look.inactive_xml for look in found)
    finally:
        over.set()
        thread.join()


def test_a_paused_guest_takes_a_disk_and_lets_it_go(
    lab: Lab, connection: LibvirtConnection, guests: tuple[Guest, Guest, Guest]
) -> None:
    bench = make_bench(lab, LibvirtDomains(connection), guests)
    disk = make_disk(bench)
    guests[2].pause()
    try:
        assert look(bench, bench.transient).state == "paused"
        assert {found.state for found in bench.domains.all()} >= {"paused"}
        bench.domains.plug(bench.transient, disk.xml())
        assert disk.is_in(look(bench, bench.transient).live_xml)
        bench.domains.unplug(bench.transient, disk.alias)
        bench.wait_released(bench.transient, disk.alias)
    finally:
        guests[2].resume()


def virtio(disk: Disk) -> str:
    """The same disk for a PCIe port, which libvirt picks."""
    xml = etree.fromstring(disk.xml())
    target, address = xml.find("target"), xml.find("address")
    assert target is not None
    assert address is not None
    target.set("bus", "virtio")
    xml.remove(address)
    return etree.tostring(xml, encoding="unicode")
