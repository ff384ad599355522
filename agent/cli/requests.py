"""A request out of files and flags, checked in full before anything is sent.

Flags win over --from-cinder, that over --file. Credentials come from files only: a command line
is seen by everybody on the machine.
"""

import json
import re
import sys
import uuid
from argparse import Namespace
from collections.abc import Callable, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any, TextIO

import yaml

from agent.bus.client import VALID_FOR, from_cinder
from agent.cli.trouble import Trouble, usage
from agent.errors import Invalid
from agent.model.contract import COMMANDS
from agent.model.moment import rfc3339

ATTACHMENT_FLAGS = (
    "attachment_id",
    "instance_id",
    "volume_id",
    "generation",
    "multiattach",
    "access_mode",
    "size_bytes",
)
DISK_FLAGS = ("bus", "type", "target_dev", "cache", "boot_order")
ENVELOPE = ("request_id", "not_after", "deadline_seconds", "host")

Payload = dict[str, Any]


def attach_request(flags: Namespace, now: datetime) -> Payload:
    """As the wire takes it.  Raises Trouble (usage), naming every wrong field."""
    filed = _given(flags)
    request = filed if "attachment" in filed else {"attachment": filed}
    attachment = _attachment(flags, _mapping(request["attachment"], "attachment"))
    return _checked(
        "attach", {**request, **_flagged(flags, ENVELOPE), "attachment": attachment}, now
    )


def detach_request(
    flags: Namespace, now: datetime, look_up: Callable[[str], Mapping[str, Any] | None]
) -> Payload:
    """``look_up`` gives the agent's row of an attachment: asked for the instance and generation
    where neither flags nor file name the instance.  Raises Trouble (usage)."""
    filed = _detach_form(_given(flags))
    named = _named(filed.get("attachment"), filed, vars(flags))
    if "attachment_id" in named and "instance_id" not in named:
        row = look_up(named["attachment_id"])
        if row is None:
            raise usage(
                f"attachment {named['attachment_id']} is not on this host ('attachctl list'): to "
                "detach it all the same, give the whole of it with --file, or --instance; nothing "
                "was sent"
            )
        named = _named(row, named)
    return _checked("detach", {**filed, **named, **_flagged(flags, ENVELOPE)}, now)


def batch_request(verb: str, flags: Namespace, now: datetime) -> Payload:
    """Of verbs that come whole, from a file.  Raises Trouble."""
    filed = _given(flags)
    if verb in ("connect_instance", "prepare_migration") and "instance_id" not in filed:
        attachments = filed.get("attachments")
        first = attachments[0] if isinstance(attachments, list) and attachments else {}
        filed |= _named({"instance_id": _mapping(first, "attachments.0").get("instance_id")})
    return _checked(verb, {**filed, **_flagged(flags, ENVELOPE)}, now)


def disconnect_request(
    flags: Namespace, now: datetime, look_up: Callable[[str], Mapping[str, Any] | None]
) -> Payload:
    """``look_up`` gives the agent's row of an attachment, for its generation."""
    refs = [_named({"attachment_id": one}, look_up(one)) for one in flags.attachment_ids]
    attachments = [
        {name: ref[name] for name in ("attachment_id", "generation") if name in ref} for ref in refs
    ]
    request = {"instance_id": flags.instance_id, "attachments": attachments or "all"}
    return _checked("disconnect_instance", {**request, **_flagged(flags, ENVELOPE)}, now)


def cancel_migration_request(flags: Namespace, now: datetime) -> Payload:
    """Raises Trouble (usage)."""
    request = {"migration_id": flags.migration_id}
    return _checked("cancel_migration", {**request, **_flagged(flags, ENVELOPE)}, now)


def extend_request(flags: Namespace, now: datetime) -> Payload:
    """Raises Trouble (usage)."""
    request = {"volume_id": flags.volume_id, "size_bytes": flags.size_bytes}
    if flags.connection_info is not None:
        request["connection_info"] = _connection_info(flags.connection_info)
    return _checked("extend", {**request, **_flagged(flags, ENVELOPE)}, now)


def swap_request(
    flags: Namespace, now: datetime, look_up: Callable[[str], Mapping[str, Any] | None]
) -> Payload:
    """``look_up`` gives the agent's row of the attachment in place, for its generation and its
    instance. Raises Trouble (usage)."""
    filed = _given(flags)
    request = filed if "new" in filed else {"new": filed}
    row = look_up(flags.old_id) or {}
    place = {name: row[name] for name in ("instance_id", "multiattach") if name in row}
    new = _attachment(flags, {**place, **_mapping(request["new"], "new")})
    named = _named({"attachment_id": flags.old_id, "generation": row.get("generation")})
    wishes = _flagged(flags, ("sole_user", "bandwidth_bytes_per_second", "synchronous_writes"))
    filed = {**request, **named, **wishes, **_flagged(flags, ENVELOPE), "new": new}
    return _checked("swap", filed, now)


def iotune_request(
    flags: Namespace, now: datetime, look_up: Callable[[str], Mapping[str, Any] | None]
) -> Payload:
    """``look_up`` gives the agent's row of an attachment, for its generation. Raises Trouble."""
    if flags.unlimited == bool(flags.limits):
        raise usage("give the limits as NAME=VALUE, or --unlimited; nothing was sent")
    named = _named(
        {"attachment_id": flags.attachment_id}, look_up(flags.attachment_id), vars(flags)
    )
    named.pop("instance_id", None)
    request = {**named, "iotune": dict(_limit(text) for text in flags.limits)}
    return _checked("set_iotune", {**request, **_flagged(flags, ENVELOPE)}, now)


def _limit(text: str) -> tuple[str, int | str]:
    name, _, value = text.partition("=")
    return name, int(value) if value.isascii() and value.isdecimal() else value


def read_structure(name: str, stdin: TextIO | None = None) -> Payload:
    """The object in a JSON or YAML file; ``-`` is standard input.  Raises Trouble (usage)."""
    found = read_document(name, stdin)
    if not isinstance(found, dict):
        raise usage(f"{_where(name)} must hold one object with named fields; nothing was sent")
    return found


def read_document(name: str, stdin: TextIO | None = None) -> object:
    """Whatever is in a JSON or YAML file; ``-`` is standard input.  Raises Trouble (usage)."""
    try:
        text = (stdin or sys.stdin).read() if name == "-" else Path(name).read_text("utf-8")
        return _parse(text)
    except OSError as error:
        raise usage(f"{_where(name)} cannot be read: {error.strerror}; nothing was sent") from None
    except ValueError as error:
        raise usage(f"{_where(name)} is neither JSON nor YAML: {error}; nothing was sent") from None


def _where(name: str) -> str:
    return "standard input" if name == "-" else name


def _given(flags: Namespace) -> Payload:
    return {} if flags.file is None else read_structure(flags.file)


def _detach_form(filed: Payload) -> Payload:
    """The file of the attach serves as well: its attachment is sent along, its request_id is not,
    as that was the attach."""
    if "connection_info" in filed:
        return {"attachment": filed}
    if "attachment" in filed and "attachment_id" not in filed:
        return {"attachment": filed["attachment"]}
    return filed


def _named(*sources: object) -> Payload:
    """What identifies an attachment; later sources win."""
    return {
        name: source[name]
        for source in sources
        if isinstance(source, Mapping)
        for name in ("attachment_id", "instance_id", "generation")
        if source.get(name) is not None
    }


def _flagged(flags: Namespace, names: tuple[str, ...]) -> Payload:
    return {name: value for name in names if (value := getattr(flags, name, None)) is not None}


def _attachment(flags: Namespace, filed: Mapping[str, Any]) -> Payload:
    layers = (filed, _cinder_fields(flags), _flagged(flags, ATTACHMENT_FLAGS))
    attachment = {name: value for layer in layers for name, value in layer.items()}
    if flags.connection_info is not None:
        attachment["connection_info"] = _connection_info(flags.connection_info)
    disks = (*(layer.get("disk") or {} for layer in layers), _flagged(flags, DISK_FLAGS))
    disk = {name: value for layer in disks for name, value in _mapping(layer, "disk").items()}
    return {**attachment, "disk": disk} if disk else attachment


def _cinder_fields(flags: Namespace) -> Payload:
    if flags.from_cinder is None:
        return {}
    answer = read_structure(flags.from_cinder)
    try:
        return from_cinder(answer)
    except Invalid as error:
        raise usage(
            f"{flags.from_cinder} is no attachment of the volume service: {error}; nothing was sent"
        ) from None


def _connection_info(name: str) -> Payload:
    found = read_structure(name)
    if "data" not in found and "driver_volume_type" in found:
        raise usage(
            f"{name} is in the volume service's flat form: give it to --from-cinder instead of "
            "--connection-info; nothing was sent"
        )
    return _mapping(found.get("connection_info", found), f"connection_info in {name}")


def _mapping(value: object, name: str) -> Payload:
    if not isinstance(value, dict):
        raise usage(f"{name} must be an object with named fields; nothing was sent")
    return value


def _checked(verb: str, request: Payload, now: datetime) -> Payload:
    """With what every envelope needs."""
    complete = {
        "request_id": str(uuid.uuid4()),
        "not_after": rfc3339(now + VALID_FOR),
        **request,
    }
    try:
        COMMANDS[verb].parse(complete)
    except Invalid as error:
        raise _refused(error) from None
    return complete


def _refused(error: Invalid) -> Trouble:
    lines = "\n".join(f"  {line}" for line in error.detail.split("; "))
    return usage(f"the request is wrong, nothing was sent:\n{lines}")


class _JsonTypes(yaml.SafeLoader):
    """YAML with JSON's types: no dates, no ``yes`` and ``no``, no octal or sexagesimal numbers,
    so that an id or an address means what it says."""


_JsonTypes.yaml_implicit_resolvers = {}
for _tag, _pattern, _first in (
    ("null", r"null|~|", ["n", "~", ""]),
    ("bool", r"true|false", ["t", "f"]),
    ("int", r"-?(0|[1-9][0-9]*)", list("-0123456789")),
    ("float", r"-?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][-+]?[0-9]+)?", list("-0123456789")),
):
    _JsonTypes.add_implicit_resolver(
        f"tag:yaml.org,2002:{_tag}", re.compile(f"^(?:{_pattern})$"), _first
    )


def _parse(text: str) -> object:
    """Raises ValueError with the place of the fault, never with what stands there."""
    try:
        return json.loads(text)
    except ValueError:
        pass
    try:
        return yaml.load(text, Loader=_JsonTypes)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        place = f" in line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        raise ValueError(f"{error.problem}{place}") from None
    except yaml.YAMLError:
        raise ValueError("it holds characters that YAML does not allow") from None
