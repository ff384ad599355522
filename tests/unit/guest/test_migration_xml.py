"""What changes in a domain that goes to another host, and what must not."""

import pytest
from lxml import etree

from agent.errors import Invalid
from agent.guest.disk_xml import disk_xml, host_side_xml
from agent.guest.domain_xml import parse_domain
from agent.guest.migration_xml import (
    files_written,
    has_block_job,
    moved_xml,
    parse_part,
    unnamed_devices,
    why_it_stays,
)
from agent.guest.placement import Place
from agent.model.attachment import Attachment
from agent.model.device import Device
from tests.samples import attachment_payload

PLACE = Place("vdb", {"type": "pci", "domain": "0x0000", "bus": "0x05", "slot": "0x00"})


def attachment(**different: object) -> Attachment:
    return Attachment.parse(attachment_payload(**different))


def device(path: str) -> Device:
    return Device(path=path, identity={}, size_bytes=1 << 30)


def domain(*disks: str) -> str:
    return f"<domain><devices>{''.join(disks)}</devices></domain>"


HERE, THERE = device("/dev/disk/by-id/here"), device("/dev/disk/by-id/there")

LUKS = {"format": "luks", "secret_file": "/run/key"}


@pytest.mark.parametrize(
    "different",
    [
        {},
        {"multiattach": True},
        {"access_mode": "ro"},
        {"encryption": LUKS},
        {"disk": {"bus": "scsi", "type": "lun"}},
    ],
    ids=str,
)
def test_it_is_as_if_it_had_been_plugged_over_there(different: dict[str, object]) -> None:
    wanted = attachment(**different)
    here, there = (disk_xml(wanted, found, PLACE) for found in (HERE, THERE))
    part = host_side_xml(attachment(attachment_id="att-9", **different), THERE)
    moved = moved_xml(domain(here), {wanted.alias: part})
    (disk,) = etree.fromstring(moved).iterfind("devices/disk")
    expected = etree.fromstring(there)
    assert {child.tag: etree.tostring(child, method="c14n").split() for child in disk} == {
        child.tag: etree.tostring(child, method="c14n").split() for child in expected
    }


def test_cache_and_io_are_the_other_hosts() -> None:
    here = disk_xml(attachment(disk={"io": "native"}), HERE, PLACE)
    part = host_side_xml(attachment(disk={"cache": "directsync"}), THERE)
    moved = etree.fromstring(moved_xml(domain(here), {"ua-att-1": part}))
    driver = moved.find("devices/disk/driver")
    assert driver is not None
    assert (driver.get("cache"), driver.get("io")) == ("directsync", None)


def test_disks_of_others_stay_to_the_byte() -> None:
    ours = disk_xml(attachment(), HERE, PLACE)
    other = '<disk type="file" device="cdrom"><source file="/x.iso"/><target dev="sda"/></disk>'
    moved = parse_domain(
        moved_xml(domain(other, ours), {"ua-att-1": host_side_xml(attachment(), THERE)})
    )
    assert [disk.source for disk in moved.disks] == ["/x.iso", THERE.path]


def test_credentials_beside_the_source_do_not_stay() -> None:
    """Of a definition that is older than libvirt 3.9."""
    old = (
        '<disk type="block" device="disk"><auth username="me"/><source dev="/dev/here"/>'
        '<target dev="vdb" bus="virtio"/><alias name="ua-att-1"/></disk>'
    )
    moved = moved_xml(domain(old), {"ua-att-1": host_side_xml(attachment(), THERE)})
    assert "<auth" not in moved


@pytest.mark.parametrize(("here", "there"), [(LUKS, None), (None, LUKS)], ids=["lost", "new"])
def test_encryption_neither_comes_nor_goes_on_the_way(here: object, there: object) -> None:
    """The guest would write plaintext over the header, or read what is encrypted."""
    disk = disk_xml(attachment(encryption=here), HERE, PLACE)
    part = host_side_xml(attachment(encryption=there), THERE)
    with pytest.raises(Invalid, match="one is encrypted and the other is not"):
        moved_xml(domain(disk), {"ua-att-1": part})


def test_devices_that_nobody_names() -> None:
    ours = disk_xml(attachment(), HERE, PLACE)
    empty = '<disk type="block" device="cdrom"><target dev="sda"/></disk>'
    file = '<disk type="file" device="disk"><source file="/x"/><target dev="vdy"/></disk>'
    other = '<disk type="block" device="disk"><source dev="/dev/dm-3"/><target dev="vdz"/></disk>'
    found = unnamed_devices(domain(ours, empty, file, other), {"ua-att-1"})
    assert found == {"vdz": "/dev/dm-3"}


def test_a_disk_that_this_half_does_not_have_is_no_trouble() -> None:
    part = host_side_xml(attachment(), THERE)
    assert parse_domain(moved_xml(domain(), {"ua-att-1": part})).disks == ()


@pytest.mark.parametrize(
    ("part", "wrong"),
    [
        ("<disk", "not XML"),
        ("<disk type='block'/>", "alone"),
        ("<interface><source/></interface>", "alone"),
        ("<disk type='block'><source dev='/dev/v'/><target dev='vda'/></disk>", "target"),
        ("<disk type='block'><source dev='/dev/v'/><driver discard='unmap'/></disk>", "discard"),
    ],
)
def test_what_is_no_part(part: str, wrong: str) -> None:
    with pytest.raises(Invalid, match=wrong):
        parse_part(part)


def test_a_part_that_is_reached_in_another_way() -> None:
    here = disk_xml(attachment(), HERE, PLACE)
    with pytest.raises(Invalid, match="the same way"):
        moved_xml(domain(here), {"ua-att-1": '<disk type="file"><source file="/v"/></disk>'})


@pytest.mark.parametrize(
    ("disk", "reason"),
    [
        ("<disk><driver cache='writeback'/><target dev='vda'/></disk>", "vda has cache writeback"),
        ("<disk><source><reservations/></source><target dev='sda'/></disk>", "sda makes"),
        ("<disk><driver cache='writeback'/><readonly/><target dev='sda'/></disk>", None),
        ("<disk><driver cache='none'/><target dev='vda'/></disk>", None),
        ("<disk><target dev='vda'/></disk>", None),
    ],
)
def test_what_keeps_a_guest_here(disk: str, reason: str | None) -> None:
    found = why_it_stays(domain(disk))
    assert (found is None) == (reason is None)
    assert reason is None or reason in str(found)


def test_a_copy_of_a_disk_shows_in_it() -> None:
    assert has_block_job(domain("<disk><mirror/></disk>"))
    assert not has_block_job(domain("<disk/>"))


def test_files_that_the_guest_writes() -> None:
    disks = (
        "<disk type='file'><source file='/data'/></disk>",
        "<disk type='file' device='cdrom'><target dev='sda'/></disk>",
        "<disk type='file'><source file='/x.iso'/><readonly/></disk>",
        "<disk type='block'><source dev='/dev/v'/></disk>",
    )
    assert files_written(domain(*disks)) == ["/data"]
