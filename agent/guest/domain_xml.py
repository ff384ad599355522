"""What we believe of a domain: the few facts of one half of it (running, or defined).

Format: https://libvirt.org/formatdomain.html
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Literal

from agent.guest.xml import XmlElement, element, parse, to_text
from agent.model.guest_iscsi import source_name
from agent.model.mark import METADATA_NAMESPACE, is_user_alias, mark_of

Address = dict[str, str]
"""The attributes of an <address>, as libvirt writes them."""


@dataclass(frozen=True)
class Note:
    """What a domain's metadata says of one disk: outlives our journal."""

    attachment_id: str
    volume_id: str
    generation: int | None


@dataclass(frozen=True)
class DiskFacts:
    """One <disk>. ``source`` is a path, or ``rbd:pool/image`` (``protocol:name``) on a network.

    ``alias`` is a user's; ``libvirt_alias`` is whatever libvirt shows.
    ``luks_secret`` is the uuid of the secret that QEMU opens it with. ``reserves``: the guest may
    make SCSI persistent reservations, in this host's name. ``copies_to`` is the source that QEMU
    copies it to, and keeps the same once ``is_copied``. ``slice_bytes``: the guest has so much of
    the source and no more."""

    device: str
    alias: str | None
    target_dev: str
    bus: str | None
    serial: str | None
    source: str | None
    driver_type: str | None
    cache: str
    shareable: bool
    read_only: bool
    address: Address | None
    libvirt_alias: str | None = None
    luks_secret: str | None = None
    reserves: bool = False
    copies_to: str | None = None
    is_copied: bool = False
    slice_bytes: int | None = None

    @property
    def mark(self) -> str:
        """What it is found by (model.mark)."""
        return mark_of(self.alias, self.target_dev, self.serial)


@dataclass(frozen=True)
class ScsiController:
    index: int
    model: str | None
    address: Address | None
    xml: str


@dataclass(frozen=True)
class DomainFacts:
    """``scsi_used`` holds (controller, unit); ``pci_buses`` is {bus number: controller model}
    of those that take hot-plugged devices;
    ``pci_used`` holds (bus, slot). ``boot_orders`` is {order: {who has it}}; a disk of ours is
    named by its alias. ``boots_by_kind``: by <os><boot>, which excludes orders."""

    disks: tuple[DiskFacts, ...]
    taken_targets: frozenset[str]
    iothread_ids: frozenset[int]
    scsi_controllers: dict[int, ScsiController]
    scsi_used: frozenset[tuple[int, int]]
    pci_buses: dict[int, str]
    pci_used: frozenset[tuple[int, int]]
    boot_orders: dict[int, frozenset[str]]
    boots_by_kind: bool
    notes: dict[str, Note]

    @cached_property
    def _by_mark(self) -> dict[str, DiskFacts]:
        return {disk.mark: disk for disk in self.disks}

    def disk_by_alias(self, alias: str) -> DiskFacts | None:
        """``alias``: or the mark of a disk that has none."""
        return self._by_mark.get(alias)


@lru_cache(maxsize=256)
def parse_domain(xml: str) -> DomainFacts:
    """The facts of one half. The same text is parsed once: who uses a volume asks all domains."""
    domain = parse(xml)
    devices = domain.find("devices")
    if devices is None:
        devices = element("devices")
    disks = tuple(disk_facts(disk) for disk in devices.iterfind("disk"))
    return DomainFacts(
        disks=disks,
        taken_targets=frozenset(disk.target_dev for disk in disks),
        iothread_ids=_iothread_ids(domain),
        scsi_controllers={
            controller.index: controller
            for controller in map(scsi_controller, devices.iterfind("controller[@type='scsi']"))
        },
        scsi_used=frozenset(_scsi_units(devices)),
        pci_buses={
            int(pci.get("index", "0")): pci.get("model", "pci-root")
            for pci in devices.iterfind("controller[@type='pci']")
            if _takes_hotplug(pci)
        },
        pci_used=frozenset(
            (int(address.get("bus", "0"), 0), int(address.get("slot", "0"), 0))
            for address in devices.iterfind("*/address[@type='pci']")
        ),
        boot_orders=_boot_orders(devices),
        boots_by_kind=domain.find("os/boot") is not None,
        notes=_notes(domain),
    )


def metadata_xml(notes: dict[str, Note]) -> str:
    """Our metadata element, without its namespace: libvirt adds the one that it is told."""
    return to_text(
        element(
            "attachments",
            *(
                element(
                    "disk",
                    alias=alias,
                    attachment=note.attachment_id,
                    volume=note.volume_id,
                    generation=note.generation,
                )
                for alias, note in sorted(notes.items())
            ),
        )
    )


def disk_facts(disk: XmlElement) -> DiskFacts:
    alias = _of(disk, "alias", "name")
    return DiskFacts(
        device=disk.get("device", "disk"),
        alias=alias if alias and is_user_alias(alias) else None,
        target_dev=_of(disk, "target", "dev") or "",
        bus=_of(disk, "target", "bus"),
        serial=disk.findtext("serial"),
        source=_source(disk.find("source")),
        driver_type=_of(disk, "driver", "type"),
        cache=_of(disk, "driver", "cache") or "default",
        shareable=disk.find("shareable") is not None,
        read_only=disk.find("readonly") is not None,
        address=_address(disk),
        libvirt_alias=alias,
        luks_secret=_luks_secret(disk),
        reserves=disk.find("source/reservations") is not None,
        copies_to=_source(disk.find("mirror[@job='copy']/source")),
        is_copied=disk.find("mirror[@job='copy'][@ready='yes']") is not None,
        slice_bytes=_slice_bytes(disk),
    )


def _slice_bytes(disk: XmlElement) -> int | None:
    found = disk.find("source/slices/slice[@type='storage']")
    return None if found is None else int(found.get("size", "0"))


def _luks_secret(disk: XmlElement) -> str | None:
    """Below <source>, or as definitions before libvirt 3.9 have it."""
    secrets = (disk.find(f"{place}encryption/secret") for place in ("source/", ""))
    return next((secret.get("uuid") for secret in secrets if secret is not None), None)


def _source(source: XmlElement | None) -> str | None:
    if source is None:
        return None
    protocol, name = source.get("protocol"), source.get("name")
    if protocol == "iscsi":
        initiator = source.find("initiator/iqn")
        return source_name(str(name), None if initiator is None else initiator.get("name"))
    if protocol is not None:
        return f"{protocol}:{name}"
    return source.get("dev") or source.get("file")


def _takes_hotplug(pci: XmlElement) -> bool:
    target = pci.find("target")
    return target is None or target.get("hotplug") != "off"


def scsi_controller(controller: XmlElement) -> ScsiController:
    alias = controller.find("alias")
    address = _address(controller)
    if alias is not None:
        controller.remove(alias)
    return ScsiController(
        index=int(controller.get("index", "0")),
        model=controller.get("model"),
        address=address,
        xml=to_text(controller),
    )


def _scsi_units(devices: XmlElement) -> Iterator[tuple[int, int]]:
    """Of disks, and of host devices that are passed through; IDE and SATA number as well."""
    scsi_disks = (disk for disk in devices.iterfind("disk") if _of(disk, "target", "bus") == "scsi")
    for device in (*scsi_disks, *devices.iterfind("hostdev[@type='scsi']")):
        address = device.find("address[@type='drive']")
        if address is not None:
            yield int(address.get("controller", "0")), int(address.get("unit", "0"))


def _boot_orders(devices: XmlElement) -> dict[int, frozenset[str]]:
    orders: dict[int, frozenset[str]] = {}
    for boot in devices.iterfind("*/boot"):
        device, order = boot.getparent(), _number(boot.get("order"))
        if order is None or device is None:
            continue
        alias, target = _of(device, "alias", "name") or "", _of(device, "target", "dev") or ""
        who = alias if is_user_alias(alias) else f"{device.tag} {target or alias}".strip()
        orders[order] = orders.get(order, frozenset()) | {who}
    return orders


def _address(device: XmlElement) -> Address | None:
    address = device.find("address")
    return None if address is None else {str(k): str(v) for k, v in address.items()}


def _iothread_ids(domain: XmlElement) -> frozenset[int]:
    """Those listed, and as many of the lowest others as <iothreads> counts."""
    named = {int(thread.get("id", "0")) for thread in domain.iterfind("iothreadids/iothread")}
    count = int(domain.findtext("iothreads") or len(named))
    unnamed = (number for number in range(1, count + len(named) + 1) if number not in named)
    return frozenset(named | {next(unnamed) for _ in range(count - len(named))})


def _notes(domain: XmlElement) -> dict[str, Note]:
    found = domain.find(f"metadata/{{{METADATA_NAMESPACE}}}attachments")
    if found is None:
        return {}
    return {
        disk.get("alias", ""): Note(
            attachment_id=disk.get("attachment", ""),
            volume_id=disk.get("volume", ""),
            generation=_number(disk.get("generation")),
        )
        for disk in found.iterfind("{*}disk")
    }


def _number(text: str | None) -> int | None:
    """Anybody may have written it: what is no number must not hide the domain's disks."""
    return int(text) if text is not None and text.isdecimal() else None


def _of(device: XmlElement, child: Literal["alias", "target", "driver"], name: str) -> str | None:
    found = device.find(child)
    return None if found is None else found.get(name)
