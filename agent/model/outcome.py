"""What the agent answers: plain values, the same for every verb (docs/wire.rst)."""

from typing import Any, Literal

from agent.errors import AgentError
from agent.model.value import Value

State = Literal[
    "refused",
    "accepted",
    "running",
    "waiting",
    "done",
    "undone",
    "cancelled",
    "expired",
    "unsettled",
]

CLOSED: frozenset[State] = frozenset({"done", "undone", "cancelled", "expired"})


class Problem(Value):
    """Why: ``code`` is for programs, ``detail`` for people, ``retriable`` for both."""

    code: str
    retriable: bool
    detail: str

    @classmethod
    def of(cls, error: AgentError) -> "Problem":
        return cls(code=error.code, retriable=error.retriable, detail=error.detail)


class Progress(Value):
    """``rate`` is in units a second, over the last seconds. Of a migration alone: at what rate the
    guest undoes it by writing, and for how long it is expected to stand still."""

    done: int
    total: int
    unit: str
    rate: float | None = None
    eta_seconds: float | None = None
    dirty_rate: float | None = None
    downtime_milliseconds: int | None = None

    @property
    def percent(self) -> int:
        """Rounded down; of nothing it is all."""
        return 100 * self.done // self.total if self.total else 100


class StepState(Value):
    """``state``: planned, intended, done, reverted. ``attachment_id``: whose step it is, null for
    one of the whole operation."""

    name: str
    state: Literal["planned", "intended", "done", "reverted"]
    attachment_id: str | None = None


class Answer(Value):
    """The state of one operation. ``refused`` means: nothing journaled, nothing touched."""

    operation_id: str | None
    verb: str
    state: State
    waiting_for: str | None = None
    progress: Progress | None = None
    result: dict[str, Any] | list[Any] | None = None
    warnings: tuple[str, ...] = ()
    error: Problem | None = None
    steps: tuple[StepState, ...] = ()
    created_at: str | None = None
    updated_at: str | None = None

    @property
    def closed(self) -> bool:
        return self.state in CLOSED or self.state == "refused"

    def wire(self) -> dict[str, Any]:
        """Every field, also those that are null: callers index without asking."""
        return self.model_dump(mode="json")


def refused(verb: str, operation_id: str | None, error: AgentError) -> Answer:
    return Answer(operation_id=operation_id, verb=verb, state="refused", error=Problem.of(error))
