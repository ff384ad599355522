"""A domain's XML for another host: only what is of the host changes in it.

Everything that the guest sees stays to the byte: libvirt would refuse some of it (its check of the
guest's ABI), and take the rest over to a guest whose disk has become another.
"""

from collections.abc import Collection, Mapping
from typing import Final

from lxml import etree

from agent.errors import Invalid
from agent.guest.domain_xml import DiskFacts, parse_domain
from agent.guest.xml import XmlElement, parse, to_text

_OF_THE_HOST: Final = frozenset(("source", "driver"))
"""Children of a part. <auth>, <encryption> and <reservations> are below <source>."""

_OF_THE_DRIVER: Final = frozenset(("cache", "io"))

_BEFORE_SOURCE: Final = ("auth", "encryption")
"""Where definitions older than libvirt 3.9 have them: beside <source>."""

SAFE_CACHES: Final = frozenset(("none", "directsync", "default"))
"""What a disk that the guest writes may have: another would show the new host old blocks."""


def moved_xml(domain_xml: str, parts: Mapping[str, str]) -> str:
    """``parts`` is {what a disk is found by (model.mark): a <disk> as disk_xml.host_side_xml makes
    it}; of a disk that this half does not have nothing is done.  Raises Invalid."""
    domain = parse(domain_xml)
    disks = domain.iterfind("devices/disk")
    for disk, facts in zip(disks, parse_domain(domain_xml).disks, strict=True):
        part = parts.get(facts.mark)
        if part is not None:
            _replace(disk, parse_part(part))
    moved = to_text(domain)
    before, after = (parse_domain(xml).disks for xml in (domain_xml, moved))
    assert [_of_the_guest(d) for d in before] == [_of_the_guest(d) for d in after], "as it was"
    return moved


def parse_part(text: str) -> XmlElement:
    """Raises Invalid where it is no part, or would change what the guest sees."""
    try:
        part = parse(text)
    except etree.XMLSyntaxError as error:
        raise Invalid(f"parts: not XML: {error.msg}; nothing was touched") from None
    found = {str(child.tag) for child in part}
    driver = part.find("driver")
    extra = found - _OF_THE_HOST
    if driver is not None:
        extra |= {str(name) for name, _ in driver.items()} - _OF_THE_DRIVER
    if part.tag != "disk" or part.find("source") is None or extra:
        raise Invalid(
            "parts: each must be a <disk> with <source> and <driver cache io> alone, as "
            f"prepare_migration answers it ({', '.join(sorted(extra)) or part.tag}); nothing was "
            "touched"
        )
    return part


def _replace(disk: XmlElement, part: XmlElement) -> None:
    if part.get("type") != disk.get("type"):
        raise Invalid(
            f"parts: the disk is of type {disk.get('type')}, its part of {part.get('type')}: both "
            "hosts must reach the volume the same way; nothing was touched"
        )
    if _is_encrypted(disk) != _is_encrypted(part):
        raise Invalid(
            "parts: of the disk and its part one is encrypted and the other is not: prepare it "
            "with the same encryption; nothing was touched"
        )
    for tag in _BEFORE_SOURCE:
        for old in disk.findall(tag):
            disk.remove(old)
    source, new = disk.find("source"), part.find("source")
    assert new is not None, "checked when parsed"
    if source is None:
        disk.insert(0, new)
    else:
        disk.replace(source, new)
    driver, wanted = disk.find("driver"), part.find("driver")
    if driver is not None and wanted is not None:
        for name in _OF_THE_DRIVER:
            if name in driver.attrib:
                del driver.attrib[name]
            if wanted.get(name) is not None:
                driver.set(name, str(wanted.get(name)))


def _is_encrypted(disk: XmlElement) -> bool:
    return any(disk.find(place) is not None for place in ("encryption", "source/encryption"))


def _of_the_guest(disk: DiskFacts) -> tuple[object, ...]:
    return (
        *(disk.device, disk.bus, disk.target_dev, disk.serial, disk.libvirt_alias),
        *(disk.address, disk.shareable, disk.read_only, disk.driver_type),
    )


def why_it_stays(live_xml: str) -> str | None:
    """What of a running domain keeps it from going, in words; None: nothing."""
    for disk in parse(live_xml).iterfind("devices/disk"):
        target = disk.find("target")
        name = "a disk" if target is None else f"disk {target.get('dev')}"
        driver = disk.find("driver")
        cache = "default" if driver is None else driver.get("cache", "default")
        if disk.find("source/reservations") is not None:
            return f"{name} makes reservations, which the target would keep for this host"
        if disk.find("readonly") is None and cache not in SAFE_CACHES:
            return f"{name} has cache {cache}, whose blocks the other host would not see"
    return None


def unnamed_devices(domain_xml: str, parts: Collection[str]) -> dict[str, str]:
    """{target name: source} of block devices of this host that no part replaces."""
    disks = parse(domain_xml).iterfind("devices/disk")
    return {
        facts.target_dev: facts.source
        for disk, facts in zip(disks, parse_domain(domain_xml).disks, strict=True)
        if disk.get("type") == "block" and facts.source and facts.mark not in parts
    }


def files_written(live_xml: str) -> list[str]:
    """By a running domain, as its disks."""
    disks = parse(live_xml).iterfind("devices/disk[@type='file']")
    found = [disk.find("source") for disk in disks if disk.find("readonly") is None]
    return [str(source.get("file")) for source in found if source is not None]


def has_block_job(live_xml: str) -> bool:
    return parse(live_xml).find("devices/disk/mirror") is not None
