"""ports.Domains over XML text, with what libvirt 9.0 and QEMU 7.2 were seen to do.

Each half has its own calls; a second disk with the same alias, target name or
address is refused; QEMU locks what is not shareable; unplugging only asks, and the answer comes
when the guest likes; a reset answers what is pending, a stop forgets it without an event; a start
brings back whatever the definition still has.
"""

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal, TypeVar

from lxml import etree

from agent.errors import (
    AgentError,
    Busy,
    NoFreeAddress,
    PlugRefused,
    Unavailable,
    UnknownInstance,
    WrongDevice,
)
from agent.guest.xml import XmlElement
from agent.model.mark import mark_of
from agent.ports import LUKS2, Capabilities, DomainLook, DomainState, DomainXml
from tests.world.copied import copied
from tests.world.instants import Instants
from tests.world.locks import SimulatedLocks

Answer = TypeVar("Answer")

NAMESPACE = "urn:libvirt-attachment-agent:attachments:1"

Attitude = Literal["prompt", "cooperative", "late", "stubborn", "refusing"]
"""How a guest answers when it is asked for a disk: before the request has returned; at its next
turn; right after it was seen to have the disk still; not before a reset; with a refusal."""

ROOT_PORTS = 6


@dataclass
class Guest:
    """One domain. ``pending`` are the aliases that it was asked for and has not let go; ``sizes``
    what QEMU found when it opened the disk of a target name, or was told since; ``copies`` how many
    turns the copy of one has had; ``astray`` the source that QEMU has of one, where libvirt says
    another; ``errors`` of the disks for which QEMU has paused it. ``is_held``: somebody has paused
    it. ``is_back``: it stood when a migration was called off."""

    instance_id: str
    name: str
    inactive: str | None
    live: str | None
    is_paused: bool = False
    is_held: bool = False
    is_back: bool = False
    job: str | None = None
    attitude: Attitude = "cooperative"
    pending: list[str] = field(default_factory=list)
    asked: int = 0
    sizes: dict[str, int] = field(default_factory=dict)
    copies: dict[str, int] = field(default_factory=dict)
    astray: dict[str, str] = field(default_factory=dict)
    errors: dict[str, str | None] = field(default_factory=dict)


@dataclass
class SimulatedDomains:
    """``can_open`` tells whether QEMU finds the source; ``happened`` is told of every event.

    ``unlock`` raises what QEMU says to the secrets of a disk; ``size_of`` is what it finds when it
    opens one.
    ``plug_never_lands``: QEMU takes the disk and it does not appear. ``drops_limits``: it takes
    the disk, refuses its limits, and libvirt shows them all the same. ``refuses``: aliases that
    it does not take, whatever else is granted."""

    instants: Instants
    locks: SimulatedLocks
    can_open: Callable[[str], bool]
    canonical: Callable[[str], frozenset[str]]
    happened: Callable[[str], None]
    unlock: Callable[[XmlElement], None] = lambda disk: None
    size_of: Callable[[XmlElement], int] = lambda disk: 1 << 30
    guests: dict[str, Guest] = field(default_factory=dict)
    libvirt: tuple[int, int, int] = (9, 0, 0)
    missing: tuple[str, ...] = (LUKS2,)
    is_away: bool = False
    plug_error: AgentError | None = None
    plug_never_lands: bool = False
    drops_limits: bool = False
    refuses: frozenset[str] = frozenset()
    define_error: AgentError | None = None

    def __post_init__(self) -> None:
        self._one_at_a_time = threading.RLock()

    # ports.Domains

    def answering(self) -> bool:
        return not self.is_away

    def look(self, instance_id: str) -> DomainLook | None:
        found = self.call("look", lambda: self._look(instance_id))
        guest = self.guests.get(instance_id)
        if guest is not None and guest.attitude == "late" and guest.pending:
            self._release(guest)
        return found

    def read(self, instance_id: str) -> DomainXml | None:
        return self.look(instance_id)

    def job(self, instance_id: str) -> str | None:
        def ask() -> str | None:
            guest = self.guests.get(instance_id)
            return None if guest is None else guest.job

        return self.call("job", ask)

    def all(self) -> Sequence[DomainLook]:
        def everyone() -> list[DomainLook]:
            looks = (self._look(instance_id) for instance_id in self.guests)
            return [
                replace(look, job=None, is_held=False, is_back=False)
                for look in looks
                if look is not None
            ]

        return self.call("all", everyone)

    def plug(self, instance_id: str, device_xml: str) -> None:
        refusal = PlugRefused("simulated: QEMU does not like it")
        self.change("plug", lambda: self._plug(instance_id, device_xml), refusal)

    def define(self, instance_id: str, device_xml: str) -> None:
        refusal = PlugRefused("simulated: libvirt does not like it")
        self.change("define", lambda: self._define(instance_id, device_xml), refusal)

    def unplug(self, instance_id: str, alias: str) -> None:
        refusal = PlugRefused("simulated: libvirt cannot ask")
        self.change("unplug", lambda: self._unplug(instance_id, alias), refusal)

    def forget(self, instance_id: str, alias: str) -> None:
        refusal = PlugRefused("simulated: libvirt cannot write the definition")
        self.change("forget", lambda: self._forget(instance_id, alias), refusal)

    def limits(self, instance_id: str, target_dev: str) -> Mapping[str, int | str]:
        return self.call("limits", lambda: self._limits(instance_id, target_dev))

    def defined_limits(self, instance_id: str, target_dev: str) -> Mapping[str, int | str]:
        return self.call("limits", lambda: self._defined_limits(instance_id, target_dev))

    def limit(self, instance_id: str, target_dev: str, limits: Mapping[str, int | str]) -> None:
        refusal = PlugRefused("simulated: QEMU does not take these limits")
        self.change("limit", lambda: self._limit(instance_id, target_dev, limits), refusal)

    def define_limits(
        self, instance_id: str, target_dev: str, limits: Mapping[str, int | str]
    ) -> None:
        refusal = PlugRefused("simulated: libvirt does not take these limits")
        change = "define limits"
        self.change(change, lambda: self._define_limits(instance_id, target_dev, limits), refusal)

    def size(self, instance_id: str, target_dev: str) -> int:
        return self.call("size", lambda: self._size(instance_id, target_dev))

    def resize(self, instance_id: str, target_dev: str, size_bytes: int) -> None:
        refusal = PlugRefused("simulated: QEMU does not resize it")
        self.change("resize", lambda: self._resize(instance_id, target_dev, size_bytes), refusal)

    def disk_errors(self, instance_id: str) -> Mapping[str, str | None]:
        def ask() -> Mapping[str, str | None]:
            guest = self.guests.get(instance_id)
            return guest.errors if guest is not None and guest.is_paused else {}

        return self.call("disk-errors", ask)

    def redefine(self, instance_id: str, disk_xml: str) -> None:
        refusal = PlugRefused("simulated: libvirt does not take this disk")
        self.change("redefine", lambda: self._redefine(instance_id, disk_xml), refusal)

    def note(self, instance_id: str, metadata_xml: str) -> None:
        refusal = PlugRefused("simulated: libvirt takes no metadata")
        self.change("note", lambda: self._note(instance_id, metadata_xml), refusal)

    def capabilities(self) -> Capabilities:
        return Capabilities(libvirt=self.libvirt, qemu=(7, 2, 22), missing=self.missing)

    # what guests, operators and libvirt do by themselves

    def add(
        self,
        instance_id: str,
        *,
        runs: bool = True,
        is_persistent: bool = True,
        is_paused: bool = False,
        attitude: Attitude = "cooperative",
    ) -> Guest:
        name = f"guest-{instance_id[-1]}"
        xml = _domain_xml(instance_id, name)
        guest = Guest(
            instance_id,
            name,
            inactive=xml if is_persistent else None,
            live=_running(xml) if runs else None,
            is_paused=is_paused,
            attitude=attitude,
        )
        self.guests[instance_id] = guest
        return guest

    def start(self, instance_id: str) -> None:
        """From its definition: a disk that it still has is there again."""
        guest = self.guests[instance_id]
        assert guest.inactive is not None
        assert guest.live is None
        for disk in _disks(guest.inactive):
            source = source_of(disk)
            assert source is None or self.can_open(source), f"{guest.name} cannot open {source}"
            self.unlock(disk)
        guest.sizes = {
            _target_of(disk) or "": self.size_of(disk) for disk in _disks(guest.inactive)
        }
        guest.live = _running(guest.inactive)
        self.happened(instance_id)

    def destroy(self, instance_id: str) -> None:
        """No removal event for what was pending. A transient domain is gone with it."""
        guest = self.guests[instance_id]
        guest.live, guest.is_paused = None, False
        guest.pending.clear()
        guest.copies.clear()
        guest.astray.clear()
        if guest.inactive is None:
            del self.guests[instance_id]
        self.happened(instance_id)

    def lose_power(self) -> None:
        """What is not defined is gone, and nobody hears of it."""
        self.guests = {
            instance_id: replace(
                guest, live=None, is_paused=False, job=None, pending=[], copies={}, astray={}
            )
            for instance_id, guest in self.guests.items()
            if guest.inactive is not None
        }

    def autostart(self) -> list[str]:
        """Every guest whose disks are there; the names of the others."""
        missing = []
        for guest in self.guests.values():
            if all(self._can_start_with(disk) for disk in _disks(guest.inactive)):
                self.start(guest.instance_id)
            else:
                missing.append(guest.name)
        return missing

    def _can_start_with(self, disk: XmlElement) -> bool:
        """Its device is there, and its secrets: libvirt begins without ours."""
        source = source_of(disk)
        if source is not None and not self.can_open(source):
            return False
        try:
            self.unlock(disk)
        except AgentError:
            return False
        return True

    def undefine(self, instance_id: str) -> None:
        """Destroyed and undefined: libvirt knows it no more."""
        self.guests.pop(instance_id, None)
        self.happened(instance_id)

    def reset(self, instance_id: str) -> None:
        """The firmware lets go of whatever is pending."""
        self._release(self.guests[instance_id])

    def let_guests_act(self) -> bool:
        """Everybody's next turn; did anything happen?"""
        with self._one_at_a_time:
            return self._let_guests_act()

    def _let_guests_act(self) -> bool:
        acted = False
        for guest in list(self.guests.values()):
            if not guest.pending or guest.is_paused:
                continue
            if guest.attitude in ("cooperative", "prompt", "late"):
                self._release(guest)
                acted = True
            elif guest.attitude == "refusing":
                guest.pending.clear()
                self.happened(guest.instance_id)
                acted = True
        return acted

    def in_use(self, names: frozenset[str]) -> list[str]:
        """Halves of domains that have a disk of one of these names, or are copied to it."""
        found = []
        for guest in self.guests.values():
            for half, xml in (("running", guest.live), ("defined", guest.inactive)):
                disks = _disks(xml)
                mirrors = [disk.find("mirror") for disk in disks]
                sources = [source_of(one) for one in (*disks, *mirrors) if one is not None]
                if any(source in names for source in sources):
                    found.append(f"{guest.name} ({half})")
            if names & set(guest.astray.values()):
                found.append(f"{guest.name} (QEMU)")
        return found

    def says(self, serial: str) -> bool:
        """Has any disk this serial?"""
        halves = (half for guest in self.guests.values() for half in (guest.live, guest.inactive))
        return any(disk.findtext("serial") == serial for xml in halves for disk in _disks(xml))

    def outline(self) -> list[object]:
        return [self.is_away, self.plug_error, self.define_error, *self.guests.values()]

    def image(self) -> dict[str, object]:
        same = (
            *("is_away", "libvirt", "missing", "plug_error", "define_error"),
            *("plug_never_lands", "drops_limits", "refuses"),
        )
        image = {name: getattr(self, name) for name in same}
        return {**image, "guests": copied(self.guests)}

    def restore(self, image: Mapping[str, object]) -> None:
        for name, value in image.items():
            setattr(self, name, copied(value) if name == "guests" else value)

    # calls

    def call(self, name: str, effect: Callable[[], Answer]) -> Answer:
        return self.instants.call(name, lambda: self._alone(effect), part="libvirt")

    def change(self, name: str, effect: Callable[[], None], refusal: AgentError) -> None:
        assert not self.locks.mine(), f"{name} asks a guest while {self.locks.mine()} is held"
        self.instants.call(name, lambda: self._alone(effect), part="libvirt", refusal=refusal)

    def _alone(self, effect: Callable[[], Answer]) -> Answer:
        if self.is_away:
            raise Unavailable("libvirt", "simulated: it is away")
        with self._one_at_a_time:
            return effect()

    def _look(self, instance_id: str) -> DomainLook | None:
        guest = self.guests.get(instance_id)
        if guest is None:
            return None
        standing: DomainState = "paused" if guest.is_paused else "running"
        return DomainLook(
            instance_id=instance_id,
            name=guest.name,
            state=standing if guest.live is not None else "shutoff",
            live_xml=guest.live,
            inactive_xml=guest.inactive,
            job=guest.job,
            is_held=guest.is_paused and guest.is_held,
            is_back=not guest.is_paused and guest.is_back,
        )

    def _limits(self, instance_id: str, target_dev: str) -> dict[str, int | str]:
        disk = self._live_disk(instance_id, target_dev)
        asked = disk.iterfind("iotune/*") if not self.drops_limits else ()
        return {str(limit.tag): _number(limit.text or "") for limit in asked}

    def _size(self, instance_id: str, target_dev: str) -> int:
        self._live_disk(instance_id, target_dev)
        return self.guests[instance_id].sizes[target_dev]

    def _live_disk(self, instance_id: str, target_dev: str) -> XmlElement:
        guest = self.guests.get(instance_id)
        for disk in _disks(guest.live if guest else None):
            if _target_of(disk) == target_dev:
                return disk
        raise Unavailable("libvirt", f"there is no running {target_dev}")

    def _defined_limits(self, instance_id: str, target_dev: str) -> dict[str, int | str]:
        guest = self.guests.get(instance_id)
        for disk in _disks(guest.inactive if guest else None):
            if _target_of(disk) == target_dev:
                limits = disk.iterfind("iotune/*")
                return {str(limit.tag): _number(limit.text or "") for limit in limits}
        raise Unavailable("libvirt", f"there is no defined {target_dev}")

    # effects

    def _limit(self, instance_id: str, target_dev: str, limits: Mapping[str, int | str]) -> None:
        guest = self.free_guest(instance_id)
        if guest.live is None:
            raise Unavailable("libvirt", "the domain has just stopped or started")
        guest.live = _with_limits(guest.live, target_dev, limits)

    def _define_limits(
        self, instance_id: str, target_dev: str, limits: Mapping[str, int | str]
    ) -> None:
        guest = self.free_guest(instance_id)
        if guest.inactive is None:
            raise Unavailable("libvirt", "the domain has just stopped or started")
        guest.inactive = _with_limits(guest.inactive, target_dev, limits)

    def _resize(self, instance_id: str, target_dev: str, size_bytes: int) -> None:
        guest, disk = self.free_guest(instance_id), self._live_disk(instance_id, target_dev)
        there = self.size_of(disk)
        _refuse_copied(guest, target_dev)
        if slice_bytes(disk) is not None:
            raise PlugRefused("Cannot resize fixed-size raw disks")
        if disk.find("readonly") is not None:
            raise PlugRefused(f"can't resize empty or readonly disk '{target_dev}'")
        if size_bytes > there:
            raise PlugRefused("Cannot grow device files")
        guest.sizes[target_dev] = there

    def _plug(self, instance_id: str, device_xml: str) -> None:
        guest = self.free_guest(instance_id)
        if guest.live is None:
            raise Unavailable("libvirt", "the domain has just stopped or started")
        device = etree.fromstring(device_xml)
        if _is_there(guest.live, device):
            return
        self.refuse_source(device)
        if self.plug_error is not None:
            raise self.plug_error
        if _alias_of(device) in self.refuses:
            raise PlugRefused("simulated: QEMU does not like this one")
        if not self.plug_never_lands:
            guest.live = _with_device(guest.live, device)
            if device.tag == "disk":
                guest.sizes[_target_of(device) or ""] = self.size_of(device)

    def _define(self, instance_id: str, device_xml: str) -> None:
        guest = self.free_guest(instance_id)
        if guest.inactive is None:
            raise Unavailable("libvirt", "the domain has just stopped or started")
        device = etree.fromstring(device_xml)
        if _is_there(guest.inactive, device):
            return
        if self.define_error is not None:
            raise self.define_error
        guest.inactive = _with_device(guest.inactive, device)

    def _redefine(self, instance_id: str, disk_xml: str) -> None:
        guest, wanted = self.free_guest(instance_id), etree.fromstring(disk_xml)
        if guest.inactive is None:
            raise Unavailable("libvirt", "the domain has just stopped or started")
        domain = etree.fromstring(guest.inactive)
        for disk in domain.findall("devices/disk"):
            if (_alias_of(disk), _target_of(disk)) == (_alias_of(wanted), _target_of(wanted)):
                parent = disk.getparent()
                assert parent is not None
                parent.replace(disk, wanted)
                guest.inactive = _text(domain)
                return
        raise WrongDevice("the definition has no such disk")

    def _unplug(self, instance_id: str, alias: str) -> None:
        guest = self.guests.get(instance_id)
        if guest is None or guest.live is None or not _has_alias(guest.live, alias):
            return
        self.free_guest(instance_id)
        for disk in _disks(guest.live):
            if _alias_of(disk) == alias:
                _refuse_copied(guest, _target_of(disk) or "")
        guest.asked += 1
        if alias not in guest.pending:
            guest.pending.append(alias)
        if guest.attitude == "prompt":
            self._release(guest)

    def _forget(self, instance_id: str, alias: str) -> None:
        guest = self.guests.get(instance_id)
        if guest is not None and guest.inactive is not None and _has_alias(guest.inactive, alias):
            self.free_guest(instance_id)
            guest.inactive = _without_alias(guest.inactive, alias)

    def _note(self, instance_id: str, metadata_xml: str) -> None:
        guest = self.free_guest(instance_id)
        if guest.live is not None:
            guest.live = _with_note(guest.live, metadata_xml)
        if guest.inactive is not None:
            guest.inactive = _with_note(guest.inactive, metadata_xml)

    def _release(self, guest: Guest) -> None:
        for alias in guest.pending:
            if guest.live is not None:
                guest.live = _without_alias(guest.live, alias)
        guest.pending.clear()
        self.happened(guest.instance_id)

    def free_guest(self, instance_id: str) -> Guest:
        guest = self.guests.get(instance_id)
        if guest is None:
            raise UnknownInstance(f"libvirt on this host has no domain {instance_id}")
        if guest.job is not None:
            raise Unavailable("libvirt", f"another call occupies the domain ({guest.job})")
        return guest

    def refuse_source(self, device: XmlElement) -> None:
        """What QEMU says: the file must be there, and its lock free."""
        source = source_of(device)
        if source is None:
            return
        if not self.can_open(source):
            raise PlugRefused(f"{source}: No such file or directory")
        self.unlock(device)
        for other in self.guests.values():
            for disk in _disks(other.live):
                theirs = source_of(disk)
                if theirs is None or not self.canonical(theirs) & self.canonical(source):
                    continue
                if not (_may_share(disk) and _may_share(device)):
                    raise PlugRefused(f'Failed to get "write" lock: {other.name} has {source}')


def _refuse_copied(guest: Guest, target_dev: str) -> None:
    if target_dev in guest.copies:
        raise Busy("block copy still active: the disk is in an active block job")


def slice_bytes(disk: XmlElement) -> int | None:
    """QEMU has so much of the source, and no more."""
    found = disk.find("source/slices/slice")
    return None if found is None else int(found.get("size", "0"))


def _domain_xml(instance_id: str, name: str) -> str:
    ports = "".join(
        f"<controller type='pci' index='{number}' model='pcie-root-port'>"
        f"<address type='pci' domain='0x0000' bus='0x00' slot='0x02' function='0x{number}'/>"
        "</controller>"
        for number in range(1, ROOT_PORTS + 1)
    )
    return (
        f"<domain type='kvm'><name>{name}</name><uuid>{instance_id}</uuid>"
        "<os><boot dev='hd'/></os><devices>"
        f"<controller type='pci' index='0' model='pcie-root'/>{ports}"
        "<controller type='scsi' index='0' model='virtio-scsi'>"
        "<address type='pci' domain='0x0000' bus='0x01' slot='0x00' function='0x0'/></controller>"
        "</devices></domain>"
    )


def _running(xml: str) -> str:
    domain = etree.fromstring(xml)
    domain.set("id", "1")
    return _text(domain)


def _number(text: str) -> int | str:
    return int(text) if text.isdecimal() else text


def _text(tree: XmlElement) -> str:
    return etree.tostring(tree, encoding="unicode")


def _disks(xml: str | None) -> list[XmlElement]:
    return [] if xml is None else etree.fromstring(xml).findall("devices/disk")


def _alias_of(device: XmlElement) -> str | None:
    alias = device.find("alias")
    return None if alias is None else alias.get("name")


def source_of(device: XmlElement) -> str | None:
    source = device.find("source")
    if source is None or source.get("protocol") is None:
        return None if source is None else source.get("dev") or source.get("file")
    initiator = source.find("initiator/iqn")
    whose = "" if initiator is None else f"?initiator={initiator.get('name')}"
    return f"{source.get('protocol')}:{source.get('name')}{whose}"


def _mark_of(disk: XmlElement) -> str:
    return mark_of(_alias_of(disk), _target_of(disk) or "", disk.findtext("serial"))


def _may_share(disk: XmlElement) -> bool:
    return disk.find("shareable") is not None


def _has_alias(xml: str, alias: str) -> bool:
    """``alias``: or what a disk without one is found by."""
    return any(_mark_of(disk) == alias for disk in _disks(xml))


def _is_there(xml: str, device: XmlElement) -> bool:
    """An alias, or a controller's index, that the half has already is left as it is."""
    if device.tag == "disk":
        return _alias_of(device) is not None and _has_alias(xml, _mark_of(device))
    kind, index = device.get("type"), device.get("index")
    same = f"devices/controller[@type='{kind}'][@index='{index}']"
    return etree.fromstring(xml).find(same) is not None


def _with_device(xml: str, device: XmlElement) -> str:
    domain = etree.fromstring(xml)
    devices = domain.find("devices")
    assert devices is not None
    if device.find("address") is None:
        device.append(_free_port(devices))
    if _target_of(device) in {_target_of(other) for other in devices.findall("disk")}:
        raise NoFreeAddress(f"target '{_target_of(device)}' already exists")
    if _place_of(device) in {_place_of(other) for other in devices.iterchildren("*")}:
        raise NoFreeAddress(f"the place {_place_of(device)} is already in use")
    _refuse_missing_controller(devices, device)
    _refuse_boot_order(domain, device)
    devices.append(device)
    return _text(domain)


def _target_of(device: XmlElement) -> str | None:
    target = device.find("target")
    return None if target is None else target.get("dev")


def _place_of(device: XmlElement) -> tuple[str, ...] | None:
    address = device.find("address")
    if address is None:
        return None
    if address.get("type") == "drive":
        return "drive", address.get("controller", "0"), address.get("unit", "0")
    return "pci", address.get("bus", ""), address.get("slot", ""), address.get("function", "")


def _refuse_missing_controller(devices: XmlElement, device: XmlElement) -> None:
    place = _place_of(device)
    assert place is not None
    kind, index = ("scsi", place[1]) if place[0] == "drive" else ("pci", str(int(place[1], 16)))
    if devices.find(f"controller[@type='{kind}'][@index='{index}']") is None:
        raise PlugRefused(f"there is no {kind} controller {index}")


def _refuse_boot_order(domain: XmlElement, device: XmlElement) -> None:
    boot = device.find("boot")
    if boot is None:
        return
    if domain.find("os/boot") is not None:
        raise PlugRefused("per-device boot elements cannot be used together with os/boot elements")
    if domain.find(f"devices/*/boot[@order='{boot.get('order')}']") is not None:
        raise PlugRefused(f"boot order {boot.get('order')} is already used by another device")


def _free_port(devices: XmlElement) -> XmlElement:
    taken = {_place_of(device) for device in devices.iterchildren("*")}
    for number in range(1, ROOT_PORTS + 1):
        place = ("pci", f"0x{number:02x}", "0x00", "0x0")
        if place not in taken:
            return etree.Element("address", type="pci", bus=place[1], slot="0x00", function="0x0")
    raise NoFreeAddress("No more available PCI slots")


def _without_alias(xml: str, alias: str) -> str:
    domain = etree.fromstring(xml)
    for disk in domain.findall("devices/disk"):
        if _mark_of(disk) == alias:
            parent = disk.getparent()
            assert parent is not None
            parent.remove(disk)
    return _text(domain)


def _with_limits(xml: str, target_dev: str, limits: Mapping[str, int | str]) -> str:
    """What is not named stays; without any limit a disk is in no group."""
    domain = etree.fromstring(xml)
    for disk in domain.findall("devices/disk"):
        if _target_of(disk) == target_dev:
            before = disk.find("iotune")
            merged = {} if before is None else {str(one.tag): one.text for one in before}
            merged |= {name: str(value) for name, value in limits.items()}
            if before is not None:
                disk.remove(before)
            given = {name: text for name, text in merged.items() if text != "0"}
            if given.keys() - {"group_name"}:
                iotune = etree.SubElement(disk, "iotune")
                for name, text in given.items():
                    etree.SubElement(iotune, name).text = text
            return _text(domain)
    raise PlugRefused(f"disk '{target_dev}' not found in domain")


def _with_note(xml: str, metadata_xml: str) -> str:
    """libvirt puts our element into our namespace; one without children takes it away."""
    domain, noted = etree.fromstring(xml), etree.fromstring(metadata_xml)
    metadata = domain.find("metadata")
    if metadata is None:
        metadata = etree.SubElement(domain, "metadata")
    for old in metadata.findall(f"{{{NAMESPACE}}}{noted.tag}"):
        metadata.remove(old)
    if len(noted):
        ours = etree.SubElement(metadata, f"{{{NAMESPACE}}}{noted.tag}", nsmap={"laa": NAMESPACE})
        for child in noted:
            ours_too = etree.SubElement(ours, f"{{{NAMESPACE}}}{child.tag}")
            ours_too.attrib.update(child.attrib)
    if not len(metadata):
        domain.remove(metadata)
    return _text(domain)
