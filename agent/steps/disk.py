"""A disk comes into a guest and leaves it: two halves, the running guest and its definition."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from agent.errors import UnknownInstance, WrongDevice
from agent.guest.disk_xml import differences, disk_xml
from agent.guest.domain_xml import DiskFacts, DomainFacts, Note, metadata_xml
from agent.guest.placement import Place, choose_place, keep_place
from agent.model.attachment import Attachment
from agent.ports import Host
from agent.saga.plan import Commit, Learnt, Parked, Scene, Step
from agent.steps.guest_checks import find_guest
from agent.steps.users import Halves, halves, refuse_conflicts

ASK_AGAIN_SECONDS = (5.0, 10.0, 20.0, 40.0)
"""Back-off between unplug requests to a guest that does not let go; then the host's setting."""


@dataclass(frozen=True)
class PlugDisk(Commit):
    """Into the running guest, or into the definition of one that is shut off."""

    name: ClassVar[str] = "plug-disk"
    attachment: Attachment

    def apply(self, scene: Scene) -> Learnt:
        attachment, host = self.attachment, scene.host
        device = scene.device
        assert device is not None, "connect-volume comes first"
        guest = find_guest(host, attachment.instance_id)
        refuse_conflicts(host, attachment, device.path)
        _complete_half(scene, attachment, guest, live=guest.look.active)
        return {"disk": _found(host, attachment, device.path)}

    def happened(self, scene: Scene) -> bool:
        look = scene.host.domains.look(self.attachment.instance_id)
        if look is None:
            return False
        guest = halves(look)
        half = guest.live if look.active else guest.inactive
        return half is not None and half.disk_by_alias(self.attachment.alias) is not None


@dataclass(frozen=True)
class PlugOtherHalf(Step):
    """The half that the commit did not reach; also one that an earlier crash left out."""

    name: ClassVar[str] = "plug-other-half"
    attachment: Attachment

    def apply(self, scene: Scene) -> Learnt:
        attachment, host, device = self.attachment, scene.host, scene.device
        assert device is not None, "connect-volume came first"
        look = host.domains.look(attachment.instance_id)
        if look is None:
            return {"warnings": [*scene.known.get("warnings", ()), "the domain has gone since"]}
        guest = halves(look)
        if guest.live is not None:
            _complete_half(scene, attachment, guest, live=True)
        if guest.inactive is not None:
            _complete_half(scene, attachment, guest, live=False)
        return {"disk": _found(host, attachment, device.path)}


@dataclass(frozen=True)
class UnplugDisk(Commit):
    """Ask the guest to let go, and wait parked until it has; of a shut-off one: undefine it."""

    name: ClassVar[str] = "unplug-disk"
    instance_id: str
    alias: str
    attachment: Attachment | None

    def apply(self, scene: Scene) -> Learnt | Parked:
        look = scene.host.domains.look(self.instance_id)
        if look is None:
            return {"instance_present": False}
        if look.active:
            waiting = _let_go(scene, halves(look), self.alias, self.attachment)
            return waiting or {"instance_present": True}
        _forget(scene.host, halves(look), self.alias, self.attachment)
        return {"instance_present": True}

    def happened(self, scene: Scene) -> bool:
        look = scene.host.domains.look(self.instance_id)
        if look is None:
            return True
        guest = halves(look)
        half = guest.live if look.active else guest.inactive
        return half is None or half.disk_by_alias(self.alias) is None

    def under_way(self, known: Learnt) -> bool:
        return "asked_at" in known


@dataclass(frozen=True)
class ForgetDisk(Step):
    """Out of the definition, now that the guest has let go."""

    name: ClassVar[str] = "forget-disk"
    instance_id: str
    alias: str
    attachment: Attachment | None

    def apply(self, scene: Scene) -> Learnt | Parked:
        look = scene.host.domains.look(self.instance_id)
        if look is None:
            return {"instance_present": False}
        guest = halves(look)
        _forget(scene.host, guest, self.alias, self.attachment)
        # Started from the old definition meanwhile, the guest has the disk once more.
        return _let_go(scene, guest, self.alias, self.attachment) or {}


@dataclass(frozen=True)
class NoteInDomain(Step):
    """alias → attachment, volume, generation in the domain's metadata; for audits and imports."""

    name: ClassVar[str] = "note-in-domain"
    optional: ClassVar[bool] = True
    instance_id: str
    alias: str
    note: Note | None

    def apply(self, scene: Scene) -> Learnt:
        look = scene.host.domains.look(self.instance_id)
        if look is None:
            return {}
        guest = halves(look)
        both = [half for half in (guest.inactive, guest.live) if half is not None]
        notes: dict[str, Note] = {}
        for half in both:
            notes.update(half.notes)
        notes.pop(self.alias, None)
        if self.note is not None:
            notes[self.alias] = self.note
        if any(half.notes != notes for half in both):
            scene.host.domains.note(self.instance_id, metadata_xml(notes))
        return {}


def _complete_half(scene: Scene, attachment: Attachment, guest: Halves, *, live: bool) -> None:
    """Put the disk where it is missing, in the place that the other half gave it."""
    device = scene.device
    half = guest.live if live else guest.inactive
    assert device is not None
    assert half is not None
    if half.disk_by_alias(attachment.alias) is not None:
        return
    domains = scene.host.domains
    put = domains.plug if live else domains.define
    place = _place(attachment, guest)
    if place.controller_xml and int(place.address["controller"]) not in half.scsi_controllers:
        put(attachment.instance_id, place.controller_xml)
    put(attachment.instance_id, disk_xml(attachment, device, place))


def _place(attachment: Attachment, guest: Halves) -> Place:
    disk = guest.disk(attachment.alias)
    if disk is None or disk.address is None:
        return choose_place(attachment.disk, guest.live, guest.inactive)
    return keep_place(disk.target_dev, disk.address, guest.live, guest.inactive)


def _found(host: Host, attachment: Attachment, source: str) -> Mapping[str, Any]:
    """The disk as libvirt shows it now, verified: what a caller may believe."""
    look = host.domains.look(attachment.instance_id)
    if look is None:
        raise UnknownInstance(f"domain {attachment.instance_id} went away while it was plugged")
    guest = halves(look)
    disk = guest.disk(attachment.alias)
    if disk is None:
        raise WrongDevice("libvirt took the disk and does not show it; it is looked at again")
    wrong = differences(disk, attachment, host.connectors.names, source)
    if wrong:
        raise WrongDevice(f"the disk in the guest is not as asked: {'; '.join(wrong)}")
    return {
        "target_dev": disk.target_dev,
        "alias": attachment.alias,
        "serial": disk.serial,
        "address": disk.address,
        "live": _has(guest.live, attachment.alias),
        "persistent": _has(guest.inactive, attachment.alias),
    }


def _has(half: DomainFacts | None, alias: str) -> bool:
    return half is not None and half.disk_by_alias(alias) is not None


def _let_go(
    scene: Scene, guest: Halves, alias: str, attachment: Attachment | None
) -> Parked | None:
    """Ask the running guest for its disk; None once it has none.

    The event or the next look tells: nobody waits here. A wake-up that finds the disk still there
    asks again only when the time has come, or a guest that refuses would be asked for ever.
    """
    disk = guest.live and guest.live.disk_by_alias(alias)
    if not disk:
        return None
    host, now = scene.host, scene.host.clock.now()
    _refuse_another(disk, attachment)
    asks = int(scene.known.get("asks", 0))
    asked_at = scene.known.get("asked_at")
    delay = ASK_AGAIN_SECONDS[min(asks, len(ASK_AGAIN_SECONDS)) - 1] if asks else 0.0
    if asks > len(ASK_AGAIN_SECONDS):
        delay = host.unplug_retry_seconds
    if asked_at is None or now >= asked_at + delay:
        host.domains.unplug(guest.look.instance_id, alias)
        look = host.domains.look(guest.look.instance_id)
        if look is None or not _has(halves(look).live, alias):
            return None
        asks, asked_at = asks + 1, now
        delay = ASK_AGAIN_SECONDS[min(asks, len(ASK_AGAIN_SECONDS)) - 1]
    return Parked(
        waiting_for=f"the guest to release {disk.target_dev}",
        wake_at=asked_at + delay,
        learnt={"asks": asks, "asked_at": asked_at},
    )


def _forget(host: Host, guest: Halves, alias: str, attachment: Attachment | None) -> None:
    disk = guest.inactive and guest.inactive.disk_by_alias(alias)
    if disk:
        _refuse_another(disk, attachment)
        host.domains.forget(guest.look.instance_id, alias)


def _refuse_another(disk: DiskFacts, attachment: Attachment | None) -> None:
    """Alias and serial are what plugging stored: a disk with another serial is not ours."""
    if (
        attachment is not None
        and attachment.serial is not None
        and disk.serial is not None
        and (disk.serial != attachment.serial)
    ):
        raise WrongDevice(
            f"the disk {disk.target_dev} with alias {disk.alias} has serial {disk.serial}, "
            f"expected {attachment.serial}; it was not touched"
        )
