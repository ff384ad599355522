"""ports.Copies over the simulated guests, with what libvirt 9.0 and QEMU 7.2 were seen to do.

* a copy is in the live XML (``mirror``) and goes by itself, turn by turn (``act``), whoever
  watches; it is gone with the guest
* one that fails vanishes without a word; so one to a destination of another size, right after the
  start
* a pivot changes both halves, in the definition the source alone
* libvirtd that dies in a pivot knows no more which volume QEMU has
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal, TypeVar

from lxml import etree

from agent.errors import AgentError, Busy, CopyFailed, PlugRefused, Unavailable
from agent.guest.xml import XmlElement
from agent.model.copy import CopyProgress, CopyWishes
from tests.world.domains import Guest, SimulatedDomains, source_of
from tests.world.instants import Instants

Answer = TypeVar("Answer")

TURNS = 3
"""Until it is ready."""


@dataclass
class SimulatedCopies:
    """``pace`` stalls: what is copied stays where it is. ``breaks``: each copy fails half way.
    ``loses_definition``: libvirtd dies in each pivot before it has written the definition;
    ``loses_track``: before it has written anything, and comes to believe that the disk is back on
    the old volume, or that the pivot goes on for ever. ``hangs``: who starts one gets no answer,
    and it begins as soon as libvirt does not hang any more."""

    instants: Instants
    domains: SimulatedDomains
    pace: Literal["goes", "stalls"] = "goes"
    breaks: bool = False
    loses_definition: bool = False
    loses_track: Literal["", "back", "pivoting"] = ""
    hangs: bool = False
    due: tuple[str, str, str] | None = None

    # ports.Copies

    def start(
        self, instance_id: str, target_dev: str, destination_xml: str, wishes: CopyWishes
    ) -> None:
        def begin() -> None:
            if self.hangs:
                self.due = (instance_id, target_dev, destination_xml)
                raise Unavailable("libvirt", "simulated: no answer")
            self._begin(instance_id, target_dev, destination_xml)

        refusal = CopyFailed("simulated: QEMU does not copy it")
        self._change("copy", begin, refusal)

    def progress(self, instance_id: str, target_dev: str) -> CopyProgress | None:
        def ask() -> CopyProgress | None:
            if self.due:
                raise Unavailable("libvirt", "simulated: behind the start of a copy")
            guest = self.domains.guests.get(instance_id)
            if guest is None or target_dev not in guest.copies:
                return None
            total = guest.sizes[target_dev]
            return CopyProgress(total * guest.copies[target_dev] // TURNS, total)

        return self._call("copy-progress", ask)

    def pivot(self, instance_id: str, target_dev: str) -> None:
        def change() -> None:
            guest = self.domains.free_guest(instance_id)
            if target_dev not in guest.copies:
                raise CopyFailed("there is no copy any more")
            live, disk = _disk(guest.live, target_dev)
            assert disk is not None
            mirror = disk.find("mirror")
            assert mirror is not None
            if mirror.get("ready") != "yes":
                raise Unavailable("libvirt", "simulated: the copy is not ready")
            if self.loses_track:
                guest.astray[target_dev] = source_of(mirror) or ""
                mirror.set("ready", "pivot")
                if self.loses_track == "back":
                    disk.remove(mirror)
                guest.live = _text(live)
                del guest.copies[target_dev]
                return
            if not self.loses_definition and guest.inactive is not None:
                defined, half = _disk(guest.inactive, target_dev)
                if half is not None and source_of(half) == source_of(disk):
                    _move(half, mirror)
                    guest.inactive = _text(defined)
            _move(disk, mirror)
            guest.live = _text(live)
            del guest.copies[target_dev]
            self.domains.happened(instance_id)

        refusal = CopyFailed("simulated: QEMU does not pivot")
        self._change("pivot", change, refusal)

    def abort(self, instance_id: str, target_dev: str) -> None:
        def change() -> None:
            guest = self.domains.guests.get(instance_id)
            if guest is not None and target_dev in guest.copies:
                self._vanish(guest, target_dev)

        refusal = PlugRefused("simulated: libvirt does not give it up")
        self._change("abort-copy", change, refusal)

    def astray(self, instance_id: str, target_dev: str) -> bool:
        def ask() -> bool:
            guest = self.domains.guests.get(instance_id)
            return guest is not None and target_dev in guest.astray

        return self._call("astray", ask)

    # what QEMU does by itself

    def act(self) -> bool:
        """The next turn of each copy; did anything happen?"""
        if self.due and not self.hangs:
            self._begin(*self.due)
            self.due = None
            return True
        turned = [
            self._turn(guest, target_dev)
            for guest in list(self.domains.guests.values())
            for target_dev in list(guest.copies)
        ]
        return any(turned)

    def fail(self, instance_id: str) -> None:
        """Every copy of the guest."""
        guest = self.domains.guests[instance_id]
        for target_dev in list(guest.copies):
            self._vanish(guest, target_dev)

    def image(self) -> dict[str, object]:
        own = ("pace", "breaks", "loses_definition", "loses_track", "hangs", "due")
        return {name: getattr(self, name) for name in own}

    def restore(self, image: Mapping[str, object]) -> None:
        for name, value in image.items():
            setattr(self, name, value)

    def _begin(self, instance_id: str, target_dev: str, destination_xml: str) -> None:
        guest = self.domains.free_guest(instance_id)
        live, disk = _disk(guest.live, target_dev)
        if disk is None:
            raise Unavailable("libvirt", "the domain has just stopped or started")
        destination = etree.fromstring(destination_xml)
        goes_to = _mirrored(disk)
        if goes_to is not None and goes_to == source_of(destination):
            return
        if goes_to is not None:
            raise Busy("block copy still active: disk already in active block job")
        self._refuse(guest, destination)
        mirror = etree.SubElement(disk, "mirror", job="copy")
        mirror.set("type", destination.get("type", ""))
        driver = destination.find("driver")
        assert driver is not None
        etree.SubElement(mirror, "format", type=driver.get("type", ""))
        mirror.extend(destination.findall("source"))
        guest.copies[target_dev] = 0
        guest.live = _text(live)

    def _turn(self, guest: Guest, target_dev: str) -> bool:
        live, disk = _disk(guest.live, target_dev)
        assert disk is not None
        mirror = disk.find("mirror")
        assert mirror is not None
        if not self._fits(guest, target_dev, mirror):
            self._vanish(guest, target_dev)
            return True
        if self.pace == "stalls" or mirror.get("ready") == "yes":
            return False
        guest.copies[target_dev] += 1
        if self.breaks and guest.copies[target_dev] > 1:
            self._vanish(guest, target_dev)
        elif guest.copies[target_dev] == TURNS:
            mirror.set("ready", "yes")
            guest.live = _text(live)
        self.domains.happened(guest.instance_id)
        return True

    def _fits(self, guest: Guest, target_dev: str, mirror: XmlElement) -> bool:
        """QEMU copies to what is exactly as large."""
        shown = self.domains.size_of(mirror)
        return guest.sizes[target_dev] == shown

    def _vanish(self, guest: Guest, target_dev: str) -> None:
        live, disk = _disk(guest.live, target_dev)
        assert disk is not None
        for mirror in disk.findall("mirror"):
            disk.remove(mirror)
        guest.live = _text(live)
        del guest.copies[target_dev]
        self.domains.happened(guest.instance_id)

    def _refuse(self, guest: Guest, destination: XmlElement) -> None:
        try:
            self.domains.refuse_source(destination)
        except PlugRefused as error:
            raise CopyFailed(error.detail) from error

    def _change(self, name: str, effect: Callable[[], None], refusal: AgentError) -> None:
        self.domains.change(name, effect, refusal)

    def _call(self, name: str, effect: Callable[[], Answer]) -> Answer:
        return self.domains.call(name, effect)


def _disk(xml: str | None, target_dev: str) -> tuple[XmlElement, XmlElement | None]:
    domain = etree.fromstring(xml or "<domain/>")
    found = domain.find(f"devices/disk/target[@dev='{target_dev}']/..")
    return domain, found


def _mirrored(disk: XmlElement) -> str | None:
    mirror = disk.find("mirror")
    return None if mirror is None else source_of(mirror)


def _move(disk: XmlElement, mirror: XmlElement) -> None:
    """The mirror's source and format become the disk's."""
    for tag in ("source", "mirror"):
        for old in disk.findall(tag):
            disk.remove(old)
    disk.set("type", mirror.get("type", ""))
    driver, image_format = disk.find("driver"), mirror.find("format")
    assert driver is not None
    assert image_format is not None
    driver.set("type", image_format.get("type", ""))
    disk.extend(etree.fromstring(etree.tostring(mirror)).findall("source"))


def _text(tree: XmlElement) -> str:
    return etree.tostring(tree, encoding="unicode")
