"""How a noun becomes columns and JSON, and comes back."""

import json
from collections.abc import Iterable
from dataclasses import asdict

from agent.journal.record import Held, Lease, Part, Record
from agent.model.attachment import Attachment
from agent.model.device import Device
from agent.model.outcome import Problem, Progress
from agent.ports import Promise


def part_columns(record: Record, part: Part) -> tuple[bool, bool, str | None, str]:
    """The columns that change: open, promised, device, body."""
    plain = {name: value for name, value in vars(part).items() if name != "attachment"}
    promises = record.open and part.promised
    return record.open, promises, device_json(part.device), json.dumps(plain)


def record_json(record: Record) -> str:
    plain = {name: value for name, value in vars(record).items() if name != "parts"}
    plain["progress"] = record.progress and record.progress.reveal()
    plain["cause"] = record.cause and record.cause.reveal()
    plain["trouble"] = record.trouble and record.trouble.reveal()
    return json.dumps(plain)


def record_of(
    sequence: int, cancel_wanted: int, body: str, parts: Iterable[tuple[str | None, str]]
) -> Record:
    plain = json.loads(body)
    plain.update(
        sequence=sequence,
        cancel_wanted=bool(cancel_wanted),
        parts=tuple(_part(*part) for part in parts),
    )
    for name in ("steps", "subjects", "warnings"):
        plain[name] = tuple(plain[name])
    for name in ("cause", "trouble"):
        plain[name] = plain[name] and Problem.model_validate(plain[name])
    if plain.get("progress") is not None:
        plain["progress"] = Progress.model_validate(plain["progress"])
    return Record(**plain)


def _part(attachment: str | None, body: str) -> Part:
    return Part(
        attachment=None if attachment is None else Attachment.model_validate_json(attachment),
        **json.loads(body),
    )


def held_of(promised: int, device: str | None, attachment: str, body: str) -> Held:
    plain = json.loads(body)
    return Held(
        attachment=Attachment.model_validate_json(attachment),
        operation_id=plain["operation_id"],
        device=device_of(device),
        disk=plain["disk"],
        promised=bool(promised),
        io_errors=plain.get("io_errors"),
        lease=Lease(**plain["lease"]) if plain.get("lease") else None,
    )


def held_json(held: Held) -> str:
    """What has no column of its own."""
    plain = {"operation_id": held.operation_id, "disk": held.disk}
    if held.io_errors is not None:
        plain["io_errors"] = held.io_errors
    if held.lease is not None:
        plain["lease"] = asdict(held.lease)
    return json.dumps(plain)


def promise_of(
    volume_id: str,
    attachment_id: str,
    instance_id: str,
    multiattach: int,
    operation_id: str | None,
    device: str | None,
    attachment: str | None,
) -> Promise:
    """``attachment``: where there is no device."""
    targets = (
        () if attachment is None else Attachment.model_validate_json(attachment).connection.targets
    )
    return Promise(
        volume_id=volume_id,
        attachment_id=attachment_id,
        instance_id=instance_id,
        multiattach=bool(multiattach),
        operation_id=operation_id,
        device=device_of(device),
        targets=targets,
    )


def attachment_json(attachment: Attachment) -> str:
    """With the storage's credentials, which a restart needs; never with a passphrase."""
    plain = attachment.reveal()
    if attachment.encryption is not None:
        plain["encryption"] = attachment.encryption.kept()
    return json.dumps(plain)


def device_json(device: Device | None) -> str | None:
    return None if device is None else json.dumps(device.reveal())


def device_of(text: str | None) -> Device | None:
    return None if text is None else Device.model_validate_json(text)
