"""One operation as it is written down: what was asked, how far it is, what it learnt."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from itertools import zip_longest
from typing import Any, Literal

from agent.model.attachment import Attachment
from agent.model.device import DEGRADED, Device
from agent.model.moment import rfc3339_of
from agent.model.outcome import CLOSED, Answer, Problem, Progress, State, StepState

Direction = Literal["forward", "undoing", "committed"]

Role = Literal["joins", "leaves", "yields", "stays"]
"""Does the attachment's volume come to this host by the operation, go from it, or neither?
``yields``: it goes if the operation is done; until then the attachment is in place."""


@dataclass(frozen=True)
class Part:
    """One attachment of an operation: what is asked of it, and what steps have learnt of it.

    ``attachment`` is None where this agent knows it to be gone. ``promised`` is true while it
    counts as a user of its volume: from the intent to connect it until undoing begins.
    """

    attachment_id: str
    instance_id: str
    volume_id: str | None
    attachment: Attachment | None
    role: Role
    generation: int | None = None
    promised: bool = False
    known: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, attachment: Attachment, role: Role) -> "Part":
        return cls(
            attachment_id=attachment.attachment_id,
            instance_id=attachment.instance_id,
            volume_id=attachment.volume_id,
            attachment=attachment,
            role=role,
            generation=attachment.generation,
        )

    @property
    def device(self) -> Device | None:
        return device_in(self.known)

    def but(self, **changes: Any) -> "Part":
        return replace(self, **changes)


def device_in(known: Mapping[str, Any]) -> Device | None:
    """The device, where connect has learnt it."""
    learnt = known.get("device")
    return None if learnt is None else Device.model_validate(learnt)


@dataclass(frozen=True)
class Record:
    """``direction`` is durable: forward; undoing (never turns back); committed.

    ``position`` is the next step to apply. ``intended`` is the last step whose intent is written,
    -1 for none: what undoing begins with. ``executing`` is true from an intent until its step has
    returned, so a restart can tell that the agent died in it (``deaths`` counts those).
    ``told`` is what the last notification of it said. ``away`` is the part of the host that it
    waits for. ``progress`` is how far that has come.

    ``parts`` are its attachments, each at most once; ``instance_id`` is None for an operation on
    several instances. ``subjects`` says of each step whose part it works on, ``known`` is what
    was learnt of the operation itself.
    """

    operation_id: str
    verb: str
    digest: str
    instance_id: str | None
    parts: tuple[Part, ...]
    steps: tuple[str, ...]
    commit: int
    created_at: float
    not_after: float
    sequence: int = 0
    subjects: tuple[str | None, ...] = ()
    deadline_at: float | None = None
    state: State = "accepted"
    direction: Direction = "forward"
    position: int = 0
    intended: int = -1
    executing: bool = False
    deaths: int = 0
    failures: int = 0
    told: str | None = None
    away: str | None = None
    cancel_wanted: bool = False
    known: dict[str, Any] = field(default_factory=dict)
    waiting_for: str | None = None
    wake_at: float | None = None
    progress: Progress | None = None
    cause: Problem | None = None
    trouble: Problem | None = None
    result: dict[str, Any] | list[Any] | None = None
    warnings: tuple[str, ...] = ()
    updated_at: float = 0.0

    @property
    def open(self) -> bool:
        return self.state not in CLOSED

    @property
    def parked(self) -> bool:
        return self.open and self.wake_at is not None

    @property
    def current(self) -> int:
        """The step that is next to be applied, or reverted."""
        return self.intended if self.direction == "undoing" else self.position

    @property
    def part(self) -> Part:
        """The only one, of a verb that takes one attachment."""
        (part,) = self.parts
        return part

    @property
    def attachments(self) -> tuple[Attachment, ...]:
        """As the request gave them."""
        return tuple(part.attachment for part in self.parts if part.attachment is not None)

    @property
    def attachment_ids(self) -> tuple[str, ...]:
        return tuple(part.attachment_id for part in self.parts)

    @property
    def instance_ids(self) -> tuple[str, ...]:
        own = () if self.instance_id is None else (self.instance_id,)
        return tuple(dict.fromkeys((*own, *(part.instance_id for part in self.parts))))

    @property
    def volume_ids(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(part.volume_id for part in self.parts if part.volume_id))

    @property
    def calls_off(self) -> tuple[str, ...]:
        """Operations that it has had cancelled, and whose end it waits for."""
        return tuple(self.known.get("calls_off", ()))

    def subject_ids(self) -> dict[str, Any]:
        """Whom it is about, as the wire says it: an id is null where there are several."""
        one = self.parts[0] if len(self.parts) == 1 else None
        return {
            "attachment_id": one and one.attachment_id,
            "instance_id": self.instance_id,
            "volume_id": self.volume_ids[0] if len(self.volume_ids) == 1 else None,
            "attachment_ids": list(self.attachment_ids),
            "instance_ids": list(self.instance_ids),
            "volume_ids": list(self.volume_ids),
        }

    def but(self, **changes: Any) -> "Record":
        return replace(self, **changes)

    def but_part(self, attachment_id: str, **changes: Any) -> "Record":
        return self.but(
            parts=tuple(
                part.but(**changes) if part.attachment_id == attachment_id else part
                for part in self.parts
            )
        )

    def but_parts(self, **changes: Any) -> "Record":
        """Every one of them."""
        return self.but(parts=tuple(part.but(**changes) for part in self.parts))

    def with_attachments_of(self, asked: "Record") -> "Record":
        """What was asked never changes, and some of it is in memory alone."""
        return self.but(
            parts=tuple(
                part.but(attachment=whole.attachment)
                for part, whole in zip(self.parts, asked.parts, strict=True)
            )
        )

    def known_of(self, attachment_id: str | None) -> dict[str, Any]:
        """What was learnt of one attachment, or of the operation itself."""
        if attachment_id is None:
            return self.known
        return next(part.known for part in self.parts if part.attachment_id == attachment_id)

    def learn(self, attachment_id: str | None, learnt: Mapping[str, Any]) -> "Record":
        """Of one attachment, or of the operation; ``warnings`` go into the answer, each once. A
        device that is looked at anew may have the paths that it lacked."""
        facts = {name: value for name, value in learnt.items() if name != "warnings"}
        whose = f"attachment {attachment_id}: " if attachment_id and len(self.parts) > 1 else ""
        is_seen_anew, stale = "device" in facts, f"{whose}{DEGRADED}"
        told = [text for text in self.warnings if not (is_seen_anew and text.startswith(stale))]
        warnings = (f"{whose}{warning}" for warning in learnt.get("warnings", ()))
        wiser = self.but(warnings=tuple(dict.fromkeys((*told, *warnings))))
        known = {**self.known_of(attachment_id), **facts}
        if attachment_id is None:
            return wiser.but(known=known)
        return wiser.but_part(attachment_id, known=known)

    def answer(self) -> Answer:
        return Answer(
            operation_id=self.operation_id,
            verb=self.verb,
            state=self.state,
            waiting_for=self.waiting_for,
            progress=self.progress,
            result=self.result,
            warnings=self.warnings,
            error=self.trouble or self.cause,
            steps=tuple(
                StepState(name=name, state=self._step_state(index), attachment_id=subject)
                for index, (name, subject) in enumerate(zip_longest(self.steps, self.subjects))
            ),
            created_at=rfc3339_of(self.created_at),
            updated_at=rfc3339_of(self.updated_at),
        )

    def _step_state(self, index: int) -> Literal["planned", "intended", "done", "reverted"]:
        if self.direction == "undoing":
            if index > self.known.get("undo_from", -1):
                return "planned"
            return "reverted" if index > self.intended else "intended"
        if index < self.position:
            return "done"
        return "intended" if index <= self.intended else "planned"


@dataclass(frozen=True)
class Lease:
    """For how long an attachment is kept for an instance that is to come by a migration.

    ``replaces``: its attachment where it comes from; ``source_host``: the agent there, None where
    nobody said; ``expires_at``: seconds since the epoch."""

    migration_id: str
    replaces: str
    source_host: str | None
    expires_at: float
    waiting_for: str | None = None

    def listed(self) -> dict[str, Any]:
        return {**asdict(self), "expires_at": rfc3339_of(self.expires_at)}


@dataclass(frozen=True)
class Held:
    """An attachment that is in place (or whose detach is open): the journal's word for it.

    ``operation_id`` is who put it there; None: somebody else, it was imported. ``io_errors``: what
    its guest met since, {errors, first_at, last_at, action, reason}. ``lease``: its instance is
    still to come."""

    attachment: Attachment
    operation_id: str | None
    device: Device | None
    disk: dict[str, Any]
    promised: bool = True
    io_errors: dict[str, Any] | None = None
    lease: Lease | None = None

    @property
    def awaits_domain(self) -> bool:
        """Its volume was only connected, for a domain that the caller defines."""
        return self.disk.get("live") is False and self.disk.get("persistent") is False

    def listed(self) -> dict[str, Any]:
        """For list_attachments: no storage credentials."""
        device = self.device
        return {
            "attachment_id": self.attachment.attachment_id,
            "instance_id": self.attachment.instance_id,
            "volume_id": self.attachment.volume_id,
            "generation": self.attachment.generation,
            "multiattach": self.attachment.multiattach,
            "initiator": self.attachment.initiator,
            "access_mode": "ro" if self.attachment.read_only else "rw",
            "driver_volume_type": self.attachment.connection.driver_volume_type,
            "targets": list(self.attachment.connection.targets),
            "device": device
            and {
                "path": device.path,
                "identity": device.identity,
                "size_bytes": device.size_bytes,
            },
            "paths_found": device and device.paths_found,
            "paths_expected": device and device.paths_expected,
            "disk": self.disk,
            "io_errors": self.io_errors,
            "lease": self.lease and self.lease.listed(),
            "operation_id": self.operation_id,
            "promised": self.promised,
        }


@dataclass(frozen=True)
class Fence:
    """What stays of an attachment that has ended.

    The generations ``newest`` seen and ``detached`` last; None: never given. Its volume and where
    that was on this host; None: written by an agent that did not keep it, or never connected."""

    newest: int | None
    detached: int | None
    volume_id: str | None = None
    source: str | None = None
