"""import: attachments that somebody else made are taken over as they are (docs/import.rst).

Neither guest nor storage is touched: both are looked at, and what fits together is written down.
"""

import logging
from collections.abc import Mapping
from typing import Any

from agent.admission.admit import Admission, Policy
from agent.errors import (
    AgentError,
    Busy,
    Invalid,
    LunMissing,
    Unsupported,
    WrongDevice,
)
from agent.guest.disk_xml import differences
from agent.guest.domain_xml import DiskFacts
from agent.guest.halves import Halves
from agent.journal.book import Book
from agent.journal.record import Held
from agent.journal.store import Journal
from agent.model.attachment import Attachment
from agent.model.connection import VendorConnection
from agent.model.device import Device
from agent.model.imports import ImportEntry, ImportQuery, minted_id
from agent.model.outcome import Problem
from agent.ports import Host
from agent.steps.guest_checks import find_guest
from agent.steps.identity import refuse_unfit, why_another
from agent.steps.users import Everyone, refuse_conflicts

LOG = logging.getLogger(__name__)

BUSES = ("virtio", "scsi")

History = list[list[int]]


class Imports:
    """Each entry is judged by itself and written down by itself: what is refused, or was killed
    on the way, harms no other, and whoever asks again gets the same."""

    def __init__(self, host: Host, journal: Journal, policy: Policy) -> None:
        self._host = host
        self._journal = journal
        self._policy = policy

    def answer(self, asked: ImportQuery) -> dict[str, Any]:
        """{dry_run, entries: [{attachment_id, instance_id, volume_id, state, disk, device,
        error}]}: ``state`` is importable (dry run), imported, already, or refused."""
        rows = [self._one(given, is_dry_run=asked.dry_run) for given in asked.entries]
        return {"dry_run": asked.dry_run, "entries": rows}

    def _one(self, given: Mapping[str, Any], *, is_dry_run: bool) -> dict[str, Any]:
        row = {**_ids(given), "state": "refused", "disk": None, "device": None, "error": None}
        try:
            entry = ImportEntry.parse(given)
            before = self._journal.read(lambda book: _history(book, entry.attachment))
            held = self._known(entry.attachment)
            state = "already"
            if held is None:
                held = look(self._host, entry)
                state = self._take_over(held, before, is_dry_run=is_dry_run)
        except AgentError as error:
            LOG.info("not imported: %s: %s: %s", row["attachment_id"], error.code, error.detail)
            return {**row, "error": Problem.of(error).model_dump()}
        if state == "imported":
            LOG.info("imported attachment %s, %s", held.attachment.attachment_id, held.disk)
        listed = held.listed()
        return {**row, "state": state, "disk": listed["disk"], "device": listed["device"]}

    def _known(self, attachment: Attachment) -> Held | None:
        """Raises Invalid where it is another one."""
        return self._journal.read(lambda book: self._judge(book).in_place(attachment))

    def _take_over(self, held: Held, before: History, *, is_dry_run: bool) -> str:
        """``before`` the guest was looked at."""

        def judge(book: Book) -> str:
            admission = self._judge(book)
            if admission.in_place(held.attachment) is not None:
                return "already"
            if _history(book, held.attachment) != before:
                raise Busy(
                    "an operation of this attachment or volume has begun, or ended, while its "
                    "guest was looked at; nothing was done: ask again"
                )
            admission.take_over(held.attachment)
            if is_dry_run:
                return "importable"
            book.keep(held)
            book.keep_host(self._host.name)
            book.raise_fence(
                held.attachment.attachment_id,
                newest=held.attachment.generation,
                detached=None,
                now=admission.now,
                volume_id=held.attachment.volume_id,
                source=None if held.device is None else held.device.path,
            )
            return "imported"

        return self._journal.read(judge) if is_dry_run else self._journal.write(judge)

    def _judge(self, book: Book) -> Admission:
        return Admission(book, self._policy, self._host.clock.now())


def _history(book: Book, attachment: Attachment) -> History:
    """What changes when an operation of the attachment, or of its volume, begins or ends."""
    attachment_id, volume_id = attachment.attachment_id, attachment.volume_id
    newest = (
        *book.operations(attachment_id=attachment_id, limit=1),
        *book.operations(volume_id=volume_id, limit=1),
    )
    still_open = (
        *book.open_operations(attachment_id=attachment_id),
        *book.open_operations(volume_id=volume_id),
    )
    return [[record.sequence for record in records] for records in (newest, still_open)]


def look(host: Host, entry: ImportEntry) -> Held:
    """The attachment as it would be in place, had the agent made it. Touches nothing.

    Raises why it cannot be taken over: the guest's disk is not the volume, or is otherwise than
    the entry says; or what an attach would be refused for."""
    wanted = entry.attachment
    host.connectors.check(wanted.connection)
    guest = find_guest(host, wanted.instance_id)
    device = _device(host, wanted)
    disk = _disk(host, guest, wanted, device)
    attachment = _as_it_is(entry, disk)
    _refuse_anothers(guest, attachment)
    _refuse_differences(host, guest, attachment, device)
    wrong = why_another(host.journal, host.connectors, attachment, device, besides="")
    if wrong:
        raise WrongDevice(
            f"{device.path} is not volume {attachment.volume_id}: {'; '.join(wrong)}; nothing was "
            f"touched: see what {disk.target_dev} of the guest is before anything else is done"
        )
    refuse_unfit(attachment, device)
    refuse_conflicts(Everyone.on(host), attachment, device.path)
    shown = guest.shown(attachment.alias)
    assert shown is not None, "it was found just now"
    return Held(attachment, None, device, shown)


def _device(host: Host, wanted: Attachment) -> Device:
    device = host.connectors.find(wanted.connection)
    if device is None and isinstance(wanted.connection, VendorConnection):
        raise Unsupported(
            f"where a volume of {wanted.connection.driver_volume_type} is on this host shows only "
            "when it is connected, so its disk cannot be proven; nothing was touched: detach it "
            "where it was attached, and attach it here"
        )
    if device is None:
        raise LunMissing(
            f"volume {wanted.volume_id} is not on this host where connection_info says (an export "
            "counts where this agent mounts it, nfs_mount_point_base); nothing was touched: see "
            "whether connection_info is that of this host"
        )
    if not device.is_here:
        return device.model_copy(update={"size_bytes": wanted.size_bytes or 0})
    return host.connectors.look_again(wanted, device) or device


def _disk(host: Host, guest: Halves, wanted: Attachment, device: Device) -> DiskFacts:
    """The guest's disk that is the device: whatever it is called, that is what it must be."""
    names = host.connectors.names
    theirs = names(device.path)
    found = {
        disk.mark: disk
        for half in (guest.inactive, guest.live)
        for disk in (half.disks if half else ())
        if disk.source and theirs & names(disk.source)
    }
    if not found:
        raise WrongDevice(
            f"no disk of domain {guest.look.name} is {device.path}, where volume "
            f"{wanted.volume_id} is; nothing was touched: see 'attachctl instance "
            f"{wanted.instance_id}'"
        )
    if len(found) > 1:
        raise WrongDevice(
            f"domain {guest.look.name} has the volume as {' and as '.join(sorted(found))}: which "
            "one is the attachment cannot be told; nothing was touched: give both halves the same "
            "alias (virsh edit), or detach one of them"
        )
    [disk] = found.values()
    return disk


def _as_it_is(entry: ImportEntry, disk: DiskFacts) -> Attachment:
    """What the entry does not say of the disk is as the guest has it."""
    wanted = entry.attachment
    if wanted.secrets or disk.luks_secret:
        raise Unsupported(
            f"{disk.target_dev} is opened with a secret of libvirt's that somebody else keeps; "
            "nothing was touched: leave a Ceph key out of connection_info, its secret stays "
            "theirs; an encrypted volume must be detached there and attached here"
        )
    if disk.bus not in BUSES or disk.device not in ("disk", "lun"):
        raise Unsupported(
            f"{disk.target_dev} is a {disk.device} on bus {disk.bus}, and only disks and luns on "
            "virtio or scsi can be taken over; nothing was touched"
        )
    if disk.serial not in (None, wanted.volume_id, entry.serial):
        raise WrongDevice(
            f"{disk.target_dev} shows the guest the serial {disk.serial}, and not the volume's id; "
            "nothing was touched: give it as serial in the entry, if it is right"
        )
    shown: dict[str, Any] = {
        "bus": disk.bus,
        "type": disk.device,
        "cache": disk.cache,
        "target_dev": disk.target_dev,
        "reservations": "managed" if disk.reserves else None,
    }
    plain = wanted.reveal()
    plain["disk"] = {**shown, **plain.get("disk", {})}
    return Attachment.parse(plain).marked(disk.mark, disk.serial)


def _refuse_anothers(guest: Halves, attachment: Attachment) -> None:
    """The domain's note outlives a journal: whose disk it says it is, that one's it stays."""
    for half in (guest.live, guest.inactive):
        note = half.notes.get(attachment.alias) if half else None
        if note is not None and note.attachment_id != attachment.attachment_id:
            raise Invalid(
                f"the domain notes that its disk {attachment.alias} is attachment "
                f"{note.attachment_id}; nothing was touched: give that as attachment_id"
            )


def _refuse_differences(host: Host, guest: Halves, attachment: Attachment, device: Device) -> None:
    for name, disk in (
        ("running guest", guest.live_disk(attachment.alias)),
        ("definition", guest.defined_disk(attachment.alias)),
    ):
        wrong = differences(disk, attachment, host.connectors.names, device.path) if disk else []
        if wrong:
            raise WrongDevice(
                f"the disk in the {name} is otherwise than the entry says: {'; '.join(wrong)}; "
                "nothing was touched: mend the entry (shareable is multiattach, readonly is "
                "access_mode), or the domain"
            )


def _ids(given: Mapping[str, Any]) -> dict[str, str | None]:
    """Of whatever was sent, so that a refusal can be told from the others."""
    wanted = given.get("attachment")
    ids = {
        name: value if isinstance(value, str) else None
        for name in ("attachment_id", "instance_id", "volume_id")
        for value in [wanted.get(name) if isinstance(wanted, Mapping) else None]
    }
    if ids["attachment_id"] is None and ids["instance_id"] and ids["volume_id"]:
        ids["attachment_id"] = minted_id(ids["instance_id"], ids["volume_id"])
    return ids
