"""Entries of an import out of a file, in whatever form the other service keeps them.

Each is one of: an entry of the wire; an attachment of the wire alone; a row of a compute service's
table of block devices, with its connection_info as text or object; an attachment as the volume
service shows it. Beside the last two may stand what they do not tell (multiattach, serial, …).
"""

import json
from collections.abc import Mapping
from typing import Any

from agent.bus.client import from_cinder
from agent.cli.trouble import usage
from agent.errors import Invalid
from agent.model.attachment import Attachment

Entry = dict[str, Any]

BESIDE = frozenset(Attachment.model_fields) - {"marks", "connection_info"}
"""Fields of our attachment that may stand beside another service's words."""


def entries_of(document: object, name: str) -> list[Entry]:
    """Raises Trouble (usage), naming the entry that is none."""
    found = document.get("entries") if isinstance(document, Mapping) else document
    if not isinstance(found, list):
        raise usage(f"{name} must hold a list of attachments; nothing was sent")
    return [_entry(item, f"{name}, entry {number}") for number, item in enumerate(found)]


def _entry(item: object, where: str) -> Entry:
    if not isinstance(item, dict):
        raise usage(f"{where}: must be an object with named fields; nothing was sent")
    inner = item.get("attachment", item)
    if isinstance(inner, dict) and "instance_id" in inner and _is_nested(inner):
        return item if inner is not item else _split(item)
    try:
        told = from_cinder(_row_as_cinders(item) if "instance_uuid" in item else item)
    except Invalid as error:
        raise usage(f"{where}: {error}; nothing was sent") from None
    beside = {name: item[name] for name in item.keys() & BESIDE if item[name] is not None}
    return _split({**told, **beside, **_named(item, "serial")})


def _is_nested(attachment: Mapping[str, Any]) -> bool:
    info = attachment.get("connection_info")
    return isinstance(info, dict) and isinstance(info.get("data"), dict)


def _split(attachment: Mapping[str, Any]) -> Entry:
    """The entry of an attachment that has the entry's own fields among its own."""
    fields = {name: value for name, value in attachment.items() if name != "serial"}
    return {"attachment": fields, **_named(attachment, "serial")}


def _named(item: Mapping[str, Any], *names: str) -> Entry:
    return {name: item[name] for name in names if item.get(name) is not None}


def _row_as_cinders(row: Mapping[str, Any]) -> Entry:
    """A row of the table ``block_device_mapping``, as the volume service would have told it.

    Raises Invalid."""
    info = row.get("connection_info")
    try:
        info = json.loads(info) if isinstance(info, str) else info
    except ValueError:
        raise Invalid("connection_info: is text, and not JSON") from None
    if not isinstance(info, Mapping):
        raise Invalid("connection_info: must be an object, or JSON as text")
    # What the compute service keeps beside the protocol's data is its own.
    flat = {"driver_volume_type": info.get("driver_volume_type"), **(info.get("data") or {})}
    return {
        "attachment": {
            "id": row.get("attachment_id"),
            "instance": row["instance_uuid"],
            "volume_id": row.get("volume_id") or info.get("serial"),
            "connection_info": flat,
        }
    }
