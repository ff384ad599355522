"""One operation as it is written down: what was asked, how far it is, what it learnt."""

from dataclasses import dataclass, field, replace
from typing import Any, Literal

from agent.model.attachment import Attachment
from agent.model.device import Device
from agent.model.outcome import CLOSED, Answer, Problem, State, StepState
from agent.model.request import rfc3339_of

Direction = Literal["forward", "undoing", "committed"]


@dataclass(frozen=True)
class Record:
    """``direction`` is durable: forward; undoing (never turns back); committed.

    ``position`` is the next step to apply. ``intended`` is the last step whose intent is written,
    -1 for none: what undoing begins with. ``executing`` is true from an intent until its step has
    returned, so a restart can tell that the agent died in it (``deaths`` counts those).
    ``promised`` is true while it counts as a user of its volume: from the intent to connect it
    until undoing begins. ``told`` is what the last notification of it said. ``away`` is the part of
    the host that it waits for.
    ``attachment`` is None for a detach of what this agent knows to be gone.
    """

    operation_id: str
    verb: str
    digest: str
    instance_id: str
    attachment_id: str
    volume_id: str | None
    attachment: Attachment | None
    steps: tuple[str, ...]
    commit: int
    created_at: float
    not_after: float
    sequence: int = 0
    generation: int | None = None
    deadline_at: float | None = None
    state: State = "accepted"
    direction: Direction = "forward"
    position: int = 0
    intended: int = -1
    executing: bool = False
    deaths: int = 0
    failures: int = 0
    promised: bool = False
    told: str | None = None
    away: str | None = None
    cancel_wanted: bool = False
    known: dict[str, Any] = field(default_factory=dict)
    waiting_for: str | None = None
    wake_at: float | None = None
    cause: Problem | None = None
    trouble: Problem | None = None
    result: dict[str, Any] | None = None
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
    def promises(self) -> bool:
        """Does it count as a user of its volume?"""
        return self.open and self.promised

    @property
    def device(self) -> Device | None:
        learnt = self.known.get("device")
        return None if learnt is None else Device.model_validate(learnt)

    def but(self, **changes: Any) -> "Record":
        return replace(self, **changes)

    def answer(self) -> Answer:
        return Answer(
            operation_id=self.operation_id,
            verb=self.verb,
            state=self.state,
            waiting_for=self.waiting_for,
            result=self.result,
            warnings=self.warnings,
            error=self.trouble or self.cause,
            steps=tuple(
                StepState(name=name, state=self._step_state(index))
                for index, name in enumerate(self.steps)
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
class Held:
    """An attachment that is in place (or whose detach is open): the journal's word for it."""

    attachment: Attachment
    operation_id: str
    device: Device | None
    disk: dict[str, Any]
    promised: bool = True

    def listed(self) -> dict[str, Any]:
        """For list_attachments: no storage credentials."""
        device = self.device
        return {
            "attachment_id": self.attachment.attachment_id,
            "instance_id": self.attachment.instance_id,
            "volume_id": self.attachment.volume_id,
            "generation": self.attachment.generation,
            "multiattach": self.attachment.multiattach,
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
