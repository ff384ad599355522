"""A plan: reversible steps, one commit, then steps that only go forward (design §5)."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

from agent.journal.book import Book
from agent.journal.record import Record
from agent.model.device import Device
from agent.ports import Host

Lane = Literal["guest", "scsi", "nvme", "mounts", "other"]
"""Where a step's calls run: a sick array stops only its lane, never the guests' steps."""

Learnt = Mapping[str, Any]
"""JSON-like; merged into the record's ``known``, for later steps and the result."""


@dataclass(frozen=True)
class Parked:
    """The step waits for the world: no thread, no lock. Woken by an event of the instance, or at
    ``wake_at`` (seconds since the epoch); then it is applied (or reverted) again."""

    waiting_for: str
    wake_at: float
    learnt: Learnt = field(default_factory=dict)


@dataclass(frozen=True)
class Scene:
    """What a step works on: the host, whose turn it is, and what earlier steps learnt."""

    host: Host
    operation_id: str
    known: Learnt

    @property
    def device(self) -> Device | None:
        learnt = self.known.get("device")
        return None if learnt is None else Device.model_validate(learnt)


@dataclass(frozen=True)
class Step:
    """One change to the host, idempotent both ways.

    ``apply`` adopts what is already so. ``revert`` is safe whether ``apply`` never ran, ran half
    way or finished. Neither has a ``try``: errors are the settler's.
    """

    name: ClassVar[str]
    optional: ClassVar[bool] = False
    only_looks: ClassVar[bool] = False
    """It changes nothing: an operation that got no further may still expire."""
    promises: ClassVar[bool] = False
    """From its intent until undoing begins the operation counts as a user of its volume."""

    @property
    def lane(self) -> Lane:
        return "guest"

    def apply(self, scene: Scene) -> Learnt | Parked:
        raise NotImplementedError

    def revert(self, scene: Scene) -> Parked | None:
        """Nothing to take back, unless the step says otherwise."""
        return None


@dataclass(frozen=True)
class Commit(Step):
    """The first half that reaches the guest. From here on the plan only goes forward."""

    irrevocable: ClassVar[bool] = False
    """Once intended, the guest may have been asked for what nobody can take back: the plan goes
    forward from the intent on, and nobody asks whether it happened."""

    def happened(self, scene: Scene) -> bool:
        """Is it so, by the host's word?  Raises Unavailable where that is unknown."""
        raise NotImplementedError


Closing = Callable[[Book, Record], None]


@dataclass(frozen=True)
class Plan:
    """``result`` shapes the answer; ``on_done`` changes the books in the closing transaction."""

    reversible: tuple[Step, ...]
    commit: Commit
    onward: tuple[Step, ...]
    result: Callable[[Learnt], dict[str, Any]]
    on_done: Closing

    @property
    def steps(self) -> tuple[Step, ...]:
        return (*self.reversible, self.commit, *self.onward)

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(step.name for step in self.steps)

    @property
    def commit_position(self) -> int:
        return len(self.reversible)

    def touched(self, intended: int) -> bool:
        """May the host have been changed, where ``intended`` is the last intent?"""
        return any(not step.only_looks for step in self.steps[: intended + 1])

    def irrevocable(self, intended: int) -> bool:
        """Can it only go forward, where ``intended`` is the last intent?"""
        return self.commit.irrevocable and intended >= self.commit_position
