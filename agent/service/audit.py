"""audit: journal, libvirt and host side by side, and what does not fit. Changes nothing."""

from collections.abc import Iterator, Sequence
from typing import Any, Protocol

from agent.guest.disk_xml import differences
from agent.guest.halves import Halves, halves
from agent.journal.book import Book
from agent.journal.record import Held, Record
from agent.journal.store import Journal
from agent.model.device import Device
from agent.model.mark import USER_ALIAS, user_alias
from agent.ports import DomainLook, Host


class Devices(Protocol):
    """The part of ports.Connectors that an audit asks."""

    def names(self, source: str) -> frozenset[str]: ...

    def in_place(self, device: Device) -> bool: ...


def audit(host: Host, journal: Journal) -> dict[str, Any]:
    """{attachments: [{attachment_id, …, live, persistent, device_present}], findings: [{kind,
    attachment_id, instance_id, detail, advice}]}.  Raises Unavailable if libvirt does not answer.

    Attachments of open operations are in motion: what does not fit there is no finding."""
    rows_before, open_before = journal.read(_books)
    looks = host.domains.all()
    held, open_operations = journal.read(_books)
    changed = {attachment_id for attachment_id, _ in _plugged(rows_before) ^ _plugged(held)}
    in_motion = _in_motion(open_before) | changed
    ours = host.secrets.ours()
    found = compare(held, open_operations, looks, host.connectors, ours, in_motion)
    left_behind, quarantined = journal.read(lambda book: (book.left_behind(), quarantine_of(book)))
    found["findings"] += quarantined
    found["findings"] += [
        _left_behind(volume_id, device)
        for volume_id, device in left_behind.items()
        if host.connectors.present(device)
    ]
    return found


def _books(book: Book) -> tuple[list[Held], list[Record]]:
    return book.attachments(), book.open_operations()


def _plugged(rows: Sequence[Held]) -> frozenset[tuple[str, str | None]]:
    """Each with the operation that did it: it may have gone and come back meanwhile."""
    return frozenset((held.attachment.attachment_id, held.operation_id) for held in rows)


def _in_motion(open_operations: Sequence[Record]) -> frozenset[str]:
    return frozenset(one for record in open_operations for one in record.attachment_ids)


def compare(
    held: Sequence[Held],
    open_operations: Sequence[Record],
    looks: Sequence[DomainLook],
    devices: Devices,
    secrets: frozenset[str],
    in_motion: frozenset[str] = frozenset(),
) -> dict[str, Any]:
    """As audit, on what was read already: ``secrets`` are those of ours that libvirt has.

    ``in_motion`` are attachments that changed meanwhile."""
    guests = {look.instance_id: halves(look) for look in looks}
    in_motion |= _in_motion(open_operations)
    findings = [
        finding
        for attachment in held
        if attachment.attachment.attachment_id not in in_motion
        for finding in _of_attachment(devices, attachment, guests.get(_instance(attachment)))
    ]
    known = {attachment.attachment.alias for attachment in held} | set(map(user_alias, in_motion))
    coming = {_instance(row) for row in held if row.lease}
    settled = [guest for instance_id, guest in guests.items() if instance_id not in coming]
    findings += [finding for guest in settled for finding in _strangers(guest, known)]
    paused = {look.instance_id: look.name for look in looks if look.state == "paused"}
    resting = [row for row in held if row.attachment.attachment_id not in in_motion]
    findings += [found for row in resting for found in _paused(row, paused.get(_instance(row)))]
    findings += [finding for row in resting for finding in _missing_secrets(row, secrets)]
    if not in_motion:
        findings += _left_secrets(held, secrets)
    findings += [_unsettled(record) for record in open_operations if record.state == "unsettled"]
    return {
        "attachments": [_row(devices, attachment, guests) for attachment in held],
        "findings": findings,
    }


def _row(devices: Devices, held: Held, guests: dict[str, Halves]) -> dict[str, Any]:
    guest = guests.get(_instance(held))
    alias = held.attachment.alias
    return {
        "attachment_id": held.attachment.attachment_id,
        "instance_id": _instance(held),
        "volume_id": held.attachment.volume_id,
        "live": bool(guest and guest.live and guest.live.disk_by_alias(alias)),
        "persistent": bool(guest and guest.inactive and guest.inactive.disk_by_alias(alias)),
        "device": held.device and held.device.path,
        "device_present": held.device is not None and devices.in_place(held.device),
    }


def _of_attachment(devices: Devices, held: Held, guest: Halves | None) -> Iterator[dict[str, Any]]:
    alias = held.attachment.alias
    if held.device is not None and not devices.in_place(held.device):
        yield _finding(
            "device-missing",
            held,
            f"{held.device.path} is not on this host, or is another device now",
            "the agent connects it as soon as it can, and its log says why it cannot; a guest that "
            "runs has lost the disk: detach the attachment, then attach it again",
        )
    if held.device is not None and held.device.degraded:
        yield _finding(
            "paths-missing",
            held,
            f"{held.device.path}: {held.device.degraded}",
            "look at the portals and the storage network ('multipath -ll', 'nvme list-subsys')",
        )
    if held.awaits_domain and (guest is None or guest.disk(alias) is None):
        return
    if guest is None:
        yield _finding(
            "instance-missing",
            held,
            "libvirt has no such domain",
            "detach the attachment: it disconnects the volume",
        )
        return
    if guest.disk(alias) is None:
        yield _finding(
            "disk-missing",
            held,
            "the domain has no disk with its alias, somebody else has taken it out",
            "detach the attachment: it disconnects the volume",
        )
        return
    for half, name, lacks in (
        (guest.live, "running guest", "the running guest does not have the disk, its definition"),
        (guest.inactive, "definition", "the definition does not have the disk, the running guest"),
    ):
        disk = half and half.disk_by_alias(alias)
        if half is not None and not disk:
            yield _finding(
                "half-missing",
                held,
                f"{lacks} does",
                "attach again with the same attachment, which completes the missing half, or "
                "detach it",
            )
        source = None if held.device is None else held.device.path
        wrong = differences(disk, held.attachment, devices.names, source) if disk else []
        if wrong:
            yield _finding(
                "disk-differs",
                held,
                f"in the {name}: {'; '.join(wrong)}",
                "detach and attach again when the guest allows it",
            )


def _paused(held: Held, name: str | None) -> Iterator[dict[str, Any]]:
    """``name``: of the domain, where it is paused."""
    errors = held.io_errors
    if errors and errors["action"] == "stop" and name is not None:
        yield _finding(
            "paused-by-io-error",
            held,
            "QEMU has paused the guest when the disk failed (error_policy stop), last at "
            f"{errors['last_at']}",
            "see that the storage works, that the instance is on no other host, and that 'virsh "
            f"domstate --reason {name}' says I/O error; then 'virsh resume {name}'",
        )


def _missing_secrets(held: Held, secrets: frozenset[str]) -> Iterator[dict[str, Any]]:
    lost = [secret for secret in held.attachment.secrets if secret.uuid not in secrets]
    if lost:
        yield _finding(
            "secret-missing",
            held,
            f"libvirt has no secret {lost[0].uuid} ({lost[0].usage}): a guest that runs is not "
            "harmed, and one that is started cannot open the disk",
            "the agent makes it anew, and its log says why it cannot; what came by value must "
            "come once more: attach again with the same attachment",
        )


def _left_secrets(held: Sequence[Held], secrets: frozenset[str]) -> Iterator[dict[str, Any]]:
    needed = {secret.uuid for row in held for secret in row.attachment.secrets}
    for uuid in sorted(secrets - needed):
        yield {
            "kind": "secret-left",
            "attachment_id": None,
            "instance_id": None,
            "detail": f"libvirt has secret {uuid}, and no attachment needs it",
            "advice": f"virsh secret-undefine {uuid}",
        }


def _strangers(guest: Halves, known: set[str]) -> Iterator[dict[str, Any]]:
    """Disks that carry an alias like ours and that the journal does not know."""
    seen = set()
    for half in (guest.live, guest.inactive):
        for disk in half.disks if half else ():
            if disk.alias and disk.alias not in known and disk.alias not in seen:
                seen.add(disk.alias)
                yield {
                    "kind": "unknown-disk",
                    "attachment_id": disk.alias.removeprefix(USER_ALIAS),
                    "instance_id": guest.look.instance_id,
                    "detail": f"{disk.target_dev} ({disk.source}) is in no journal of this agent",
                    "advice": "take it over ('attachctl import'), or detach it by sending the "
                    "whole attachment; otherwise it stays",
                }


def _unsettled(record: Record) -> dict[str, Any]:
    trouble = "" if record.trouble is None else record.trouble.detail
    return {
        "kind": "unsettled",
        **{name: record.subject_ids()[name] for name in ("attachment_id", "instance_id")},
        "detail": f"{record.verb} {record.operation_id}: {trouble}",
        "advice": "mend the cause, it is tried again; or 'attachctl operations abandon'",
    }


def quarantine_of(book: Book) -> list[dict[str, Any]]:
    """A finding for each volume that nobody may use."""
    return [
        {
            "kind": "quarantined",
            "attachment_id": None,
            "instance_id": None,
            "detail": f"volume {volume_id}: {row['reason']}",
            "advice": "see that the device is the volume, or take it off the host; then 'attachctl "
            f"quarantine release {volume_id}'",
        }
        for volume_id, row in book.quarantined().items()
    ]


def _left_behind(volume_id: str, device: Device) -> dict[str, Any]:
    return {
        "kind": "awaiting-unmap",
        "attachment_id": None,
        "instance_id": None,
        "detail": f"{device.path} of volume {volume_id} is flushed and unused, and still here",
        "advice": "unmap it on the storage side: it then goes by itself",
    }


def _finding(kind: str, held: Held, detail: str, advice: str) -> dict[str, Any]:
    return {
        "kind": kind,
        "attachment_id": held.attachment.attachment_id,
        "instance_id": _instance(held),
        "detail": detail,
        "advice": advice,
    }


def _instance(held: Held) -> str:
    return held.attachment.instance_id
