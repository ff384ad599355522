"""A disk comes into a guest and leaves it: two halves, the running guest and its definition."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from agent.errors import Unavailable, UnknownInstance, WrongDevice
from agent.guest.disk_xml import differences, disk_xml
from agent.guest.domain_xml import DiskFacts, Note, metadata_xml
from agent.guest.halves import Halves, halves
from agent.guest.placement import Place, choose_place, keep_place
from agent.model.attachment import Attachment
from agent.ports import DomainXml, Host
from agent.saga.plan import Commit, Learnt, Parked, Scene, Step
from agent.steps.guest_checks import (
    find_guest_among,
    halves_at_rest,
    refuse_another,
    refuse_other_disk,
    refuse_taken_boot_order,
    why_no_boot_order,
)
from agent.steps.secret import are_secrets_lost, make_secrets
from agent.steps.users import Everyone, is_at, refuse_conflicts

ASK_AGAIN_SECONDS = (5.0, 10.0, 20.0, 40.0)
"""Back-off between unplug requests to a guest that does not let go; then the host's setting."""

JOB_SECONDS = 10.0
"""Between two looks whether a job of the domain has ended; events tell of most ends at once."""

Where = Literal["running guest", "definition"]


@dataclass(frozen=True)
class PlugDisk(Commit):
    """Into the running guest, or into the definition of one that is shut off."""

    name: ClassVar[str] = "plug-disk"
    attachment: Attachment

    @property
    def about(self) -> str:
        return self.attachment.attachment_id

    def apply(self, scene: Scene) -> Learnt:
        attachment, host = self.attachment, scene.host
        device = scene.device
        assert device is not None, "connect-volume comes first"
        everyone = Everyone.on(host)
        guest = find_guest_among(everyone, host, attachment.instance_id)
        # What check-guest looked at may be long ago: storage and libvirt take their time.
        refuse_taken_boot_order(guest, attachment)
        refuse_other_disk(host, guest, attachment, device.path)
        refuse_conflicts(everyone, attachment, device.path)
        _complete_half(scene, attachment, guest, live=guest.look.active)
        half: Where = "running guest" if guest.look.active else "definition"
        return {"disk": _found(scene, attachment, half)}

    def happened(self, scene: Scene) -> bool:
        look = scene.host.domains.look(self.attachment.instance_id)
        if look is None:
            return False
        disk = halves_at_rest(look).first_disk(self.attachment.alias)
        return disk is not None and not _differences(scene, self.attachment, disk)

    def revert(self, scene: Scene) -> Parked | None:
        """Out of both halves, unless the attachment was in place before this operation.

        Forgetting comes first: libvirt does it in its turn, so after it a plug whose answer was
        lost is either to be seen or will never come."""
        attachment, host = self.attachment, scene.host
        if _was_in_place(scene, attachment):
            return None
        look = host.domains.read(attachment.instance_id)
        if look is None:
            return None
        defined = halves(look).defined_disk(attachment.alias)
        if defined is None or _is_same_device(scene, defined):
            host.domains.forget(attachment.instance_id, attachment.alias)
        return _let_go_if_running(scene, attachment)


@dataclass(frozen=True)
class PlugOtherHalf(Step):
    """The half that the commit did not reach; also one that an earlier crash left out.

    The guest has the disk, so what it or its definition cannot have of it is a warning."""

    name: ClassVar[str] = "plug-other-half"
    attachment: Attachment

    @property
    def about(self) -> str:
        return self.attachment.attachment_id

    def apply(self, scene: Scene) -> Learnt:
        attachment = self.attachment
        warnings: list[str] = []
        look = scene.host.domains.read(attachment.instance_id)
        if look is None:
            return {"warnings": ["the domain has gone since"]}
        guest = halves(look)
        is_locked_out = _is_locked_out(scene.host, attachment, guest)
        if is_locked_out:
            warnings.append(
                "the running guest does not have the disk: it was restarted meanwhile, and the "
                "passphrase, which came by value, is lost; attach again with the same attachment"
            )
        for half, live in ((guest.live, True), (guest.inactive, False)):
            if half is None or (live and is_locked_out):
                continue
            possible, reason = attachment, why_no_boot_order(half, attachment)
            if reason is not None:
                possible = attachment.without_boot_order
                where = "running guest" if live else "definition"
                warnings.append(f"the {where} has the disk without a boot order: {reason}")
            _complete_half(scene, possible, guest, live=live)
        plugged: tuple[Where, ...] = ("definition",) if is_locked_out else ()
        disk = _found(scene, attachment, *plugged)
        warnings += _limits_that_are_not(scene, attachment, disk)
        return {"disk": disk, "warnings": warnings}


@dataclass(frozen=True)
class UnplugDisk(Commit):
    """Ask the guest to let go, and wait parked until it has; of a shut-off one: take it from its
    definition."""

    name: ClassVar[str] = "unplug-disk"
    irrevocable: ClassVar[bool] = True
    attachment_id: str
    instance_id: str
    alias: str
    attachment: Attachment | None

    @property
    def about(self) -> str:
        return self.attachment_id

    def apply(self, scene: Scene) -> Learnt | Parked:
        look = scene.host.domains.read(self.instance_id)
        if look is None:
            return {"instance_present": False}
        guest = halves(look)
        alias = guest.alias_of(self.attachment_id, self.alias)
        if not look.active:
            _forget(scene.host, guest, alias, self.attachment)
        return _let_go(scene, guest, alias, self.attachment) or {"instance_present": True}


@dataclass(frozen=True)
class ForgetDisk(Step):
    """Out of the definition, now that the guest has let go."""

    name: ClassVar[str] = "forget-disk"
    attachment_id: str
    instance_id: str
    alias: str
    attachment: Attachment | None

    @property
    def about(self) -> str:
        return self.attachment_id

    def apply(self, scene: Scene) -> Learnt | Parked:
        domains = scene.host.domains
        look = domains.read(self.instance_id)
        if look is not None:
            alias = halves(look).alias_of(self.attachment_id, self.alias)
            _forget(scene.host, halves(look), alias, self.attachment)
            # Started from the old definition meanwhile, the guest has the disk once more.
            look = domains.read(self.instance_id)
        if look is None:
            return {"instance_present": False}
        guest = halves(look)
        alias = guest.alias_of(self.attachment_id, self.alias)
        return _let_go(scene, guest, alias, self.attachment) or {}


@dataclass(frozen=True)
class NoteInDomain(Step):
    """alias → attachment, volume, generation in the domain's metadata; for audits and imports."""

    name: ClassVar[str] = "note-in-domain"
    optional: ClassVar[bool] = True
    attachment_id: str
    instance_id: str
    alias: str
    note: Note | None

    @property
    def about(self) -> str:
        return self.attachment_id

    def apply(self, scene: Scene) -> Learnt:
        look = scene.host.domains.read(self.instance_id)
        if look is None:
            return {}
        guest = halves(look)
        both = [half for half in (guest.inactive, guest.live) if half is not None]
        notes: dict[str, Note] = {}
        for half in both:
            notes.update(half.notes)
        notes.pop(guest.alias_of(self.attachment_id, self.alias), None)
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
    domains = scene.host.domains
    disk = half.disk_by_alias(attachment.alias)
    if disk is not None and (live or not _differences(scene, attachment, disk)):
        return
    if disk is not None:
        # What an earlier crash left names a device that the volume was once.
        domains.forget(attachment.instance_id, attachment.alias)
    if live:
        make_secrets(scene.host, attachment)
    put = domains.plug if live else domains.define
    place = _place(attachment, guest)
    if place.controller_xml and int(place.address["controller"]) not in half.scsi_controllers:
        put(attachment.instance_id, place.controller_xml)
    put(attachment.instance_id, disk_xml(attachment, device, place))


def _is_locked_out(host: Host, attachment: Attachment, guest: Halves) -> bool:
    """The running guest has not the disk, and can no longer be given it; the definition can."""
    has_room = guest.live is not None and guest.inactive is not None
    is_missing = guest.live_disk(attachment.alias) is None
    return has_room and is_missing and are_secrets_lost(host, attachment)


def _limits_that_are_not(
    scene: Scene, attachment: Attachment, disk: Mapping[str, Any]
) -> Iterator[str]:
    """libvirt plugs a disk whose limits QEMU refuses, and shows them as if they were in force."""
    wanted = attachment.disk.iotune
    if wanted is None or not wanted.rates() or not disk["live"]:
        return
    wrong = wanted.not_in(scene.host.domains.limits(attachment.instance_id, disk["target_dev"]))
    if wrong:
        yield f"iotune is not in force: {', '.join(wrong)}; use set_iotune, or detach the disk"


def _place(attachment: Attachment, guest: Halves) -> Place:
    disk = guest.disk(attachment.alias)
    if disk is None or disk.address is None:
        return choose_place(attachment.disk, guest.live, guest.inactive)
    return keep_place(disk.target_dev, disk.address, guest.live, guest.inactive)


def _found(scene: Scene, attachment: Attachment, *where: Where) -> Mapping[str, Any]:
    """The disk as libvirt shows it now, verified in these halves, or in every half there is."""
    look = scene.host.domains.read(attachment.instance_id)
    if look is None:
        raise UnknownInstance(f"domain {attachment.instance_id} went away while it was plugged")
    guest, alias = halves(look), attachment.alias
    live, defined = guest.live_disk(alias), guest.defined_disk(alias)
    for name, half, disk in (
        ("running guest", guest.live, live),
        ("definition", guest.inactive, defined),
    ):
        if name in where and half is None:
            raise Unavailable("libvirt", f"domain {look.name} has just stopped or started")
        if name in where or (not where and half is not None):
            _verify(scene, attachment, disk, name)
    shown = guest.shown(alias)
    assert shown is not None, "a domain runs or is defined"
    return {**shown, "alias": alias}


def _verify(scene: Scene, attachment: Attachment, disk: DiskFacts | None, where: str) -> None:
    if disk is None:
        raise WrongDevice(f"libvirt took the disk, and the {where} does not show it")
    wrong = _differences(scene, attachment, disk)
    if wrong:
        raise WrongDevice(f"the disk in the {where} is not as asked: {'; '.join(wrong)}")


def _differences(scene: Scene, attachment: Attachment, disk: DiskFacts) -> list[str]:
    assert scene.device is not None
    return differences(disk, attachment, scene.host.connectors.names, scene.device.path)


def _is_same_device(scene: Scene, disk: DiskFacts) -> bool:
    assert scene.device is not None
    return is_at(scene.host, disk.source, scene.device)


def _was_in_place(scene: Scene, attachment: Attachment) -> bool:
    return any(
        promise.operation_id is None and promise.attachment_id == attachment.attachment_id
        for promise in scene.host.journal.promises(besides=scene.operation_id)
    )


def _let_go_if_running(scene: Scene, attachment: Attachment) -> Parked | None:
    """A disk with the alias that is another device is not what this operation plugged."""
    look = scene.host.domains.read(attachment.instance_id)
    if look is None:
        return None
    guest = halves(look)
    disk = guest.live_disk(attachment.alias)
    if disk is None or not _is_same_device(scene, disk):
        return None
    return _let_go(scene, guest, attachment.alias, attachment)


def _let_go(
    scene: Scene, guest: Halves, alias: str, attachment: Attachment | None
) -> Parked | None:
    """Ask the running guest for its disk; None once it has none.

    The event or the next look tells: nobody waits here. A wake-up that finds the disk still there
    asks again only when the time has come, or a guest that refuses would be asked for ever.
    """
    disk = guest.live_disk(alias)
    if disk is None:
        return None
    host, look, now = scene.host, guest.look, scene.host.clock.now()
    job = host.domains.job(look.instance_id)
    if job is not None:
        return until_job_ends(host, look, job)
    refuse_another(host, disk, attachment)
    asks, asked_at = scene.known.get("asks", 0), scene.since("asked_at", now)
    if now >= asked_at + _pause_seconds(host, asks):
        host.domains.unplug(look.instance_id, alias)
        after = host.domains.read(look.instance_id)
        if after is None or halves(after).live_disk(alias) is None:
            return None
        asks, asked_at = asks + 1, now
    return Parked(
        waiting_for=f"the guest to release {disk.target_dev}",
        wake_at=asked_at + _pause_seconds(host, asks),
        learnt={"asks": asks, "asked_at": asked_at},
    )


def until_job_ends(host: Host, domain: DomainXml, job: str) -> Parked:
    later = host.clock.now() + JOB_SECONDS
    return Parked(f"the end of the {job} of domain {domain.name}", later)


def _pause_seconds(host: Host, asks: int) -> float:
    """Between the last of so many requests and the next."""
    pauses = (0.0, *ASK_AGAIN_SECONDS, host.unplug_retry_seconds)
    return pauses[min(asks, len(pauses) - 1)]


def _forget(host: Host, guest: Halves, alias: str, attachment: Attachment | None) -> None:
    disk = guest.defined_disk(alias)
    if disk is not None:
        refuse_another(host, disk, attachment)
        host.domains.forget(guest.look.instance_id, alias)
