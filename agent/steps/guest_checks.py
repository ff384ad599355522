"""What the guest must allow, looked at before any storage is touched."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from agent.errors import (
    Busy,
    Invalid,
    SharingConflict,
    Unavailable,
    UnknownInstance,
    Unsupported,
    WrongDevice,
)
from agent.guest.disk_xml import differences
from agent.guest.domain_xml import DiskFacts, DomainFacts
from agent.guest.halves import Halves, halves
from agent.guest.placement import choose_places
from agent.model.attachment import Attachment
from agent.model.mark import is_user_alias
from agent.ports import (
    GUEST_INITIATOR,
    RESERVATIONS,
    SHARED_ENCRYPTION,
    Capabilities,
    DomainLook,
    DomainXml,
    Host,
    dotted,
)
from agent.saga.plan import Learnt, Scene, Step
from agent.steps.users import Everyone, is_at, refuse_conflicts

SHAREABLE_SINCE = (3, 10, 0)
"""Before it QEMU's image locking keeps a second guest out (libvirt sets share-rw since)."""


@dataclass(frozen=True)
class CheckGuest(Step):
    """Refuse what cannot succeed, of one instance's attachments, in the order in which they will
    be plugged. Changes nothing."""

    name: ClassVar[str] = "check-guest"
    only_looks: ClassVar[bool] = True
    attachments: tuple[Attachment, ...]

    @property
    def about(self) -> str | None:
        return self.attachments[0].attachment_id if len(self.attachments) == 1 else None

    def apply(self, scene: Scene) -> Learnt:
        host, everyone = scene.host, Everyone.on(scene.host)
        guest = find_guest_among(everyone, host, self.attachments[0].instance_id)
        for attachment in self.attachments:
            refuse_missing_abilities(host, attachment)
            refuse_missing_iothread(guest, attachment)
            refuse_taken_boot_order(guest, attachment)
            refuse_other_disk(host, guest, attachment, attachment.connection.known_source)
            refuse_conflicts(everyone, attachment, attachment.connection.known_source)
        missing = [one for one in self.attachments if guest.disk(one.alias) is None]
        choose_places([one.disk for one in missing], guest.live, guest.inactive)
        return {"warnings": forced_caches(self.attachments)}


@dataclass(frozen=True)
class CheckDisk(Step):
    """Refuse what must not be unplugged, before the guest is asked. Changes nothing."""

    name: ClassVar[str] = "check-disk"
    only_looks: ClassVar[bool] = True
    attachment_id: str
    instance_id: str
    alias: str
    attachment: Attachment | None

    @property
    def about(self) -> str:
        return self.attachment_id

    def apply(self, scene: Scene) -> Learnt:
        look = scene.host.domains.look(self.instance_id)
        if look is None:
            return {}
        refuse_job(look)
        guest = halves(look)
        alias = guest.alias_of(self.attachment_id, self.alias)
        for disk in (guest.live_disk(alias), guest.defined_disk(alias)):
            if disk is not None:
                refuse_another(scene.host, disk, self.attachment)
        disk = guest.disk(alias)
        return {} if disk is None else {"source": disk.source}


def forced_caches(attachments: Sequence[Attachment]) -> list[str]:
    """As warnings, naming the attachment where there are several."""
    why = "cache: forced to none, because the volume is shared"
    if len(attachments) == 1:
        return [why] if attachments[0].forced_cache else []
    return [f"attachment {one.attachment_id}: {why}" for one in attachments if one.forced_cache]


def find_guest(host: Host, instance_id: str) -> Halves:
    return halves(find_domain(host, instance_id))


def find_domain(host: Host, instance_id: str) -> DomainLook:
    """Raises UnknownInstance, and Busy while it has a job."""
    look = look_at(host, instance_id)
    refuse_job(look)
    return look


def look_at(host: Host, instance_id: str) -> DomainLook:
    """Whatever it is doing. Raises UnknownInstance."""
    look = host.domains.look(instance_id)
    if look is None:
        raise _unknown(host, instance_id)
    return look


def find_guest_among(everyone: Everyone, host: Host, instance_id: str) -> Halves:
    """As find_guest, of one who was seen with everyone else."""
    guest = everyone.guest(instance_id)
    if guest is None:
        raise _unknown(host, instance_id)
    _refuse_job(guest.look, host.domains.job(instance_id))
    return guest


def _unknown(host: Host, instance_id: str) -> UnknownInstance:
    return UnknownInstance(f"libvirt on {host.name} has no domain {instance_id}")


def refuse_job(look: DomainLook) -> None:
    _refuse_job(look, look.job)


def _refuse_job(domain: DomainXml, job: str | None) -> None:
    if job is not None:
        raise Busy(f"domain {domain.name} has a {job} running; try again when it has ended")


def halves_at_rest(look: DomainLook) -> Halves:
    """For who asks what a change came to.  Raises Unavailable while a job may still change it."""
    if look.job is not None:
        raise Unavailable("libvirt", f"domain {look.name} has a {look.job} running")
    return halves(look)


def refuse_missing_abilities(host: Host, attachment: Attachment) -> None:
    """What libvirt and QEMU of this host cannot do for it, whatever the guest."""
    able = host.domains.capabilities()
    if attachment.multiattach and able.libvirt < SHAREABLE_SINCE:
        raise Unsupported(
            f"multiattach needs libvirt {dotted(SHAREABLE_SINCE)} or newer, this host has "
            f"{dotted(able.libvirt)}"
        )
    if attachment.multiattach and attachment.encryption and SHARED_ENCRYPTION in able.missing:
        raise Unsupported(
            "multiattach with encryption: libvirt on this host lets no disk be shared that it "
            "decrypts (9.0 does, 11.3 does not); send multiattach false; nothing was touched"
        )
    if attachment.reserves and RESERVATIONS in able.missing:
        raise Unsupported(
            "disk.reservations managed needs libvirt 4.4.0 or newer, and qemu-pr-helper, which "
            "libvirt starts for the guest (Debian: qemu-system-common); nothing was touched"
        )
    if attachment.initiator == "instance":
        refuse_no_initiator(able)


def refuse_no_initiator(able: Capabilities) -> None:
    if GUEST_INITIATOR in able.missing:
        raise Unsupported(
            "initiator instance needs libvirt 4.7.0 or newer, and QEMU's iSCSI driver, of which "
            "qemu-img tells (Debian: qemu-block-extra, qemu-utils); nothing was touched"
        )


def refuse_missing_iothread(guest: Halves, attachment: Attachment) -> None:
    wanted = attachment.disk.iothread
    for half in (guest.live, guest.inactive):
        if wanted is not None and half is not None and wanted not in half.iothread_ids:
            known = ", ".join(str(number) for number in sorted(half.iothread_ids)) or "none"
            raise Invalid(f"disk.iothread {wanted}: the domain has iothreads {known}")


def refuse_taken_boot_order(guest: Halves, attachment: Attachment) -> None:
    """libvirt would say so only when the disk is plugged, or never take its other half."""
    for half in (guest.live, guest.inactive):
        reason = None if half is None else why_no_boot_order(half, attachment)
        if reason is not None:
            raise Invalid(reason)


def why_no_boot_order(half: DomainFacts, attachment: Attachment) -> str | None:
    """Why this half cannot give the disk its boot order, in words; None: it can, or need not."""
    order = attachment.disk.boot_order
    if order is None:
        return None
    others = half.boot_orders.get(order, frozenset()) - {attachment.alias}
    if others:
        return f"disk.boot_order {order} is {', '.join(sorted(others))}'s already: choose another"
    if half.boots_by_kind:
        return (
            "disk.boot_order: the domain boots by <os><boot dev=…/>, which libvirt does not "
            "mix with orders: give its devices <boot order=…/> instead, or leave it out"
        )
    return None


def refuse_other_disk(
    host: Host, guest: Halves, attachment: Attachment, source: str | None
) -> None:
    """The alias may be there already (an earlier half): then it must be what is asked.

    Only the running guest's source counts: a definition that names an old one is replaced."""
    alias = attachment.alias
    for disk, known in ((guest.live_disk(alias), source), (guest.defined_disk(alias), None)):
        wrong = differences(disk, attachment, host.connectors.names, known) if disk else []
        if wrong:
            raise SharingConflict(
                f"the guest has attachment {attachment.attachment_id} already, otherwise than "
                f"asked: {'; '.join(wrong)}; detach it first"
            )


def refuse_another(host: Host, disk: DiskFacts, attachment: Attachment | None) -> None:
    """The disk that was found must be the attachment's before anything is done to it.

    By target and serial alone (model.mark) nothing is proven: the device must be the same."""
    refuse_other_serial(disk, attachment)
    if attachment is None or is_user_alias(attachment.alias):
        return
    device = host.journal.device_of(attachment.attachment_id)
    if not is_at(host, disk.source, device):
        raise WrongDevice(
            f"the disk {disk.target_dev} ({disk.source}) has no alias, and is not the device "
            f"{device.path if device else 'that the attachment had'}; it is not touched: see who "
            "has plugged it"
        )


def refuse_other_serial(disk: DiskFacts, attachment: Attachment | None) -> None:
    """Alias and serial are what plugging stored: a disk with another serial is not ours.

    One that is found by the domain's note alone was plugged for another attachment: of its serial
    nothing is known."""
    is_known = attachment is not None and disk.mark == attachment.alias
    wanted = attachment.serial if attachment is not None and is_known else None
    if wanted is not None and disk.serial is not None and disk.serial != wanted:
        raise WrongDevice(
            f"the disk {disk.target_dev} with alias {disk.alias} has serial {disk.serial}, "
            f"expected {wanted}; it is not touched: see who has plugged it"
        )
