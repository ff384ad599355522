"""What ports.Copies promises, and what a swap asks of ports.Domains, simulated and real alike.

A subclass gives the ``bench`` fixture: of running guests without a system, that may be shared by
all tests. Every test makes a disk of its own.
"""

import uuid
from collections.abc import Callable
from dataclasses import dataclass

import pytest
from lxml import etree

from agent.errors import Busy, CopyFailed, Unavailable, WrongDevice
from agent.guest.domain_xml import DiskFacts, parse_domain
from agent.model.copy import CopyWishes
from agent.ports import Copies, Domains

MIB = 1 << 20

SLOW = CopyWishes(bandwidth_bytes_per_second=MIB)


@dataclass(frozen=True)
class CopyBench:
    """``make_volume`` gives the path of one of so many bytes. ``wait`` returns once a condition
    holds, and fails if it never does; ``pause`` keeps what is copied from being ready, where a
    small bandwidth does not."""

    domains: Domains
    copies: Copies
    running: str
    shut_off: str
    transient: str
    make_volume: Callable[[int], str]
    wait: Callable[[Callable[[], bool], str], None]
    pause: Callable[[bool], None] = lambda is_paused: None


@dataclass(frozen=True)
class CopiedDisk:
    bench: CopyBench
    instance_id: str
    source: str
    target_dev: str
    alias: str

    def half(self, *, live: bool) -> DiskFacts | None:
        found = self.bench.domains.look(self.instance_id)
        assert found is not None
        xml = found.live_xml if live else found.inactive_xml
        return None if xml is None else parse_domain(xml).disk_by_alias(self.alias)

    @property
    def live(self) -> DiskFacts:
        found = self.half(live=True)
        assert found is not None
        return found

    def start(self, destination: str, slice_bytes: int | None = None, **wishes: object) -> None:
        self.bench.copies.start(
            self.instance_id,
            self.target_dev,
            destination_xml(destination, slice_bytes),
            CopyWishes(**wishes),  # type: ignore[arg-type]
        )

    @property
    def astray(self) -> bool:
        return self.bench.copies.astray(self.instance_id, self.target_dev)

    def pivot(self) -> None:
        self.bench.copies.pivot(self.instance_id, self.target_dev)

    def abort(self) -> None:
        self.bench.copies.abort(self.instance_id, self.target_dev)

    def wait_copied(self) -> None:
        self.bench.wait(lambda: self.live.is_copied, "the copy is ready")

    def wait_over(self) -> None:
        self.bench.wait(lambda: self.live.copies_to is None, "the copy is over")


def disk_xml(path: str, target_dev: str, alias: str, extra: str = "") -> str:
    return (
        "<disk type='block' device='disk'><driver name='qemu' type='raw' cache='none'/>"
        f"<source dev='{path}'/><backingStore/><target dev='{target_dev}' bus='scsi'/>{extra}"
        f"<serial>{alias.removeprefix('ua-')}</serial><alias name='{alias}'/>"
        "<address type='drive' controller='0' bus='0' target='0'"
        f" unit='{ord(target_dev[-1]) - ord('a') + 32}'/></disk>"
    )


def destination_xml(path: str, slice_bytes: int | None = None) -> str:
    part = f"<slice type='storage' offset='0' size='{slice_bytes}'/>"
    slices = "" if slice_bytes is None else f"<slices>{part}</slices>"
    return (
        "<disk type='block'><driver name='qemu' type='raw'/>"
        f"<source dev='{path}'>{slices}</source><backingStore/></disk>"
    )


_LETTERS = iter("abcdefghijklmnopqrstuvwxyz" * 4)


class CopiesContract:
    @pytest.fixture
    def bench(self) -> CopyBench:
        raise NotImplementedError

    @pytest.fixture(params=["running", "transient"])
    def disk(self, bench: CopyBench, request: pytest.FixtureRequest) -> CopiedDisk:
        """Of 16 MiB, in every half of a guest that runs."""
        instance_id = str(getattr(bench, request.param))
        alias = f"ua-{uuid.uuid4()}"
        disk = CopiedDisk(
            bench, instance_id, bench.make_volume(16 * MIB), f"sdz{next(_LETTERS)}", alias
        )
        xml = disk_xml(disk.source, disk.target_dev, alias)
        bench.domains.plug(instance_id, xml)
        if request.param == "running":
            bench.domains.define(instance_id, xml)
        return disk

    def test_the_guest_has_the_destination_after_the_pivot(self, disk: CopiedDisk) -> None:
        destination = disk.bench.make_volume(16 * MIB)
        disk.start(destination)
        disk.wait_copied()
        assert (disk.live.source, disk.live.copies_to) == (disk.source, destination)
        progress = disk.bench.copies.progress(disk.instance_id, disk.target_dev)
        assert progress is not None
        assert progress.done_bytes == progress.total_bytes > 0
        assert not disk.astray
        disk.pivot()
        assert not disk.astray, "libvirt knows"
        assert (disk.live.source, disk.live.copies_to) == (destination, None)
        assert disk.bench.copies.progress(disk.instance_id, disk.target_dev) is None
        defined = disk.half(live=False)
        if disk.instance_id == disk.bench.running:
            assert defined is not None
            assert (defined.source, defined.serial) == (destination, disk.live.serial)
        with pytest.raises(CopyFailed):
            disk.pivot()

    def test_given_up_the_guest_stays(self, disk: CopiedDisk) -> None:
        destination = disk.bench.make_volume(16 * MIB)
        disk.bench.pause(True)
        disk.start(destination, bandwidth_bytes_per_second=MIB)
        assert disk.live.copies_to == destination
        assert not disk.live.is_copied
        with pytest.raises(Unavailable):
            disk.pivot()
        disk.abort()
        assert (disk.live.source, disk.live.copies_to) == (disk.source, None)
        disk.abort()
        disk.bench.pause(False)
        disk.start(destination)
        disk.wait_copied()
        disk.abort()
        assert disk.live.source == disk.source
        assert not disk.astray

    def test_begun_twice_it_goes_once(self, disk: CopiedDisk) -> None:
        destination = disk.bench.make_volume(16 * MIB)
        disk.bench.pause(True)
        for _ in range(2):
            disk.start(destination, bandwidth_bytes_per_second=MIB)
        with pytest.raises(Busy):
            disk.start(disk.bench.make_volume(16 * MIB))
        assert disk.live.copies_to == destination
        disk.abort()
        disk.bench.pause(False)

    def test_while_it_is_copied_nobody_takes_it(self, disk: CopiedDisk) -> None:
        disk.start(disk.bench.make_volume(16 * MIB))
        disk.wait_copied()
        with pytest.raises(Busy):
            disk.bench.domains.unplug(disk.instance_id, disk.alias)
        disk.abort()

    @pytest.mark.parametrize("size_bytes", [8 * MIB, 24 * MIB])
    def test_another_size_ends_it_and_nobody_says_why(
        self, disk: CopiedDisk, size_bytes: int
    ) -> None:
        disk.start(disk.bench.make_volume(size_bytes))
        disk.wait_over()
        assert disk.live.source == disk.source
        assert disk.bench.copies.progress(disk.instance_id, disk.target_dev) is None

    def test_of_a_larger_one_it_takes_a_slice(self, disk: CopiedDisk) -> None:
        destination = disk.bench.make_volume(24 * MIB)
        disk.start(destination, slice_bytes=16 * MIB)
        disk.wait_copied()
        disk.pivot()
        assert (disk.live.source, disk.live.slice_bytes) == (destination, 16 * MIB)
        assert not disk.astray
        assert disk.bench.domains.size(disk.instance_id, disk.target_dev) == 16 * MIB
        if disk.instance_id == disk.bench.running:
            whole = disk_xml(destination, disk.target_dev, disk.alias)
            disk.bench.domains.redefine(disk.instance_id, whole)
            defined = disk.half(live=False)
            assert defined is not None
            assert (defined.source, defined.slice_bytes) == (destination, None)

    def test_what_is_not_there_is_no_destination(self, disk: CopiedDisk) -> None:
        with pytest.raises(CopyFailed):
            disk.start("/nonexistent/volume")
        assert disk.live.copies_to is None

    def test_a_guest_that_does_not_run_is_not_copied(self, bench: CopyBench) -> None:
        with pytest.raises(Unavailable):
            bench.copies.start(bench.shut_off, "sda", destination_xml("/dev/null"), CopyWishes())
        assert bench.copies.progress(bench.shut_off, "sda") is None
        bench.copies.abort(bench.shut_off, "sda")
        assert not bench.copies.astray(bench.shut_off, "sda")

    # the definition

    def test_a_definition_changes_one_disk_alone(self, bench: CopyBench) -> None:
        for instance_id in (bench.running, bench.shut_off):
            alias, target_dev = f"ua-{uuid.uuid4()}", f"sdy{next(_LETTERS)}"
            bench.domains.define(instance_id, disk_xml("/dev/loop-one", target_dev, alias))
            before = bench.domains.look(instance_id)
            for _ in range(2):
                bench.domains.redefine(instance_id, disk_xml("/dev/loop-two", target_dev, alias))
            after = bench.domains.look(instance_id)
            assert before is not None
            assert after is not None
            assert after.live_xml == before.live_xml
            assert before.inactive_xml is not None
            assert etree.tostring(etree.fromstring(after.inactive_xml or "")) == etree.tostring(
                etree.fromstring(before.inactive_xml.replace("/dev/loop-one", "/dev/loop-two"))
            )
            bench.domains.forget(instance_id, alias)

    def test_a_definition_without_the_disk_stays(self, bench: CopyBench) -> None:
        alias, target_dev = f"ua-{uuid.uuid4()}", f"sdx{next(_LETTERS)}"
        bench.domains.define(bench.shut_off, disk_xml("/dev/loop-one", target_dev, alias))
        before = bench.domains.look(bench.shut_off)
        for other in (
            disk_xml("/dev/loop-two", target_dev, f"{alias}-other"),
            disk_xml("/dev/loop-two", f"{target_dev}q", alias),
        ):
            with pytest.raises(WrongDevice):
                bench.domains.redefine(bench.shut_off, other)
        assert bench.domains.look(bench.shut_off) == before
        bench.domains.forget(bench.shut_off, alias)
        with pytest.raises(Unavailable):
            bench.domains.redefine(bench.transient, disk_xml("/dev/loop-two", target_dev, alias))
