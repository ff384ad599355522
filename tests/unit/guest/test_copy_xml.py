"""A disk on its way to another volume: what QEMU copies to, and the definition afterwards."""

from dataclasses import replace

import pytest
from lxml import etree

from agent.guest.disk_xml import destination_xml, differences, disk_xml, swapped_xml
from agent.guest.domain_xml import DiskFacts, disk_facts, parse_domain
from agent.guest.placement import Place
from agent.guest.xml import parse
from agent.model.attachment import Attachment
from agent.model.device import Device
from tests.samples import VOLUMES, attachment
from tests.unit.guest.test_disk_xml import LUKS, NFS, PCI, RBD, RBD_WITH_KEY

KINDS = {
    "plain": {},
    "luks": {"encryption": LUKS},
    "nfs-qcow2": {"connection_info": NFS},
    "rbd": {"connection_info": RBD},
    "rbd-with-its-key": {"connection_info": RBD_WITH_KEY},
    "luks-rbd": {"connection_info": RBD, "encryption": LUKS},
}


def of_kind(kind: str, **different: str) -> tuple[Attachment, Device]:
    wish = attachment(**KINDS[kind], **different)
    path = f"/dev/disk/by-id/{kind}-{wish.volume_id}"
    return wish, Device(path=path, identity={}, size_bytes=1 << 30)


def domain_with(disk: str) -> str:
    return f"<domain><devices>{disk}</devices></domain>"


def facts_of(disk: str) -> DiskFacts:
    (found,) = parse_domain(domain_with(disk)).disks
    return found


@pytest.mark.parametrize("to", KINDS)
@pytest.mark.parametrize("of", KINDS)
def test_the_definition_changes_the_volume_and_nothing_else(of: str, to: str) -> None:
    old, old_device = of_kind(of)
    new, new_device = of_kind(to, attachment_id="att-2", volume_id=VOLUMES[1])
    new = new.found_as(old)
    before = disk_xml(old, old_device, Place("vdb", PCI))
    after = swapped_xml(domain_with(before), old.alias, new, new_device)
    assert after is not None
    moved, was = facts_of(after), facts_of(before)
    assert moved == replace(
        was, source=moved.source, driver_type=moved.driver_type, luks_secret=moved.luks_secret
    )
    where = None if new.connection.source_type == "network" else new_device.path
    assert differences(moved, new, lambda name: frozenset({name}), where) == []
    assert after == swapped_xml(domain_with(after), old.alias, new, new_device)


def test_what_else_somebody_has_set_stays() -> None:
    old, device = of_kind("plain")
    before = parse(disk_xml(old, device, Place("vdb", PCI)))
    etree.SubElement(before, "vendor").text = "somebody"
    old_form = etree.SubElement(before, "encryption", format="luks")
    etree.SubElement(old_form, "secret", type="passphrase", uuid="x")
    new, new_device = of_kind("plain", attachment_id="att-2", volume_id=VOLUMES[1])
    xml = domain_with(etree.tostring(before, encoding="unicode"))
    after = parse(swapped_xml(xml, old.alias, new, new_device) or "")
    assert after.findtext("vendor") == "somebody"
    assert after.find("encryption") is None, "that was the old volume's"
    assert swapped_xml(xml, "ua-nobody", new, new_device) is None


@pytest.mark.parametrize("kind", KINDS)
def test_a_destination_is_the_volume_alone(kind: str) -> None:
    wish, device = of_kind(kind)
    disk = parse(destination_xml(wish, device, slice_bytes=None))
    facts = disk_facts(disk)
    assert facts.driver_type == wish.connection.source_format
    assert facts.luks_secret == wish.secret_uuid("volume")
    assert {str(child.tag) for child in disk} == {"driver", "source", "backingStore"}
    assert facts.slice_bytes is None
    part = disk_facts(parse(destination_xml(wish, device, slice_bytes=4096)))
    assert part.slice_bytes == 4096


def test_where_a_disk_is_on_its_way_the_live_xml_tells() -> None:
    old, device = of_kind("plain")
    disk = parse(disk_xml(old, device, Place("vdb", PCI)))
    mirror = etree.SubElement(disk, "mirror", job="copy", type="block")
    etree.SubElement(mirror, "source", dev="/dev/new")
    facts = disk_facts(disk)
    assert (facts.copies_to, facts.is_copied) == ("/dev/new", False)
    mirror.set("ready", "yes")
    assert disk_facts(disk).is_copied
    mirror.set("job", "active-commit")
    assert disk_facts(disk).copies_to is None, "that is no copy"
