"""What is asked without changing anything on the host: the control topic's answers.

Of the journal only the quarantine changes, and what is taken over (service/imports)."""

import math
from collections.abc import Callable, Mapping
from functools import partial
from importlib.metadata import version
from operator import methodcaller
from typing import Any

from agent.admission.admit import Policy
from agent.errors import Unavailable, UnknownOperation
from agent.guest.halves import Halves, halves
from agent.journal.book import Book
from agent.journal.record import Record
from agent.journal.store import Journal
from agent.model.contract import WIRE_VERSION, arguments_of
from agent.model.guest_iscsi import initiator_name
from agent.model.moment import rfc3339_of
from agent.model.request import (
    OPERATIONS_AT_ONCE,
    AttachmentFilters,
    ConnectorOf,
    InstanceRef,
    ListAttachments,
    ListOperations,
    Nothing,
    OperationRef,
    PlanQuery,
    VolumeRef,
)
from agent.model.value import Value
from agent.operations import VERBS
from agent.ports import DomainLook, Host, dotted
from agent.service.audit import audit
from agent.service.imports import Imports
from agent.service.preview import preview
from agent.steps.guest_checks import refuse_no_initiator

Read = Callable[[Callable[[Book], Any]], Any]
"""Journal.read, or of a book that nobody else reads."""


class Queries:
    """Every answer is read anew from the journal or the host."""

    def __init__(
        self, host: Host, journal: Journal, policy: Policy, warnings: Callable[[], list[str]]
    ) -> None:
        self._host = host
        self._journal = journal
        self._policy = policy
        self._warnings = warnings
        self._answers: dict[str, Callable[[Any], dict[str, Any]]] = {
            "ping": self._ping,
            "describe": self._describe,
            "get_connector": self._connector,
            "get_instance": self._instance,
            "get_operation": self._operation,
            "list_operations": self._operations,
            "list_attachments": self._attachments,
            "plan": self._plan,
            "audit": self._audit,
            "list_locks": self._locks,
            "list_quarantine": self._quarantine,
            "release_quarantine": self._release,
            "import_attachments": Imports(host, journal, policy).answer,
        }

    def answer(self, name: str, arguments: Mapping[str, object]) -> dict[str, Any]:
        """Raises AgentError where there is no answer."""
        asked = arguments_of(name).parse(arguments)
        return self._answers[name](asked)

    def _ping(self, _: Nothing) -> dict[str, Any]:
        return {"host": self._host.name, "version": version("libvirt-attachment-agent")}

    def _describe(self, _: Nothing) -> dict[str, Any]:
        """What this agent can do. Parts that do not answer are named, and null."""
        abilities: dict[str, Any] = {"libvirt": None, "qemu": None, "missing": []}
        unavailable = []
        try:
            found = self._host.domains.capabilities()
            abilities = {
                "libvirt": dotted(found.libvirt),
                "qemu": dotted(found.qemu),
                "missing": list(found.missing),
            }
        except Unavailable as error:
            unavailable.append(error.detail)
        return {
            "host": self._host.name,
            "version": version("libvirt-attachment-agent"),
            "wire": WIRE_VERSION,
            "verbs": list(VERBS),
            **abilities,
            "unavailable": unavailable,
            "warnings": self._warnings(),
            "multiattach": self._policy.allow_multiattach,
            "bootable_multiattach": self._policy.allow_bootable_multiattach,
            "max_open_operations": self._policy.max_open_operations,
            "retention_seconds": self._policy.retention_seconds,
            "open_operations": self._journal.read(lambda book: book.count_open()),
        }

    def _connector(self, asked: ConnectorOf) -> dict[str, Any]:
        """Raises Unsupported where QEMU has no initiator of its own."""
        connector = dict(self._host.connectors.properties())
        if asked.instance_id is not None:
            refuse_no_initiator(self._host.domains.capabilities())
            connector.update(initiator=initiator_name(asked.instance_id), multipath=False)
        return {"connector": connector}

    def _instance(self, asked: InstanceRef) -> dict[str, Any]:
        look = self._host.domains.look(asked.instance_id)
        known = self._journal.read(lambda book: _aliases(book, asked.instance_id))
        return _instance(asked.instance_id, look, known)

    def _operation(self, asked: OperationRef) -> dict[str, Any]:
        record = self._journal.read(lambda book: known_operation(book, asked.operation_id))
        return record.answer().wire()

    def _operations(self, asked: ListOperations) -> dict[str, Any]:
        return {"operations": operations(self._journal.read, asked)}

    def _attachments(self, asked: ListAttachments) -> dict[str, Any]:
        return {"attachments": self._journal.read(lambda book: attachments(book, asked.filters))}

    def _plan(self, asked: PlanQuery) -> dict[str, Any]:
        return preview(asked.verb, asked.request, self._host, self._journal, self._policy)

    def _audit(self, _: Nothing) -> dict[str, Any]:
        return audit(self._host, self._journal)

    def _locks(self, _: Nothing) -> dict[str, Any]:
        return {"locks": held_locks(self._host)}

    def _quarantine(self, _: Nothing) -> dict[str, Any]:
        return {"quarantine": self._journal.read(quarantine)}

    def _release(self, asked: VolumeRef) -> dict[str, Any]:
        released = self._journal.write(lambda book: book.release(asked.volume_id))
        return {"volume_id": asked.volume_id, "released": released}


def held_locks(host: Host) -> list[dict[str, Any]]:
    """Ours and the storage library's."""
    return [dict(lock) for lock in (*host.locks.held(), *host.connectors.held_locks())]


def known_operation(book: Book, operation_id: str) -> Record:
    """Raises UnknownOperation."""
    record = book.operation(operation_id)
    if record is None:
        raise UnknownOperation(
            f"no operation {operation_id} is known here: it was never accepted, or closed longer "
            "than retention_seconds ago"
        )
    return record


def operations(read: Read, asked: ListOperations) -> list[dict[str, Any]]:
    """Answers with the ids that they are about, oldest first.  Raises UnknownOperation."""
    filters = asked.filters.model_dump()
    missing = math.inf if asked.limit is None else asked.limit
    before = asked.before and read(partial(known_operation, operation_id=asked.before)).sequence
    found: list[dict[str, Any]] = []
    while missing:
        limit = int(min(missing, OPERATIONS_AT_ONCE))
        page = read(methodcaller("operations", before=before, limit=limit, **filters))
        found = [*map(_listed, page), *found]
        missing = missing - limit if len(page) == limit else 0
        before = page[0].sequence if page else None
    return found


def attachments(book: Book, filters: AttachmentFilters) -> list[dict[str, Any]]:
    newest = book.newest_generations()
    rows = (
        {**held.listed(), "newest_generation": newest.get(held.attachment.attachment_id)}
        for held in book.attachments()
    )
    return [row for row in rows if _matches(row, filters)]


def quarantine(book: Book) -> list[dict[str, Any]]:
    """What the device is known by, and not os-brick's own notes of it."""
    return [
        {
            "volume_id": volume_id,
            "device": {name: row["device"][name] for name in ("path", "identity", "size_bytes")},
            "reason": row["reason"],
            "at": rfc3339_of(row["at"]),
        }
        for volume_id, row in book.quarantined().items()
    ]


def _aliases(book: Book, instance_id: str) -> dict[str, str]:
    """{alias: attachment_id} of what this agent has plugged, or is about to."""
    coming = (part.attachment for record in book.open_operations() for part in record.parts)
    held = (held.attachment for held in book.attachments())
    return {
        attachment.alias: attachment.attachment_id
        for attachment in (*coming, *held)
        if attachment is not None and attachment.instance_id == instance_id
    }


def _instance(
    instance_id: str, look: DomainLook | None, known: Mapping[str, str]
) -> dict[str, Any]:
    """Present, state, persistent, job, and every disk, live or defined."""
    both = None if look is None else halves(look)
    return {
        "instance_id": instance_id,
        "present": look is not None,
        "name": look and look.name,
        "state": look and look.state,
        "persistent": None if look is None else look.inactive_xml is not None,
        "job": look and look.job,
        "disks": [] if both is None else _disks(both, known),
    }


def _disks(both: Halves, known: Mapping[str, str]) -> list[dict[str, Any]]:
    """One disk by a user's alias, others by their target name; the running half's word.

    Whose it is says the journal, else the domain's metadata: an alias alone proves nothing."""
    noted = {
        alias: note.attachment_id
        for half in (both.inactive, both.live)
        if half is not None
        for alias, note in half.notes.items()
    }
    ours = {**noted, **known}
    live, defined = (
        {} if half is None else {disk.alias or disk.target_dev: disk for disk in half.disks}
        for half in (both.live, both.inactive)
    )
    return [
        {
            "alias": disk.libvirt_alias,
            "attachment_id": ours.get(disk.mark),
            "target_dev": disk.target_dev,
            "bus": disk.bus,
            "device": disk.device,
            "serial": disk.serial,
            "source": disk.source,
            "address": disk.address,
            "shareable": disk.shareable,
            "read_only": disk.read_only,
            "live": name in live,
            "persistent": name in defined,
        }
        for name, disk in sorted({**defined, **live}.items(), key=lambda item: item[1].target_dev)
    ]


def _listed(record: Record) -> dict[str, Any]:
    return {
        **record.answer().wire(),
        "open": record.open,
        **record.subject_ids(),
        "migration_id": record.known.get("migration_id"),
    }


def _matches(row: Mapping[str, Any], filters: Value) -> bool:
    wanted = filters.model_dump(exclude_none=True)
    return all(row.get(name) == value for name, value in wanted.items())
