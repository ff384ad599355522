"""attachctl run in this process, with an agent that is played and a journal that is real."""

import io
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from oslo_config import cfg

from agent.bus.client import Refused, Unreachable
from agent.cli.main import run
from agent.journal.book import Book
from agent.journal.record import Held, Part, Record
from agent.journal.store import Journal
from agent.model.device import Device
from agent.model.moment import rfc3339_of
from agent.model.outcome import Answer, Problem
from agent.model.request import AttachmentFilters, ListOperations
from agent.service.queries import attachments, operations, quarantine
from tests.samples import attachment

HOST = "hypervisor-1"
NOW = 1_795_576_000.0

ATTACHMENTS = ("3b1f0c9e-52a4-4c7d-9a55-0d8f6f1f2a01", "9d2c7a14-8f0e-4f39-b1c3-5a7be4f6c502")
INSTANCES = ("efe8bba0-543c-4a3f-9f9b-93b15261973f", "0c6d7a51-2b7e-4ab9-8c92-c0f6a5c3d8e4")
VOLUME = "457b1507-2a57-481c-936b-79297ffddb5a"
PARKED = "6f1ed002-ab5e-4d59-8c8f-aa1f5d0b7c10"
UNDONE = "6f1ed7a7-4f6d-4e0b-9b1a-7d3e2f1a0c22"
DONE = "f00dfeed-1234-4321-8765-0a1b2c3d4e5f"
PASSWORD = "Tr0ub4dor-and-3"

PATH = "/dev/disk/by-id/wwn-0x60014051111222233334444555566667"
DEVICE = Device(
    path=PATH,
    identity={"wwn": "0x60014051111222233334444555566667"},
    size_bytes=10 << 30,
    device_info={"type": "block", "scsi_wwn": "360014051111222233334444555566667"},
)
ISCSI = {
    "driver_volume_type": "iscsi",
    "data": {
        "target_portal": "192.0.2.10:3260",
        "target_iqn": "iqn.2010-10.org.openstack:volume-457b1507",
        "target_lun": 0,
        "auth_method": "CHAP",
        "auth_username": "attacher",
        "auth_password": PASSWORD,
    },
}


class Clock:
    def now(self) -> float:
        return NOW

    def monotonic(self) -> float:
        return NOW


@pytest.fixture
def state_path(tmp_path: Path) -> Path:
    return tmp_path / "state"


WRITER = attachment(
    attachment_id=ATTACHMENTS[0],
    instance_id=INSTANCES[0],
    volume_id=VOLUME,
    multiattach=True,
    generation=3,
    connection_info=ISCSI,
)
READER = attachment(
    attachment_id=ATTACHMENTS[1],
    instance_id=INSTANCES[1],
    volume_id=VOLUME,
    multiattach=True,
    access_mode="ro",
    connection_info=ISCSI,
)
IO_ERRORS = {
    "errors": 312,
    "first_at": rfc3339_of(NOW - 7200),
    "last_at": rfc3339_of(NOW - 240),
    "action": "stop",
    "reason": "enospc",
}
ATTACH_STEPS = (
    "check-guest",
    "connect-volume",
    "verify-identity",
    "plug-disk",
    "plug-other-half",
    "note-in-domain",
)
DETACH_STEPS = ("check-disk", "unplug-disk", "forget-disk", "note-in-domain", "disconnect-volume")


def record(operation_id: str, verb: str, **different: Any) -> Record:
    """An operation on the reader's attachment."""
    fields: dict[str, Any] = {
        "digest": "",
        "instance_id": INSTANCES[1],
        "parts": (Part.of(READER, "joins" if verb == "attach" else "leaves"),),
        "not_after": NOW,
        **different,
    }
    return Record(operation_id, verb, **fields)


def undone_attach() -> Record:
    return record(
        UNDONE,
        "attach",
        steps=ATTACH_STEPS,
        commit=3,
        created_at=NOW - 7200,
        updated_at=NOW - 7190,
        state="undone",
        direction="undoing",
        known={"undo_from": 1},
        cause=Problem(
            code="connect-failed",
            retriable=True,
            detail="no portal of iqn.2010-10.org.openstack:volume-457b1507 answered",
        ),
    )


def parked_detach() -> Record:
    return record(
        PARKED,
        "detach",
        steps=DETACH_STEPS,
        commit=1,
        position=1,
        intended=1,
        created_at=NOW - 300,
        updated_at=NOW - 60,
        state="waiting",
        waiting_for="the guest to release vdc",
        wake_at=NOW + 60,
    )


@pytest.fixture
def journal(state_path: Path) -> Iterator[Journal]:
    """Two instances share a volume, one of them read-only and about to leave; older operations."""
    journal = Journal(state_path, Clock())

    def write(book: Book) -> None:
        disk = {"target_dev": "vdb", "alias": WRITER.alias}
        book.keep(Held(WRITER, DONE, DEVICE, disk, io_errors=IO_ERRORS))
        disk = {"target_dev": "vdc", "alias": READER.alias}
        book.keep(Held(READER, DONE, DEVICE, disk, promised=False))
        book.add(undone_attach())
        book.add(parked_detach())
        reason = f"{DEVICE.path}: wwn is 0x5000, expected 0x6001"
        book.quarantine("vol-left", DEVICE, reason, NOW - 86400 * 3)

    journal.write(write)
    yield journal
    journal.close()


def waiting(verb: str = "detach", **different: Any) -> Answer:
    fields = {
        "operation_id": PARKED,
        "verb": verb,
        "state": "waiting",
        "waiting_for": "the guest to release vdc",
        **different,
    }
    return Answer.model_validate(fields)


@dataclass
class PlayedAgent:
    """Lists what a journal holds; answers commands and waits from a script."""

    journal: Journal
    script: Iterable[Answer | BaseException] = ()
    audit_answer: dict[str, Any] = field(default_factory=dict)
    plan_answer: dict[str, Any] = field(default_factory=dict)
    locks: list[dict[str, Any]] = field(default_factory=list)
    sent: list[tuple[str, Any]] = field(default_factory=list)
    waits_seconds: list[float] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._script = deque(self.script)

    def _next(self) -> Answer:
        answer = self._script.popleft()
        if isinstance(answer, BaseException):
            raise answer
        return answer

    def command(self, verb: str, request: Mapping[str, Any]) -> Answer:
        self.sent.append((verb, request))
        return self._next()

    def wait(self, operation_id: str, timeout_seconds: float) -> Answer:
        self.waits_seconds.append(timeout_seconds)
        return self._next()

    def cancel_operation(self, operation_id: str) -> Answer:
        self.sent.append(("cancel", operation_id))
        return self._next()

    def abandon_operation(self, operation_id: str) -> Answer:
        self.sent.append(("abandon", operation_id))
        return self._next()

    def list_attachments(self, **filters: Any) -> list[dict[str, Any]]:
        asked = AttachmentFilters.parse(filters)
        return self.journal.read(lambda book: attachments(book, asked))

    def list_operations(
        self, *, limit: int | None = None, before: str | None = None, **filters: Any
    ) -> list[dict[str, Any]]:
        asked = ListOperations.parse({"filters": filters, "limit": limit, "before": before})
        return operations(self.journal.read, asked)

    def list_quarantine(self) -> list[dict[str, Any]]:
        return self.journal.read(quarantine)

    def release_quarantine(self, volume_id: str) -> dict[str, Any]:
        released = self.journal.write(lambda book: book.release(volume_id))
        return {"volume_id": volume_id, "released": released}

    def import_attachments(
        self, entries: Sequence[Mapping[str, Any]], *, dry_run: bool = True
    ) -> dict[str, Any]:
        """What has an id is importable, what has none is refused."""
        self.sent.append(("import", (entries, dry_run)))
        rows = [_import_row(entry["attachment"], dry_run=dry_run) for entry in entries]
        return {"dry_run": dry_run, "entries": rows}

    def list_locks(self) -> list[dict[str, Any]]:
        return self.locks

    def audit(self) -> dict[str, Any]:
        return self.audit_answer

    def plan(self, verb: str, request: Mapping[str, Any]) -> dict[str, Any]:
        self.sent.append((f"plan {verb}", request))
        return self.plan_answer

    def describe(self) -> dict[str, Any]:
        return {
            "host": HOST,
            "version": "1.0.0",
            "wire": "1.0",
            "verbs": ["attach", "detach"],
            "libvirt": "9.0.0",
            "qemu": "7.2.15",
            "missing": [],
            "unavailable": [],
            "warnings": ["notifications wait in the journal"],
            "multiattach": True,
            "open_operations": 1,
        }

    def get_connector(self, instance_id: str | None = None) -> dict[str, Any]:
        return {"host": HOST, "ip": "192.0.2.11", "initiator": "iqn.1993-08:1"}

    def get_instance(self, instance_id: str) -> dict[str, Any]:
        if instance_id not in INSTANCES:
            return {"instance_id": instance_id, "present": False}
        disk = {
            "alias": f"ua-{ATTACHMENTS[0]}",
            "attachment_id": ATTACHMENTS[0],
            "target_dev": "vdb",
            "serial": VOLUME,
            "source": PATH,
            "address": None,
            "shareable": True,
            "read_only": False,
            "live": True,
            "persistent": True,
        }
        by_hand = {
            **disk,
            "alias": "virtio-disk0",
            "attachment_id": None,
            "target_dev": "vda",
            "serial": None,
            "source": "/var/lib/images/database-1.qcow2",
            "shareable": False,
        }
        return {
            "instance_id": instance_id,
            "present": True,
            "name": "database-1",
            "state": "running",
            "persistent": True,
            "job": None,
            "disks": [by_hand, disk],
        }

    def get_operation(self, operation_id: str) -> Answer:
        raise Refused("unknown-operation", False, f"no operation {operation_id} is known here")

    def close(self) -> None:
        pass


def _import_row(attachment: Mapping[str, Any], *, dry_run: bool) -> dict[str, Any]:
    row = {name: attachment.get(name) for name in ("attachment_id", "instance_id", "volume_id")}
    if row["attachment_id"] is None:
        refusal = {
            "code": "wrong-device",
            "retriable": False,
            "detail": "the disk in the running guest is otherwise than the entry says: readonly is "
            "False, not True; nothing was touched: mend the entry (shareable is multiattach, "
            "readonly is access_mode), or the domain",
        }
        minted = "0ddf2bd9-9a29-5b1f-8a5b-3f4b6e0f7c11"
        refused = {"state": "refused", "disk": None, "device": None, "error": refusal}
        return {**row, "attachment_id": minted, **refused}
    disk = {"target_dev": "vdb", "alias": f"ua-{VOLUME}", "live": True, "persistent": True}
    state = "importable" if dry_run else "imported"
    return {**row, "state": state, "disk": disk, "device": {"path": PATH}, "error": None}


class AbsentAgent:
    """Whatever is asked: the broker is down."""

    def close(self) -> None:
        pass

    def __getattr__(self, _: str) -> Callable[..., Any]:
        def ask(*_: object, **__: object) -> Any:
            raise Unreachable("the broker at 192.0.2.1:5671 does not answer: is rabbitmq up?")

        return ask


@dataclass(frozen=True)
class Ran:
    """``seen`` is what a terminal shows: both streams, in their order."""

    code: int
    out: str
    err: str
    seen: str


class Stream(io.StringIO):
    def __init__(self, terminal: io.StringIO) -> None:
        super().__init__()
        self._terminal = terminal

    def write(self, text: str) -> int:
        self._terminal.write(text)
        return super().write(text)


Attachctl = Callable[..., Ran]


@pytest.fixture
def config_file(tmp_path: Path, state_path: Path) -> Path:
    file = tmp_path / "agent.conf"
    file.write_text(f"[DEFAULT]\nhost = {HOST}\nstate_path = {state_path}\n")
    return file


@pytest.fixture
def attachctl(config_file: Path, monkeypatch: pytest.MonkeyPatch) -> Attachctl:
    """attachctl(*words, agent=…): what it printed and how it ended."""
    monkeypatch.setenv("TZ", "UTC")
    monkeypatch.delenv("COLUMNS", raising=False)
    time.tzset()

    def call(*words: str, agent: Any) -> Ran:
        terminal = io.StringIO()
        out, err = Stream(terminal), Stream(terminal)
        argv = ["--config-file", str(config_file), *words]
        code = run(argv, cfg.ConfigOpts(), lambda *_, **__: agent, out, err, lambda: NOW)
        return Ran(code, out.getvalue(), err.getvalue(), terminal.getvalue())

    return call
