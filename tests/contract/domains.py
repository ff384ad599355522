"""What ports.Domains promises, on the simulated host and on a real libvirt alike.

A subclass gives the ``bench`` fixture. Its three guests have a virtio-scsi controller 0, and
their disks are let go by QEMU itself, so no system has to run in them. They may be shared by all
tests: every test makes disks of its own.
"""

import itertools
import string
import threading
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pytest
from lxml import etree

from agent.errors import NoFreeAddress, PlugRefused, Unavailable, UnknownInstance
from agent.guest.domain_xml import parse_domain
from agent.model.disk import IoTune
from agent.ports import LUKS2, DomainLook, Domains

NAMESPACE = "urn:libvirt-attachment-agent:attachments:1"

MIB = 1 << 20

NOBODY = "00000000-0000-4000-8000-000000000000"
"""An instance that this host does not have."""


@dataclass(frozen=True)
class Bench:
    """``make_volume`` gives the path of a new one, of 1 MiB, which ``grow`` makes larger (so many
    bytes); ``wait_released`` returns once the guest has let go of the disk with that alias (or
    mark), or fails."""

    domains: Domains
    running: str
    shut_off: str
    transient: str
    make_volume: Callable[[], str]
    wait_released: Callable[[str, str], None]
    grow: Callable[[str, int], None]


@dataclass(frozen=True)
class Disk:
    """One disk, in a place that no other test uses."""

    path: str
    target_dev: str
    unit: int
    alias: str

    def xml(self) -> str:
        kind, attribute = ("block", "dev") if self.path.startswith("/dev/") else ("file", "file")
        return (
            f"<disk type='{kind}' device='disk'>"
            "<driver name='qemu' type='raw' cache='none'/>"
            f"<alias name='{self.alias}'/>"
            f"<source {attribute}='{self.path}'/>"
            "<backingStore/>"
            f"<target dev='{self.target_dev}' bus='scsi'/>"
            f"<serial>{self.alias.removeprefix('ua-')}</serial>"
            "<address type='drive' controller='0' bus='0' target='0'"
            f" unit='{self.unit}'/></disk>"
        )

    def is_in(self, half: str | None) -> bool:
        """With its alias and in its place; asserts that it is not there twice."""
        assert half is not None, "the domain has no such half"
        found = [disk for disk in disks(half) if alias_of(disk) == self.alias]
        assert len(found) <= 1, f"{self.alias} is there {len(found)} times"
        for disk in found:
            target, address = disk.find("target"), disk.find("address")
            assert target is not None
            assert address is not None
            assert target.get("dev") == self.target_dev
            assert address.get("unit") == str(self.unit)
        return bool(found)


_UNITS = itertools.count(10)


def make_disk(
    bench: Bench,
    *,
    path: str | None = None,
    target_dev: str | None = None,
    unit: int | None = None,
    alias: str | None = None,
) -> Disk:
    number = next(_UNITS)
    return Disk(
        path=path or bench.make_volume(),
        target_dev=target_dev or f"sd{_letters(number)}",
        unit=number if unit is None else unit,
        alias=alias or f"ua-{uuid.uuid4()}",
    )


def look(bench: Bench, instance_id: str) -> DomainLook:
    found = bench.domains.look(instance_id)
    assert found is not None, f"{instance_id} is not on this host"
    return found


def disks(half: str) -> list[etree._Element]:
    return etree.fromstring(half).findall("devices/disk")


def alias_of(disk: etree._Element) -> str | None:
    alias = disk.find("alias")
    return None if alias is None else alias.get("name")


def targets(half: str | None) -> set[str]:
    assert half is not None, "the domain has no such half"
    return {disk.target_dev for disk in parse_domain(half).disks}


def by_hand(disk: Disk, serial: str | None) -> str:
    """As somebody plugs it who knows nothing of aliases."""
    xml = etree.fromstring(disk.xml())
    for name in ("alias", "serial"):
        own = xml.find(name)
        assert own is not None
        xml.remove(own)
    if serial is not None:
        etree.SubElement(xml, "serial").text = serial
    return etree.tostring(xml, encoding="unicode")


def note_xml(*aliases: str) -> str:
    children = "".join(f"<disk alias='{alias}'/>" for alias in aliases)
    return f"<attachments>{children}</attachments>"


def noted(half: str | None) -> list[str] | None:
    """The aliases that our metadata names; None where there is no element of ours."""
    assert half is not None, "the domain has no such half"
    element = etree.fromstring(half).find(f"metadata/{{{NAMESPACE}}}attachments")
    return None if element is None else [str(child.get("alias")) for child in element]


class DomainsContract:
    """Every test says what is true afterwards; libvirt's words are nobody's business."""

    @pytest.fixture
    def bench(self) -> Bench:
        raise NotImplementedError

    @pytest.fixture(params=["running", "transient"])
    def active(self, bench: Bench, request: pytest.FixtureRequest) -> str:
        """An instance with a live half."""
        return str(getattr(bench, request.param))

    @pytest.fixture(params=["running", "shut_off"])
    def persistent(self, bench: Bench, request: pytest.FixtureRequest) -> str:
        """An instance with a configuration."""
        return str(getattr(bench, request.param))

    @pytest.fixture(params=["running", "transient", "shut_off"])
    def any_instance(self, bench: Bench, request: pytest.FixtureRequest) -> str:
        return str(getattr(bench, request.param))

    # what is there

    def test_it_answers_once_it_has_answered(self, bench: Bench) -> None:
        look(bench, bench.running)
        assert bench.domains.answering()

    def test_a_look_shows_the_halves_that_there_are(self, bench: Bench) -> None:
        running, shut_off, transient = (
            look(bench, instance) for instance in (bench.running, bench.shut_off, bench.transient)
        )
        assert (running.state, shut_off.state, transient.state) == ("running", "shutoff", "running")
        assert running.live_xml is not None
        assert running.inactive_xml is not None
        assert shut_off.live_xml is None
        assert shut_off.inactive_xml is not None
        assert transient.live_xml is not None
        assert transient.inactive_xml is None
        assert (running.job, shut_off.job, transient.job) == (None, None, None)

    def test_all_shows_what_each_look_shows(self, bench: Bench) -> None:
        everyone = {found.instance_id: found for found in bench.domains.all()}
        for instance in (bench.running, bench.shut_off, bench.transient):
            assert everyone[instance] == look(bench, instance)

    def test_read_and_job_show_what_a_look_shows(self, bench: Bench, any_instance: str) -> None:
        found, read = look(bench, any_instance), bench.domains.read(any_instance)
        assert read is not None
        assert (read.instance_id, read.name) == (found.instance_id, found.name)
        assert (read.live_xml, read.inactive_xml) == (found.live_xml, found.inactive_xml)
        assert bench.domains.job(any_instance) == found.job

    def test_nobody_is_none_and_not_among_all(self, bench: Bench) -> None:
        assert bench.domains.look(NOBODY) is None
        assert bench.domains.read(NOBODY) is None
        assert bench.domains.job(NOBODY) is None
        assert NOBODY not in {found.instance_id for found in bench.domains.all()}

    def test_versions_are_three_numbers(self, bench: Bench) -> None:
        able = bench.domains.capabilities()
        assert len(able.libvirt) == len(able.qemu) == 3
        assert able.libvirt >= (3, 10, 0)
        assert LUKS2 in able.missing

    # into the guest, into the configuration

    def test_plug_reaches_the_running_guest_alone(self, bench: Bench) -> None:
        disk = make_disk(bench)
        bench.domains.plug(bench.running, disk.xml())
        found = look(bench, bench.running)
        assert disk.is_in(found.live_xml)
        assert not disk.is_in(found.inactive_xml)

    def test_plug_into_a_transient_guest(self, bench: Bench) -> None:
        disk = make_disk(bench)
        bench.domains.plug(bench.transient, disk.xml())
        assert disk.is_in(look(bench, bench.transient).live_xml)

    def test_define_reaches_the_configuration_alone(self, bench: Bench) -> None:
        disk = make_disk(bench)
        bench.domains.define(bench.running, disk.xml())
        found = look(bench, bench.running)
        assert disk.is_in(found.inactive_xml)
        assert not disk.is_in(found.live_xml)

    def test_define_for_a_guest_that_is_shut_off(self, bench: Bench) -> None:
        disk = make_disk(bench)
        bench.domains.define(bench.shut_off, disk.xml())
        found = look(bench, bench.shut_off)
        assert disk.is_in(found.inactive_xml)
        assert found.live_xml is None

    def test_one_half_having_the_disk_does_not_keep_it_from_the_other(self, bench: Bench) -> None:
        disk = make_disk(bench)
        bench.domains.define(bench.running, disk.xml())
        bench.domains.plug(bench.running, disk.xml())
        found = look(bench, bench.running)
        assert disk.is_in(found.live_xml)
        assert disk.is_in(found.inactive_xml)

    def test_plugged_twice_it_is_there_once(self, bench: Bench, active: str) -> None:
        disk = make_disk(bench)
        bench.domains.plug(active, disk.xml())
        bench.domains.plug(active, disk.xml())
        assert disk.is_in(look(bench, active).live_xml)

    def test_defined_twice_it_is_there_once(self, bench: Bench, persistent: str) -> None:
        disk = make_disk(bench)
        bench.domains.define(persistent, disk.xml())
        bench.domains.define(persistent, disk.xml())
        assert disk.is_in(look(bench, persistent).inactive_xml)

    def test_an_alias_that_is_there_is_left_as_it_is(self, bench: Bench, active: str) -> None:
        """Whether it is the disk that was meant, the caller sees by looking."""
        disk = make_disk(bench)
        bench.domains.plug(active, disk.xml())
        bench.domains.plug(active, make_disk(bench, alias=disk.alias).xml())
        assert disk.is_in(look(bench, active).live_xml)

    def test_a_controller_comes_once(self, bench: Bench) -> None:
        controller = "<controller type='scsi' index='1' model='virtio-scsi'/>"
        for _ in range(2):
            bench.domains.plug(bench.running, controller)
            bench.domains.define(bench.running, controller)
        found = look(bench, bench.running)
        for half in (found.live_xml, found.inactive_xml):
            assert half is not None
            wanted = "devices/controller[@type='scsi'][@index='1'][@model='virtio-scsi']"
            assert len(etree.fromstring(half).findall(wanted)) == 1

    def test_a_taken_target_name_is_no_free_address(self, bench: Bench, active: str) -> None:
        first = make_disk(bench)
        bench.domains.plug(active, first.xml())
        second = make_disk(bench, target_dev=first.target_dev)
        with pytest.raises(NoFreeAddress):
            bench.domains.plug(active, second.xml())
        live_xml = look(bench, active).live_xml
        assert first.is_in(live_xml)
        assert not second.is_in(live_xml)

    def test_a_taken_target_name_in_the_configuration(self, bench: Bench, persistent: str) -> None:
        first = make_disk(bench)
        bench.domains.define(persistent, first.xml())
        second = make_disk(bench, target_dev=first.target_dev)
        with pytest.raises(NoFreeAddress):
            bench.domains.define(persistent, second.xml())
        inactive_xml = look(bench, persistent).inactive_xml
        assert first.is_in(inactive_xml)
        assert not second.is_in(inactive_xml)

    def test_a_taken_scsi_unit_is_no_free_address(self, bench: Bench) -> None:
        first = make_disk(bench)
        second = make_disk(bench, unit=first.unit)
        for put in (bench.domains.plug, bench.domains.define):
            put(bench.running, first.xml())
            with pytest.raises(NoFreeAddress):
                put(bench.running, second.xml())
        found = look(bench, bench.running)
        assert not second.is_in(found.live_xml)
        assert not second.is_in(found.inactive_xml)

    def test_a_boot_order_beside_a_boot_device_is_refused(self, bench: Bench) -> None:
        """Every domain boots by kind that has no device with an order."""
        disk = make_disk(bench)
        ordered = disk.xml().replace("<backingStore/>", "<backingStore/><boot order='1'/>")
        for put in (bench.domains.plug, bench.domains.define):
            with pytest.raises(PlugRefused):
                put(bench.running, ordered)
        found = look(bench, bench.running)
        assert not disk.is_in(found.live_xml)
        assert not disk.is_in(found.inactive_xml)

    def test_limits_are_those_in_force(self, bench: Bench, active: str) -> None:
        disk, plain = make_disk(bench), make_disk(bench)
        limits = {"read_bytes_sec": 8_000_000, "total_iops_sec": 900, "total_iops_sec_max": 1800}
        asked = "".join(f"<{name}>{value}</{name}>" for name, value in limits.items())
        limited = disk.xml().replace("<backingStore/>", f"<backingStore/><iotune>{asked}</iotune>")
        bench.domains.plug(active, limited)
        bench.domains.plug(active, plain.xml())
        assert limits.items() <= bench.domains.limits(active, disk.target_dev).items()
        found = bench.domains.limits(active, plain.target_dev)
        assert not any(found.get(name) for name in limits)

    @pytest.mark.parametrize("burst", [{}, {"total_iops_sec_max": 1800}], ids=["plain", "burst"])
    def test_limits_of_a_running_guest_change_and_go(
        self, bench: Bench, active: str, burst: dict[str, int]
    ) -> None:
        """Each wish is the whole of it: what an earlier one asked for does not stay."""
        disk = make_disk(bench)
        bench.domains.plug(active, disk.xml())
        for wish in (
            IoTune(total_iops_sec=900, **burst),
            IoTune(read_bytes_sec=8_000_000, write_iops_sec=300),
            IoTune(total_iops_sec=500, group_name=f"group-{disk.target_dev}"),
            IoTune(total_iops_sec=400),
            IoTune(),
        ):
            limits = wish.complete(disk.alias)
            for _ in range(2):
                bench.domains.limit(active, disk.target_dev, limits)
            found = bench.domains.limits(active, disk.target_dev)
            assert wish.not_in(found) == []
            assert (found.get("group_name") or None) == limits.get("group_name")

    def test_limits_of_a_definition_change_and_go(self, bench: Bench) -> None:
        disk = make_disk(bench)
        bench.domains.define(bench.running, disk.xml())
        for wish in (
            IoTune(total_iops_sec=900, total_iops_sec_max=1800, total_iops_sec_max_length=2),
            IoTune(read_bytes_sec=8_000_000, group_name="of-several"),
            IoTune(read_bytes_sec=7_000_000),
            IoTune(),
        ):
            limits = wish.complete(disk.alias)
            bench.domains.define_limits(bench.running, disk.target_dev, limits)
            found = bench.domains.defined_limits(bench.running, disk.target_dev)
            assert wish.not_in(found) == []
            assert (found.get("group_name") or None) == limits.get("group_name")
        assert "<iotune>" not in (look(bench, bench.running).inactive_xml or "")

    def test_limits_of_one_half_are_not_the_others(self, bench: Bench) -> None:
        disk = make_disk(bench)
        bench.domains.plug(bench.running, disk.xml())
        bench.domains.define(bench.running, disk.xml())
        wish = IoTune(total_iops_sec=900)
        bench.domains.limit(bench.running, disk.target_dev, wish.complete(disk.alias))
        assert wish.not_in(bench.domains.limits(bench.running, disk.target_dev)) == []
        assert IoTune().not_in(bench.domains.defined_limits(bench.running, disk.target_dev)) == []

    def test_limits_of_a_disk_that_is_not_there_are_refused(self, bench: Bench) -> None:
        wish = IoTune(total_iops_sec=900).complete("ua-nobody")
        with pytest.raises(PlugRefused):
            bench.domains.limit(bench.running, "sdzzz", wish)
        with pytest.raises(PlugRefused):
            bench.domains.define_limits(bench.running, "sdzzz", wish)
        with pytest.raises(Unavailable):
            bench.domains.limit(bench.shut_off, "sda", wish)
        with pytest.raises(Unavailable):
            bench.domains.define_limits(bench.transient, "sda", wish)

    # how large it is

    def test_a_disk_that_has_grown_is_as_large_as_before_until_the_guest_is_told(
        self, bench: Bench, active: str
    ) -> None:
        disk, other = make_disk(bench), make_disk(bench)
        bench.domains.plug(active, disk.xml())
        bench.domains.plug(active, other.xml())
        bench.grow(disk.path, 3 * MIB)
        assert bench.domains.size(active, disk.target_dev) == MIB
        for _ in range(2):
            bench.domains.resize(active, disk.target_dev, 3 * MIB)
            assert bench.domains.size(active, disk.target_dev) == 3 * MIB
        assert bench.domains.size(active, other.target_dev) == MIB

    def test_a_device_is_never_larger_than_it_is(self, bench: Bench, active: str) -> None:
        disk = make_disk(bench)
        bench.domains.plug(active, disk.xml())
        with pytest.raises(PlugRefused, match="grow"):
            bench.domains.resize(active, disk.target_dev, 3 * MIB)
        assert bench.domains.size(active, disk.target_dev) == MIB

    def test_less_than_the_device_has_is_what_it_has(self, bench: Bench, active: str) -> None:
        disk = make_disk(bench)
        bench.domains.plug(active, disk.xml())
        bench.grow(disk.path, 3 * MIB)
        bench.domains.resize(active, disk.target_dev, 2 * MIB)
        assert bench.domains.size(active, disk.target_dev) == 3 * MIB

    def test_a_disk_that_is_only_read_is_not_resized(self, bench: Bench, active: str) -> None:
        disk = make_disk(bench)
        read_only = disk.xml().replace("<backingStore/>", "<backingStore/><readonly/>")
        bench.domains.plug(active, read_only)
        bench.grow(disk.path, 3 * MIB)
        with pytest.raises(PlugRefused, match="readonly"):
            bench.domains.resize(active, disk.target_dev, 3 * MIB)

    def test_the_size_of_what_does_not_run_is_unknown(self, bench: Bench) -> None:
        disk = make_disk(bench)
        bench.domains.define(bench.shut_off, disk.xml())
        with pytest.raises(Unavailable):
            bench.domains.size(bench.shut_off, disk.target_dev)
        with pytest.raises(Unavailable):
            bench.domains.resize(bench.shut_off, disk.target_dev, 3 * MIB)

    def test_who_does_not_run_has_no_limits_in_force(self, bench: Bench) -> None:
        disk = make_disk(bench)
        bench.domains.define(bench.shut_off, disk.xml())
        with pytest.raises(Unavailable):
            bench.domains.limits(bench.shut_off, disk.target_dev)

    def test_no_disk_has_failed(self, bench: Bench, any_instance: str) -> None:
        assert bench.domains.disk_errors(any_instance) == {}

    def test_nobody_gets_no_disk(self, bench: Bench) -> None:
        disk = make_disk(bench)
        with pytest.raises(UnknownInstance):
            bench.domains.plug(NOBODY, disk.xml())
        with pytest.raises(UnknownInstance):
            bench.domains.define(NOBODY, disk.xml())

    def test_a_half_that_is_not_there_is_unknown_not_refused(self, bench: Bench) -> None:
        """The caller saw it a moment ago: it looks again, and goes on with what there is."""
        disk = make_disk(bench)
        with pytest.raises(Unavailable):
            bench.domains.plug(bench.shut_off, disk.xml())
        with pytest.raises(Unavailable):
            bench.domains.define(bench.transient, disk.xml())
        assert not disk.is_in(look(bench, bench.shut_off).inactive_xml)
        assert not disk.is_in(look(bench, bench.transient).live_xml)

    # out of it

    def test_what_is_unplugged_stays_in_the_configuration(self, bench: Bench) -> None:
        disk = make_disk(bench)
        bench.domains.plug(bench.running, disk.xml())
        bench.domains.define(bench.running, disk.xml())
        bench.domains.unplug(bench.running, disk.alias)
        bench.wait_released(bench.running, disk.alias)
        found = look(bench, bench.running)
        assert not disk.is_in(found.live_xml)
        assert disk.is_in(found.inactive_xml)

    def test_what_is_forgotten_stays_in_the_running_guest(self, bench: Bench) -> None:
        disk = make_disk(bench)
        bench.domains.plug(bench.running, disk.xml())
        bench.domains.define(bench.running, disk.xml())
        bench.domains.forget(bench.running, disk.alias)
        found = look(bench, bench.running)
        assert disk.is_in(found.live_xml)
        assert not disk.is_in(found.inactive_xml)

    def test_only_the_disk_with_the_alias_goes(self, bench: Bench, active: str) -> None:
        going, staying = make_disk(bench), make_disk(bench)
        bench.domains.plug(active, going.xml())
        bench.domains.plug(active, staying.xml())
        bench.domains.unplug(active, going.alias)
        bench.wait_released(active, going.alias)
        assert staying.is_in(look(bench, active).live_xml)

    def test_only_the_disk_with_the_alias_is_forgotten(self, bench: Bench, persistent: str) -> None:
        going, staying = make_disk(bench), make_disk(bench)
        bench.domains.define(persistent, going.xml())
        bench.domains.define(persistent, staying.xml())
        bench.domains.forget(persistent, going.alias)
        inactive_xml = look(bench, persistent).inactive_xml
        assert not going.is_in(inactive_xml)
        assert staying.is_in(inactive_xml)

    def test_asking_again_and_again_is_asking_once(self, bench: Bench, active: str) -> None:
        disk = make_disk(bench)
        bench.domains.plug(active, disk.xml())
        for _ in range(5):
            bench.domains.unplug(active, disk.alias)
        bench.wait_released(active, disk.alias)
        bench.domains.unplug(active, disk.alias)
        assert not disk.is_in(look(bench, active).live_xml)

    def test_forgotten_twice_it_is_gone(self, bench: Bench, persistent: str) -> None:
        disk = make_disk(bench)
        bench.domains.define(persistent, disk.xml())
        bench.domains.forget(persistent, disk.alias)
        bench.domains.forget(persistent, disk.alias)
        assert not disk.is_in(look(bench, persistent).inactive_xml)

    @pytest.mark.parametrize("serial", ["of-the-volume", None])
    def test_a_disk_without_an_alias_goes_by_target_and_serial(
        self, bench: Bench, serial: str | None
    ) -> None:
        going, staying = make_disk(bench), make_disk(bench)
        mark = f"{going.target_dev} {serial}" if serial else going.target_dev
        for put in (bench.domains.plug, bench.domains.define):
            put(bench.running, by_hand(going, serial))
            put(bench.running, by_hand(staying, serial))
        for another in (f"{going.target_dev} another", f"{staying.target_dev} another"):
            bench.domains.unplug(bench.running, another)
            bench.domains.forget(bench.running, another)
        found = look(bench, bench.running)
        assert {going.target_dev, staying.target_dev} <= targets(found.live_xml)
        assert {going.target_dev, staying.target_dev} <= targets(found.inactive_xml)
        bench.domains.unplug(bench.running, mark)
        bench.wait_released(bench.running, mark)
        bench.domains.forget(bench.running, mark)
        found = look(bench, bench.running)
        for half in (found.live_xml, found.inactive_xml):
            assert going.target_dev not in targets(half)
            assert staying.target_dev in targets(half)

    def test_what_is_not_there_is_out_already(self, bench: Bench, any_instance: str) -> None:
        before = look(bench, any_instance)
        bench.domains.unplug(any_instance, "ua-never-there")
        bench.domains.forget(any_instance, "ua-never-there")
        assert look(bench, any_instance) == before

    def test_nobody_has_no_disk(self, bench: Bench) -> None:
        bench.domains.unplug(NOBODY, "ua-never-there")
        bench.domains.forget(NOBODY, "ua-never-there")
        assert bench.domains.look(NOBODY) is None

    def test_in_out_in_and_out_with_one_alias(self, bench: Bench, active: str) -> None:
        disk = make_disk(bench)
        for _ in range(3):
            bench.domains.plug(active, disk.xml())
            assert disk.is_in(look(bench, active).live_xml)
            bench.domains.unplug(active, disk.alias)
            bench.wait_released(active, disk.alias)
            assert not disk.is_in(look(bench, active).live_xml)

    def test_many_threads_at_once(self, bench: Bench) -> None:
        many = [make_disk(bench) for _ in range(8)]

        def both(disk: Disk) -> None:
            bench.domains.plug(bench.running, disk.xml())
            bench.domains.define(bench.running, disk.xml())

        _all_at_once([(both, disk) for disk in many])
        found = look(bench, bench.running)
        assert all(disk.is_in(found.live_xml) for disk in many)
        assert all(disk.is_in(found.inactive_xml) for disk in many)

        def out(disk: Disk) -> None:
            bench.domains.unplug(bench.running, disk.alias)
            bench.wait_released(bench.running, disk.alias)
            bench.domains.forget(bench.running, disk.alias)

        _all_at_once([(out, disk) for disk in many])
        found = look(bench, bench.running)
        assert not any(disk.is_in(found.live_xml) for disk in many)
        assert not any(disk.is_in(found.inactive_xml) for disk in many)

    # our note

    def test_a_note_is_in_every_half(self, bench: Bench, any_instance: str) -> None:
        bench.domains.note(any_instance, note_xml("ua-one", "ua-two"))
        found = look(bench, any_instance)
        for half in _halves(found):
            assert noted(half) == ["ua-one", "ua-two"]

    def test_a_note_replaces_the_one_before(self, bench: Bench, any_instance: str) -> None:
        bench.domains.note(any_instance, note_xml("ua-one", "ua-two"))
        bench.domains.note(any_instance, note_xml("ua-two"))
        for half in _halves(look(bench, any_instance)):
            assert noted(half) == ["ua-two"]

    def test_an_empty_note_leaves_none(self, bench: Bench, any_instance: str) -> None:
        bench.domains.note(any_instance, note_xml("ua-one"))
        for _ in range(2):
            bench.domains.note(any_instance, note_xml())
            for half in _halves(look(bench, any_instance)):
                assert noted(half) is None

    def test_a_note_outlives_the_disks(self, bench: Bench) -> None:
        disk = make_disk(bench)
        bench.domains.plug(bench.running, disk.xml())
        bench.domains.define(bench.running, disk.xml())
        bench.domains.note(bench.running, note_xml(disk.alias))
        bench.domains.unplug(bench.running, disk.alias)
        bench.wait_released(bench.running, disk.alias)
        bench.domains.forget(bench.running, disk.alias)
        for half in _halves(look(bench, bench.running)):
            assert noted(half) == [disk.alias]

    def test_nobody_takes_no_note(self, bench: Bench) -> None:
        with pytest.raises(UnknownInstance):
            bench.domains.note(NOBODY, note_xml("ua-one"))


def _halves(found: DomainLook) -> Iterator[str]:
    halves = [half for half in (found.live_xml, found.inactive_xml) if half is not None]
    assert halves
    yield from halves


def _all_at_once(work: list[tuple[Callable[[Disk], None], Disk]]) -> None:
    threads = [threading.Thread(target=do, args=(disk,)) for do, disk in work]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive()


def _letters(number: int) -> str:
    """0 is aa: names that no guest has from its beginning."""
    high, low = divmod(number, 26)
    return string.ascii_lowercase[high] + string.ascii_lowercase[low]
