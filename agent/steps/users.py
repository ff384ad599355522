"""Who uses a volume on this host: libvirt's disks, and the journal's promises.

Asked under the volume's lock whenever the answer decides whether a device goes away. When in
doubt a disk counts as a user: a leak can be found and removed, a pulled disk cannot be given back.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache

from agent.errors import SharingConflict
from agent.guest.domain_xml import DiskFacts, DomainFacts
from agent.guest.halves import Halves, halves
from agent.model.attachment import Attachment
from agent.model.device import Device
from agent.model.guest_iscsi import is_guests_own
from agent.ports import Domains, DomainXml, Host, Promises
from agent.saga.plan import Scene

ONE_NEXUS = (
    "makes reservations of the volume by the kernel of this host already: to the target both "
    "guests would be one initiator, so that neither could keep the other out; attach it to a guest "
    "on another host"
)
"""Why a second guest may not reserve."""

TWO_WAYS = {
    "host": (
        "reaches the volume by an initiator of its own, and this attachment would by the host's: "
        "all guests of a volume on one host say the same (initiator)"
    ),
    "instance": (
        "reaches the volume by this host's initiator, and this attachment would by one of its own: "
        "all guests of a volume on one host say the same (initiator)"
    ),
}
"""Why the two cannot be told apart when one of them leaves, by what is asked."""


def is_at(host: Host, source: str | None, device: Device | None) -> bool:
    """Does the source of a disk mean the device?  Asks for every name that the host has of both."""
    if not source or device is None:
        return False
    names = host.connectors.names
    return bool(names(source) & names(device.path))


@dataclass(frozen=True)
class Use:
    """One disk of one domain, live or defined, that means the volume."""

    domain: DomainXml
    disk: DiskFacts

    @property
    def is_guests_own(self) -> bool:
        """QEMU's own initiator has it, and not this host's."""
        return is_guests_own(self.disk.source)

    def __str__(self) -> str:
        return f"domain {self.domain.name} ({self.domain.instance_id}) as {self.disk.target_dev}"


@dataclass(frozen=True)
class Everyone:
    """Every domain of this host at one moment. ``names``: as Connectors.names, each asked once
    since then."""

    guests: tuple[Halves, ...]
    names: Callable[[str], frozenset[str]]

    @classmethod
    def on(cls, host: Host) -> "Everyone":
        return cls(tuple(map(halves, host.domains.all())), cache(host.connectors.names))

    def guest(self, instance_id: str) -> Halves | None:
        found = (guest for guest in self.guests if guest.look.instance_id == instance_id)
        return next(found, None)

    def uses_of(self, volume_id: str, source: str | None) -> Iterator[Use]:
        """Every disk that is the volume: by its note, its serial or its source."""
        wanted = frozenset[str]() if source is None else self.names(source)
        for guest in self.guests:
            for facts in (guest.live, guest.inactive):
                for disk in facts.disks if facts else ():
                    said = _says_volume(volume_id, facts, disk)
                    if said or (wanted and disk.source and wanted & self.names(disk.source)):
                        yield Use(guest.look, disk)


def uses_of(host: Host, volume_id: str, source: str | None) -> Iterator[Use]:
    """As Everyone.uses_of, looked at now."""
    return Everyone.on(host).uses_of(volume_id, source)


def _says_volume(volume_id: str, facts: DomainFacts | None, disk: DiskFacts) -> bool:
    assert facts is not None
    note = facts.notes.get(disk.mark)
    return disk.serial == volume_id if note is None else note.volume_id == volume_id


def source_of(scene: Scene, attachment: Attachment, device: Device | None) -> str | None:
    """Where the volume is on this host: its device's word, else the guest's, else the request's."""
    if device is not None:
        return device.path
    return scene.known.get("source") or attachment.connection.known_source


def users(
    host: Host, volume_id: str, source: str | None, besides: str, *, instance_id: str | None = None
) -> list[str]:
    """Who needs the volume here, in words; ``besides`` is the operation that asks.

    With ``instance_id`` only what that instance needs of it."""
    promised = [
        f"attachment {promise.attachment_id} of instance {promise.instance_id}"
        for promise in host.journal.promises(besides)
        if promise.volume_id == volume_id and instance_id in (None, promise.instance_id)
    ]
    return promised + [
        str(use)
        for use in uses_of(host, volume_id, source)
        if instance_id in (None, use.domain.instance_id)
    ]


def own_use(host: Host, attachment: Attachment) -> Use | None:
    """The disk of the attachment's own instance that is the volume, whoever plugged it."""
    device = host.journal.device_of(attachment.attachment_id)
    source = attachment.connection.known_source if device is None else device.path
    for use in uses_of(host, attachment.volume_id, source):
        if use.domain.instance_id == attachment.instance_id:
            return use
    return None


def refuse_conflicts(everyone: Everyone, attachment: Attachment, source: str | None) -> None:
    """Raises SharingConflict naming the domain that excludes this attachment."""
    uses = tuple(everyone.uses_of(attachment.volume_id, source))
    for use in uses:
        same_instance = use.domain.instance_id == attachment.instance_id
        if same_instance and use.disk.mark == attachment.alias:
            continue
        if same_instance:
            raise SharingConflict(
                f"the instance has volume {attachment.volume_id} already, as "
                f"{use.disk.target_dev}: detach that disk first"
            )
        if not attachment.multiattach:
            raise SharingConflict(
                f"volume {attachment.volume_id} is in use by {use}, and this attachment is "
                "exclusive (multiattach false): detach it there first"
            )
        if (use.disk.luks_secret is None) != (attachment.encryption is None):
            raise SharingConflict(
                f"{use} has volume {attachment.volume_id} "
                f"{'decrypted' if use.disk.luks_secret else 'as it is, without encryption'}, and "
                "this attachment wants it otherwise: one of the two would see ciphertext, and "
                "write over it"
            )
        if use.is_guests_own != (attachment.initiator == "instance"):
            raise SharingConflict(f"{use} {TWO_WAYS[attachment.initiator]}")
        if use.disk.reserves and attachment.reserves:
            raise SharingConflict(f"{use} {ONE_NEXUS}")
        if not use.disk.shareable:
            raise SharingConflict(
                f"volume {attachment.volume_id} is in exclusive use by {use}: its disk is not "
                "shareable: attach it there again with multiattach"
            )

    _refuse_too_many_writers(attachment, uses)


def _refuse_too_many_writers(attachment: Attachment, uses: Sequence[Use]) -> None:
    """Who else has given it a limit only the journal knows (admission/sharing)."""
    limit = attachment.max_writers
    writers = {use.domain.name for use in uses if not use.disk.read_only}
    writers -= {use.domain.name for use in uses if use.domain.instance_id == attachment.instance_id}
    count = len(writers) + (not attachment.read_only)
    if limit is not None and count > limit:
        raise SharingConflict(
            f"volume {attachment.volume_id} would have {count} writers on this host, of them "
            f"{', '.join(sorted(writers))}, and max_writers is {limit}: attach it with "
            "access_mode ro, or detach a writer first"
        )


def is_used_below(directory: str, domains: Domains, journal: Promises) -> bool:
    """Does a disk of any domain, live or defined, or a promise need a file below ``directory``?

    A promise whose device is not known yet counts: its volume may just have been found there.
    """
    prefix = directory.rstrip("/") + "/"
    if any(
        promise.device is None or promise.device.path.startswith(prefix)
        for promise in journal.promises(besides="")
    ):
        return True
    return any(
        disk.source is not None and disk.source.startswith(prefix)
        for look in domains.all()
        for facts in (halves(look).live, halves(look).inactive)
        for disk in (facts.disks if facts else ())
    )
