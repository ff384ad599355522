"""A running guest's disk moves to another volume: copied under the guest, then one switch.

Where the disk is now the live XML tells, whatever became of us or of libvirtd meanwhile: on the old
volume, on the old one and copied to the new one, or on the new one.
"""

from dataclasses import dataclass, replace
from typing import Any, ClassVar

from agent.errors import (
    AgentError,
    Busy,
    ConnectFailed,
    CopyFailed,
    SharingConflict,
    Unsupported,
    WrongDevice,
)
from agent.guest.disk_xml import destination_xml, differences
from agent.guest.domain_xml import DiskFacts
from agent.guest.halves import Halves, halves, live_disk
from agent.model.attachment import Attachment
from agent.model.copy import CopyProgress, CopyWishes
from agent.model.device import Device
from agent.model.outcome import Progress
from agent.ports import COPY_TO_ENCRYPTED, STORAGE_SLICES, SYNCHRONOUS_WRITES, DomainLook, Host
from agent.saga.plan import Commit, Learnt, Parked, Scene, Step
from agent.steps.disk import until_job_ends
from agent.steps.guest_checks import (
    halves_at_rest,
    look_at,
    refuse_job,
    refuse_missing_abilities,
    refuse_other_serial,
)
from agent.steps.secret import header_bytes, make_secrets
from agent.steps.users import Everyone, is_at, refuse_conflicts

LOOK_SECONDS = 5.0
"""Between two looks at a copy; that it is ready, or over, an event tells at once."""


@dataclass(frozen=True)
class CheckSwap(Step):
    """Refuse what cannot succeed, before any storage is touched. Changes nothing."""

    name: ClassVar[str] = "check-swap"
    only_looks: ClassVar[bool] = True
    old: Attachment
    new: Attachment
    wishes: CopyWishes

    @property
    def about(self) -> str:
        return self.new.attachment_id

    def apply(self, scene: Scene) -> Learnt:
        host, old, new = scene.host, self.old, self.new
        missing = host.domains.capabilities().missing
        if self.wishes.synchronous_writes and SYNCHRONOUS_WRITES in missing:
            raise Unsupported("synchronous_writes needs libvirt 8.0 or newer; leave it out")
        if new.encryption and COPY_TO_ENCRYPTED in missing:
            raise Unsupported(
                "a swap to an encrypted volume: libvirt on this host would have the copy go past "
                "its encryption (9.0 does not, 11.3 does); nothing was touched: swap to a plain "
                "one, or attach the new volume beside the old one and copy in the guest"
            )
        refuse_missing_abilities(host, new)
        look = look_at(host, old.instance_id)
        if _waits_for_job(scene, look, new.alias):
            return {}
        guest = halves(look)
        disk = _running_disk(scene, guest, new.alias)
        refuse_other_serial(disk, old)
        if is_at(host, disk.source, scene.device):
            return {}
        device = host.journal.device_of(old.attachment_id)
        source = None if device is None else device.path
        wrong = differences(disk, old, host.connectors.names, source)
        if wrong:
            raise WrongDevice(
                f"the running guest has {disk.target_dev} otherwise than attached: "
                f"{'; '.join(wrong)}; detach it, and attach it again"
            )
        _refuse_other_job(host, guest, disk, scene.device)
        everyone = Everyone.on(host)
        _refuse_other_users(everyone, old, source, "what it writes would be lost")
        _refuse_to_overwrite(everyone, new, new.connection.known_source)
        return {}


@dataclass(frozen=True)
class CopyDisk(Step):
    """The new volume has what the old one has, and is kept the same; parked until it is so."""

    name: ClassVar[str] = "copy-disk"
    attachment: Attachment
    wishes: CopyWishes

    @property
    def about(self) -> str:
        return self.attachment.attachment_id

    def apply(self, scene: Scene) -> Learnt | Parked:
        host, device = scene.host, scene.device
        assert device is not None, "connect-volume comes first"
        look = look_at(host, self.attachment.instance_id)
        if waits := _waits_for_job(scene, look, self.attachment.alias):
            return waits
        guest = halves(look)
        defined = guest.defined_disk(self.attachment.alias)
        if defined and not guest.look.active and is_at(host, defined.source, device):
            return {}  # pivoted by hand, and stopped since
        disk = _running_disk(scene, guest, self.attachment.alias)
        has_begun = scene.known.get("copy_started") or is_at(host, disk.copies_to, device)
        if has_begun and _has_gone_over(scene, self.attachment, disk):
            return {}
        if is_at(host, disk.source, device):
            return {}
        if not is_at(host, disk.copies_to, device):
            if scene.known.get("copy_started"):
                raise _gave_up(scene, disk, device)
            self._start(host, guest, disk, device)
            guest = halves(look_at(host, self.attachment.instance_id))
            disk = _running_disk(scene, guest, self.attachment.alias)
        elif disk.is_copied:
            return {}
        return self._wait(scene, disk)

    def revert(self, scene: Scene) -> Parked | None:
        """libvirt shows a copy that has begun. It may be about to begin one that nobody waits for
        any more: what it is asked of the disk then it answers behind that."""
        host, instance_id = scene.host, self.attachment.instance_id
        look = host.domains.look(instance_id)
        disk = live_disk(look, self.attachment.alias)
        if look is None or disk is None:
            return None
        if look.job is not None:
            return until_job_ends(host, look, look.job)
        host.copies.progress(instance_id, disk.target_dev)
        disk = live_disk(host.domains.read(instance_id), self.attachment.alias)
        if disk is not None and is_at(host, disk.copies_to, scene.device):
            host.copies.abort(instance_id, disk.target_dev)
            disk = live_disk(host.domains.read(instance_id), self.attachment.alias)
        if disk is not None and is_at(host, disk.source, scene.device):
            raise CopyFailed(
                f"{disk.target_dev} is on volume {self.attachment.volume_id} already: somebody has "
                "pivoted it by hand; nothing is disconnected: copy and pivot it back by hand, then "
                "this swap is undone, or abandon it"
            )
        return None

    def _start(self, host: Host, guest: Halves, disk: DiskFacts, device: Device) -> None:
        _refuse_other_job(host, guest, disk, device)
        _refuse_to_overwrite(Everyone.on(host), self.attachment, device.path)
        has = host.domains.size(guest.look.instance_id, disk.target_dev)
        slice_bytes = _slice_bytes(host, self.attachment, device, has)
        make_secrets(host, self.attachment)
        host.copies.start(
            guest.look.instance_id,
            disk.target_dev,
            destination_xml(self.attachment, device, slice_bytes),
            self.wishes,
        )

    def _wait(self, scene: Scene, disk: DiskFacts) -> Learnt | Parked:
        host, now = scene.host, scene.host.clock.now()
        found = host.copies.progress(self.attachment.instance_id, disk.target_dev)
        known = scene.known.get("copy", {})
        moved = found is not None and [found.done_bytes, found.total_bytes] != known.get("at")
        since = now if moved or not known else min(known["moved_at"], now)
        if now - since > host.copy_stall_seconds:
            raise CopyFailed(
                f"the copy of {disk.target_dev} stands still since {now - since:.0f} s "
                "(copy_stall_seconds): see that both volumes answer; the guest stays where it is"
            )
        at = known.get("at") if found is None else [found.done_bytes, found.total_bytes]
        return Parked(
            f"the copy of {disk.target_dev} to volume {self.attachment.volume_id}",
            wake_at=now + LOOK_SECONDS,
            learnt={
                "copy_started": True,
                "copy": {"at": at, "looked_at": now, "moved_at": since},
            },
            progress=None if found is None else _progress(found, known, now),
        )


@dataclass(frozen=True)
class PivotDisk(Commit):
    """The guest has the new volume, and no more the old one."""

    name: ClassVar[str] = "pivot-disk"
    reached: ClassVar[str] = "has given the guest its new volume"
    attachment: Attachment

    @property
    def about(self) -> str:
        return self.attachment.attachment_id

    def apply(self, scene: Scene) -> Learnt | Parked:
        host, instance_id = scene.host, self.attachment.instance_id
        look = look_at(host, instance_id)
        if waits := _waits_for_job(scene, look, self.attachment.alias):
            return waits
        disk = _running_disk(scene, halves(look), self.attachment.alias)
        if not _has_gone_over(scene, self.attachment, disk):
            if not is_at(host, disk.copies_to, scene.device):
                raise _gave_up(scene, disk, scene.device)
            host.copies.pivot(instance_id, disk.target_dev)
            disk = _running_disk(scene, halves(look_at(host, instance_id)), self.attachment.alias)
        if not _has_gone_over(scene, self.attachment, disk):
            raise CopyFailed(f"libvirt took the pivot, and {disk.target_dev} is at {disk.source}")
        return {}

    def happened(self, scene: Scene) -> bool:
        """Of a guest that has stopped meanwhile its definition tells: with that it starts."""
        look = scene.host.domains.look(self.attachment.instance_id)
        if look is None:
            raise CopyFailed(
                f"the switch to volume {self.attachment.volume_id} was begun, and the instance has "
                "gone since with what would tell whether it came to it: either volume may have the "
                "last writes. Both stay as they are: compare them, then 'attachctl operations "
                "abandon'"
            )
        disk = halves_at_rest(look).first_disk(self.attachment.alias)
        return disk is not None and _has_gone_over(scene, self.attachment, disk)


def _waits_for_job(scene: Scene, look: DomainLook, alias: str) -> Parked | None:
    """A copy that has begun goes on beside a job of the domain (a dump, a command that QEMU does
    not answer), and is looked at when that has ended: until then nobody says that it stands still.
    Before, raises Busy."""
    if look.job is None:
        return None
    disk = live_disk(look, alias)
    is_copied = disk is not None and is_at(scene.host, disk.copies_to, scene.device)
    if not is_copied and not scene.known.get("copy_started"):
        refuse_job(look)
    known = scene.known.get("copy")
    moved = known and {"copy": {**known, "moved_at": scene.host.clock.now()}}
    return replace(until_job_ends(scene.host, look, look.job), learnt=moved or {})


def _running_disk(scene: Scene, guest: Halves, alias: str) -> DiskFacts:
    """Raises Unsupported, WrongDevice; CopyFailed where the guest has stopped meanwhile."""
    if not guest.look.active and scene.known.get("copy_started"):
        raise CopyFailed(
            f"domain {guest.look.name} was stopped while its disk was copied; it has its old "
            "volume: start it, and ask again with a new request_id"
        )
    if not guest.look.active:
        raise Unsupported(
            f"domain {guest.look.name} does not run, and only QEMU copies under a guest: start it, "
            "or copy on the storage side, detach and attach"
        )
    disk = guest.live_disk(alias)
    if disk is None:
        raise WrongDevice(f"the running guest has no disk {alias}: detach it, and attach it again")
    return disk


def _has_gone_over(scene: Scene, attachment: Attachment, disk: DiskFacts) -> bool:
    """Has the guest the new volume?  QEMU is asked where the copy is gone, and libvirt, which may
    have died in the pivot, says that the disk is where it was."""
    host, device = scene.host, scene.device
    if is_at(host, disk.source, device):
        return True
    instance_id, target_dev = attachment.instance_id, disk.target_dev
    is_copied_to = is_at(host, disk.copies_to, device)
    if is_copied_to and host.copies.progress(instance_id, target_dev) is not None:
        return False
    now = live_disk(host.domains.read(instance_id), attachment.alias)
    if now is not None and is_at(host, now.source, device):
        return True  # a pivot has ended since: what is asked of the domain waits for it
    return host.copies.astray(instance_id, target_dev)


def _refuse_other_job(host: Host, guest: Halves, disk: DiskFacts, device: Device | None) -> None:
    """Somebody else's backup, commit or copy: one disk has one block job at a time."""
    if is_at(host, disk.copies_to, device):
        return
    if host.copies.progress(guest.look.instance_id, disk.target_dev) is not None:
        raise Busy(
            f"{disk.target_dev} has a block job that is not of this agent; try again when it has "
            "ended ('virsh blockjob')"
        )


def _refuse_other_users(everyone: Everyone, of: Attachment, source: str | None, why: str) -> None:
    for use in everyone.uses_of(of.volume_id, source):
        if use.domain.instance_id != of.instance_id:
            raise SharingConflict(
                f"{use} has volume {of.volume_id} as well, and {why}: detach it there first"
            )


def _refuse_to_overwrite(everyone: Everyone, new: Attachment, source: str | None) -> None:
    """Whoever has the new volume, sharing it or not, would find another's data on it."""
    _refuse_other_users(everyone, new, source, "the copy would overwrite what it has")
    refuse_conflicts(everyone, new, source)


def _slice_bytes(host: Host, attachment: Attachment, device: Device, has: int) -> int | None:
    """How much of the new volume QEMU is to take; None: all of it.

    QEMU copies (since 5.1) only to what is exactly as large as the disk of the guest, ``has``.
    Raises ConnectFailed, Unsupported."""
    room = payload_bytes(host, attachment, device)
    if room == has or not device.size_bytes:
        return None
    if room < has:
        raise ConnectFailed(
            f"{device.path} has room for {room} bytes, and the guest's disk has {has}: a copy does "
            "not fit; make the new volume larger"
        )
    is_raw = attachment.connection.source_format == "raw"
    if not is_raw:
        raise Unsupported(
            f"the image of volume {attachment.volume_id} has {room} bytes, and the guest's disk "
            f"{has}: QEMU copies to an image of the same size alone; make it as large"
        )
    if STORAGE_SLICES in host.domains.capabilities().missing:
        return None
    return has + device.size_bytes - room


def payload_bytes(host: Host, attachment: Attachment, device: Device) -> int:
    """What of the volume a guest sees."""
    return device.size_bytes - header_bytes(host, attachment, device)


def _progress(found: CopyProgress, known: dict[str, Any], now: float) -> Progress:
    """Bytes, and how fast they came since the last look."""
    rate, eta_seconds = None, None
    if known.get("at") and now > known["looked_at"]:
        rate = max(0, found.done_bytes - known["at"][0]) / (now - known["looked_at"])
    if rate:
        eta_seconds = (found.total_bytes - found.done_bytes) / rate
    return Progress(
        done=found.done_bytes,
        total=found.total_bytes,
        unit="bytes",
        rate=rate,
        eta_seconds=eta_seconds,
    )


def _gave_up(scene: Scene, disk: DiskFacts, device: Device | None) -> AgentError:
    done, total = (scene.known.get("copy", {}).get("at") or (0, 0))[:2]
    where = device.path if device else "the new volume"
    return CopyFailed(
        f"QEMU has given up the copy of {disk.target_dev} to {where} after {done} of {total} "
        "bytes, or the guest was restarted: libvirt does not say why, the guest's log may; see "
        "that the new volume can be written"
    )
