"""What the core needs of the machine. Adapters implement these (agent/host; of what is not the
machine bus, journal and service), and the simulation does (tests/world).

Every call may raise Unavailable: that means *unknown*, never *not done*. Calls are idempotent in
the sense of "the same end": plugging what is plugged, unplugging what is gone, disconnecting what
is not connected all succeed without an effect.
"""

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from agent.errors import AgentError
from agent.model.attachment import Attachment
from agent.model.connection import Connection, Lane
from agent.model.copy import CopyProgress, CopyWishes
from agent.model.device import Device, Disconnected
from agent.model.migration import Journey, MigrationProgress
from agent.model.secret import GuestSecret

DomainState = Literal["running", "paused", "shutoff"]

INCOMING_MIGRATION = "incoming migration"
"""The job of a domain that is on its way to this host, as DomainLook has it."""

HEADER_BYTES = 4096

LUKS2 = "luks2"
SHARED_ENCRYPTION = "shared-encryption"
COPY_TO_ENCRYPTED = "copy-to-encrypted"
RESERVATIONS = "reservations"
GUEST_INITIATOR = "guest-initiator"
SYNCHRONOUS_WRITES = "synchronous-writes"
STORAGE_SLICES = "storage-slices"
"""Abilities that steps ask for, as Capabilities.missing names them."""


@dataclass(frozen=True, kw_only=True)
class DomainXml:
    """libvirt's domain at one moment. ``live_xml`` is None unless it runs (or is paused);
    ``inactive_xml`` is None for a transient domain."""

    instance_id: str
    name: str
    live_xml: str | None
    inactive_xml: str | None

    @property
    def active(self) -> bool:
        return self.live_xml is not None


@dataclass(frozen=True, kw_only=True)
class DomainLook(DomainXml):
    """``job`` names a migration or other job. ``is_held``: it is paused because somebody wanted it
    so, and for no other reason. ``is_back``: it runs, and stood when a migration was called off:
    so late that it may have been started over there."""

    state: DomainState
    job: str | None = None
    is_held: bool = False
    is_back: bool = False


@dataclass(frozen=True)
class Capabilities:
    """Versions as (major, minor, micro); ``missing`` names what this libvirt or QEMU lacks."""

    libvirt: tuple[int, int, int]
    qemu: tuple[int, int, int]
    missing: tuple[str, ...] = ()


def dotted(version: tuple[int, ...]) -> str:
    return ".".join(map(str, version))


class Domains(Protocol):
    def answering(self) -> bool:
        """False: libvirt is known to be away, every call would raise Unavailable.

        Asks nothing, and never waits. Where it is true a call may raise all the same."""

    def look(self, instance_id: str) -> DomainLook | None:
        """None: libvirt on this host has no such domain."""

    def read(self, instance_id: str) -> DomainXml | None:
        """As look, for who needs the disks alone."""

    def job(self, instance_id: str) -> str | None:
        """As look shows it. None also where there is no such domain, or it does not run."""

    def all(self) -> Sequence[DomainLook]:
        """Every domain, running or only defined, none seen before the call; but for one whose QEMU
        does not answer, of which the look before is told (host/libvirt_looks). ``job`` is not asked
        for: it would wait for a domain that is occupied. Nor ``is_held``, ``is_back``."""

    def plug(self, instance_id: str, device_xml: str) -> None:
        """Put a device (disk, controller) into the running guest.

        Raises PlugRefused, NoFreeAddress, UnknownInstance; AuthFailed, ConnectFailed of what QEMU
        reaches by itself."""

    def define(self, instance_id: str, device_xml: str) -> None:
        """Put a device into the domain's configuration.  Raises as plug."""

    def unplug(self, instance_id: str, alias: str) -> None:
        """Ask the running guest to let go of the disk; returns at once, an event follows.

        ``alias``: or what a disk without one is found by (model.mark); so in forget."""

    def forget(self, instance_id: str, alias: str) -> None:
        """Take the disk out of the domain's configuration."""

    def limits(self, instance_id: str, target_dev: str) -> Mapping[str, int | str]:
        """QEMU's word on the iotune of a disk of the running guest, by libvirt's names.

        What is not limited is 0 or not named. Unavailable where it does not run."""

    def defined_limits(self, instance_id: str, target_dev: str) -> Mapping[str, int | str]:
        """As limits, of the domain's configuration. Unavailable for a transient domain."""

    def limit(self, instance_id: str, target_dev: str, limits: Mapping[str, int | str]) -> None:
        """Change what holds back a disk of the running guest, in one go; what is not named stays.

        Raises PlugRefused."""

    def define_limits(
        self, instance_id: str, target_dev: str, limits: Mapping[str, int | str]
    ) -> None:
        """As limit, in the domain's configuration."""

    def size(self, instance_id: str, target_dev: str) -> int:
        """QEMU's word on how many bytes the running guest has of a disk: of an encrypted one those
        behind its header. Unavailable where it does not run."""

    def resize(self, instance_id: str, target_dev: str, size_bytes: int) -> None:
        """Tell the running guest that the disk has so many bytes; a file is made as large.

        To be called with more than there are: libvirt truncates a file without a word. A block
        device has the size that it has, also where that is more than was asked.
        Raises PlugRefused, Busy, Unsupported."""

    def disk_errors(self, instance_id: str) -> Mapping[str, str | None]:
        """{target name: reason} of the disks for whose failure QEMU has paused the guest; no other
        failure is remembered there. The reason as IoError's."""

    def redefine(self, instance_id: str, disk_xml: str) -> None:
        """Change a disk of the domain's configuration, found by alias and target, to this one.

        In one go: at no instant is it without the disk. Raises as define; WrongDevice if it has no
        such disk."""

    def note(self, instance_id: str, metadata_xml: str) -> None:
        """Replace our element of the domain's metadata, live and in the configuration."""

    def capabilities(self) -> Capabilities: ...


class Secrets(Protocol):
    """libvirt's secrets: what QEMU is told and no XML holds.

    Those made here are ephemeral and private: gone with libvirtd, and nobody reads them back."""

    def has(self, uuid: str) -> bool:
        """Anybody's.  Raises Unsupported if this libvirt keeps no secrets."""

    def make(self, secret: GuestSecret, value: bytes) -> None:
        """Define it, where it is not yet, and give it its value.  Raises Unsupported."""

    def drop(self, uuid: str) -> None: ...

    def ours(self) -> frozenset[str]:
        """The uuids of those that were made here, by this life of the agent or an earlier one."""

    def key_in(self, path: str) -> bytes:
        """All bytes of a file that the operator lets requests name.

        Raises Unsupported (he lets none), Invalid."""


class Copies(Protocol):
    """Copies of a running guest's disk to another volume, made under the guest.

    QEMU carries one on whatever becomes of us and of libvirtd; another life of the agent finds it
    in the live XML (DiskFacts.copies_to), which also tells when it is ready. One that has failed
    and one that has pivoted are both gone: which of them it was the disk's source tells. Being
    ready, and each end, stir the instance."""

    def start(
        self, instance_id: str, target_dev: str, destination_xml: str, wishes: CopyWishes
    ) -> None:
        """Begin, and return; what is found out later ends the copy. One that goes there: nothing
        to do.

        Raises CopyFailed, Busy (another block job), Unsupported, UnknownInstance; Unavailable if
        the guest does not run. What QEMU says of secrets as in Domains.plug."""

    def progress(self, instance_id: str, target_dev: str) -> CopyProgress | None:
        """Of whatever block job the disk has; None: it has none, or the guest does not run."""

    def pivot(self, instance_id: str, target_dev: str) -> None:
        """The guest has the destination from now on, in its definition as well, and the copy ends.

        Raises CopyFailed: there is no copy any more. Unavailable while it is not ready."""

    def abort(self, instance_id: str, target_dev: str) -> None:
        """Give it up, the guest stays where it is; no copy: nothing to do."""

    def astray(self, instance_id: str, target_dev: str) -> bool:
        """Has QEMU another volume than libvirt says?  So where libvirtd died in the pivot, and for
        as long as the guest runs. False where it does not.

        To be asked in doubt alone: libvirt takes the domain for tainted by it."""


class Migrations(Protocol):
    """Guests that go from here to another hypervisor, from libvirtd to libvirtd.

    libvirt carries a migration on whatever becomes of us: another life of the agent finds it by
    ``progress``. Where the guest is afterwards both hosts' domains tell, and nothing here. Each
    turn of the copy and its end stir the instance as its other events do; where another life began
    it and it failed, nothing does: look again."""

    def descriptions(self, instance_id: str) -> tuple[str, str | None]:
        """The running domain's XML and its definition's (None: transient), made for going away.

        It may hold a console's password. Raises UnknownInstance; Unavailable if it does not run."""

    def start(self, instance_id: str, journey: Journey) -> None:
        """Have libvirt begin, and return. One that is on its way: nothing to do.

        Raises UnknownInstance; what is refused later ``refusal`` tells."""

    def progress(self, instance_id: str) -> MigrationProgress | None:
        """None: nothing is going away, as far as libvirt and our own call know."""

    def refusal(self, instance_id: str) -> AgentError | None:
        """Why the last one that this life started ended with an error; None: it did not.

        Says nothing of where the guest is. MigrationFailed, Busy, Invalid, Unsupported,
        Unavailable (then it may go on)."""

    def statistics(self, instance_id: str) -> Mapping[str, int]:
        """Of the last one that ended, on either side; empty where nobody knows (any more).

        ``elapsed_milliseconds``, ``downtime_milliseconds``, ``setup_milliseconds``,
        ``transferred_bytes``, ``total_bytes``, ``iterations``: those that libvirt tells."""

    def abort(self, instance_id: str) -> None:
        """Ask libvirt to give it up; ``progress`` tells when it has. Nothing goes: nothing to do.

        Raises TooLate in post-copy: the guest runs over there."""

    def allow_downtime(self, instance_id: str, milliseconds: int) -> None:
        """For how long the guest may stand still at the end, instead of what the journey's options
        say; nothing to do where nothing goes."""

    def start_post_copy(self, instance_id: str) -> None:
        """Let the guest run over there now, and fetch what is missing.

        In post-copy already, or nothing is going away: nothing to do. Raises Invalid where it was
        not allowed at the start, Unavailable where the copy has not begun."""

    def resume_post_copy(self, instance_id: str, journey: Journey) -> None:
        """Have both libvirts go on with a post-copy in which they have lost each other, and return;
        to be asked again until they do, ``refusal`` tells why not. The QEMUs are not disturbed: as
        long as they have not lost each other they go on by themselves.

        No post-copy, or none that broke: nothing to do.  Raises Unsupported."""

    def clear(self, instance_id: str) -> None:
        """Destroy and undefine what is left here of a domain that runs elsewhere by now.

        Its NVRAM file stays: both hosts may have it from the same place."""

    def pause(self, instance_id: str) -> None:
        """Stop the guest's processors here, so that the copy ends; it runs again over there.

        Nothing to do where it stands already. libvirt starts it again here if the copy fails."""


@dataclass(frozen=True)
class Sighting:
    """An instance on another host, by its agent's word; ``state`` None: it is not there.

    ``job`` as in DomainLook."""

    state: DomainState | None
    job: str | None = None


@dataclass(frozen=True)
class Prepared:
    """What a host keeps for an attachment that is to come there. ``size_bytes`` is what its device
    has there; 0: nobody knows."""

    migration_id: str
    size_bytes: int
    volume_id: str
    multiattach: bool
    access_mode: Literal["rw", "ro"]


@dataclass(frozen=True)
class Readiness:
    """What a host is for an instance that is to come there.

    ``libvirt`` as in Capabilities; ``prepared`` is what is leased there for the instance, and not
    being given back: {attachment to be replaced: what for it}."""

    verbs: frozenset[str]
    libvirt: tuple[int, ...]
    sighting: Sighting
    prepared: Mapping[str, Prepared]


class Peers(Protocol):
    """The agents of other hosts. What they answer is a look, and never changes anything there.

    None: the agent there, or its libvirt, does not answer."""

    def look(self, host: str, instance_id: str) -> Sighting | None: ...

    def readiness(self, host: str, instance_id: str) -> Readiness | None: ...

    def has_given_up(self, host: str, instance_id: str, migration_id: str) -> bool | None:
        """Has the migration been tried there and has failed, or was it cancelled there, tried or
        not?

        One that was refused before it began may be sent again: it is not given up."""


class Connectors(Protocol):
    def check(self, connection: Connection) -> None:
        """Raises Invalid or Unsupported if this host would never connect it. Touches nothing."""

    def connect(self, attachment: Attachment) -> Device:
        """Make the volume a device of this host (adopts one that is there already).

        Raises ConnectFailed, AuthFailed, LunMissing, NotAllPaths, Invalid; SharingConflict where
        this host itself uses what it is."""

    def disconnect(self, attachment: Attachment, device: Device | None) -> Disconnected:
        """Take the device off this host and prove it; ``device`` is the search key from connect.

        Raises ConnectFailed if something stays."""

    def extend(self, attachment: Attachment, device: Device) -> Device:
        """Make this host show the size that the volume has on the storage side, by every path.

        The device with that size. A file is as large as it is: QEMU makes it larger; an image that
        QEMU reaches over the network has the size that was known before.
        Raises NotAllPaths if one path shows less than another, ConnectFailed, Unsupported."""

    def find(self, connection: Connection) -> Device | None:
        """What is at the volume's address now, whoever made it; None: nothing, or not known where.

        Touches nothing. The size of what QEMU reaches by itself is not known: 0."""

    def look_again(self, attachment: Attachment, device: Device) -> Device | None:
        """The device with the paths that work now; None: it is not here.  Touches nothing."""

    def exports(self) -> Sequence[str]:
        """What is mounted by us, or by an earlier life; nobody else's."""

    def leave(self, export: str) -> None:
        """Unmount it unless somebody needs it.  Raises ConnectFailed if it stays all the same."""

    def leave_subsystem(self, device: Device) -> None:
        """Of a namespace that has gone: disconnect the controllers by which it was reached, of its
        subsystem, that show none any more.  Raises ConnectFailed, Unavailable."""

    def held_locks(self) -> Sequence[Mapping[str, Any]]:
        """Holders and waiters of the storage library's own locks, as Locks.held tells of ours."""

    def names(self, source: str) -> frozenset[str]:
        """Every name under which this host knows the device that a disk's source means now.

        Two sources are the same device iff their names meet. Never empty: holds ``source``."""

    def is_only_here(self, path: str) -> bool:
        """Is the file on a file system that no other host can have?  Raises Unavailable."""

    def present(self, device: Device) -> bool:
        """Is it on this host now, with the identity that connect found?"""

    def in_place(self, device: Device) -> bool:
        """Is it, and by the path that its disks name? A map may be missing whose paths are here."""

    def header(self, device: Device) -> bytes:
        """Its first HEADER_BYTES, past the host's cache.  Raises ConnectFailed."""

    def properties(self) -> Mapping[str, Any]:
        """This host's initiator: what the storage service calls *connector*. Asked each
        time: an HBA that was not online yet is missing."""


class Locks(Protocol):
    def volume(self, volume_id: str) -> AbstractContextManager[None]:
        """This host's lock of one volume. Always taken before a target's."""

    def targets(self, names: Sequence[str]) -> AbstractContextManager[None]:
        """Machine-wide locks of what volumes share, taken in sorted order."""

    def held(self) -> Sequence[Mapping[str, Any]]:
        """Holders and waiters: {name, holder, since, waiters}."""


class Clock(Protocol):
    def now(self) -> float:
        """Seconds since the epoch, UTC: what others are told, and what outlives the agent. Somebody
        may set it, forward or back."""

    def monotonic(self) -> float:
        """Seconds that only pass: how long something takes in this life."""


@dataclass(frozen=True)
class Promise:
    """Who counts on a volume being connected here, by the journal's word. ``targets`` where no
    device is known: by what it may be connected now."""

    volume_id: str
    attachment_id: str
    instance_id: str
    multiattach: bool
    operation_id: str | None
    device: Device | None
    targets: tuple[str, ...] = ()


@dataclass(frozen=True)
class Presence:
    """What the journal knows of a volume on this host.

    ``connected``: it may be here, from the intent to connect it until a disconnect was proven.
    ``device`` is what connect found, while it is of use; ``lane`` where its storage calls run."""

    connected: bool
    awaiting_unmap: bool
    device: Device | None
    lane: Lane


class Promises(Protocol):
    """The part of the journal that steps ask and tell."""

    def promises(self, besides: str) -> Sequence[Promise]:
        """Attachments, and operations going forward, except operation ``besides``."""

    def in_motion(self, volume_id: str, besides: str) -> bool:
        """Is an operation that connects or disconnects the volume open, except ``besides``?"""

    def device_of(self, attachment_id: str) -> Device | None:
        """What connect found for an attachment, withdrawn or not, until it ends."""

    def has_moved(self, operation_id: str) -> bool:
        """Is it a migrate that is done?"""

    def withdraw(self, attachment_id: str) -> None:
        """Durably: this attachment no longer counts as a user of its volume."""

    def leave_behind(self, volume_id: str, device: Device) -> None:
        """Durably: flushed and unused, the device stays until the storage side unmaps it."""

    def reclaim(self, volume_id: str) -> None:
        """Durably: what was left behind of the volume is in use again."""

    def presence(self, volume_id: str) -> Presence:
        """May the volume be on this host?"""

    def disconnected(self, volume_id: str) -> None:
        """Durably: the volume has left this host, unless it was promised to somebody meanwhile."""

    def quarantine(self, volume_id: str, device: Device, reason: str) -> None:
        """Durably: never hand this device on, never disconnect it for an operation."""

    def quarantined(self, volume_id: str) -> str | None:
        """Why the volume is quarantined on this host, or None."""


@dataclass(frozen=True)
class Host:
    """One hypervisor, as the core sees it."""

    name: str
    domains: Domains
    connectors: Connectors
    locks: Locks
    clock: Clock
    journal: Promises
    secrets: Secrets
    peers: Peers
    copies: Copies
    migrations: Migrations
    unplug_retry_seconds: float = 60.0
    libvirt_retry_seconds: float = 2.0
    copy_stall_seconds: float = 600.0


class Desk(Protocol):
    """Where messages from the bus arrive. Never raises: every outcome is a value of the wire.

    ``arguments`` are whatever keyword arguments the caller sent, not yet looked at.
    """

    def command(
        self, verb: str, arguments: Mapping[str, object], *, addressed: bool
    ) -> dict[str, Any]:
        """Accept (durably) or refuse a command; answers an Answer in milliseconds.

        ``addressed``: the message came over this host's own topic; else the request must name
        this host in ``host``, or it is ``wrong-host``."""

    def query(self, name: str, arguments: Mapping[str, object]) -> dict[str, Any]:
        """One of model.contract.QUESTIONS.

        Where there is no answer: {"error": {code, retriable, detail}}."""

    def wait(self, arguments: Mapping[str, object]) -> dict[str, Any]:
        """wait_operation: the operation's Answer when it is closed, at the timeout, or when the
        agent stops."""


class Outbox(Protocol):
    """Notifications that are durable and not yet published."""

    def letters(self, limit: int) -> Sequence[tuple[int, str, dict[str, Any]]]:
        """(sequence, event type, payload), oldest first."""

    def posted(self, up_to_sequence: int) -> None:
        """Durably: published, to be forgotten."""

    def wait(self, timeout_seconds: float) -> None:
        """Returns when a letter may have come, or at the timeout."""
