"""A plan: reversible steps, one commit, then steps that only go forward (docs/plans.rst)."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

from agent.journal.book import Book
from agent.journal.record import Record, device_in
from agent.model.device import Device
from agent.model.outcome import Progress
from agent.ports import Host

Lane = Literal["guest", "peers", "scsi", "nvme", "mounts", "other"]
"""Where a step's calls run: a sick array, or a host whose agent does not answer, stops only its
lane, never the guests' steps."""

Learnt = Mapping[str, Any]
"""JSON-like; merged into what is known of the step's attachment, for later steps and the result.
``warnings``, a list of texts, go into the answer."""


@dataclass(frozen=True)
class Parked:
    """The step waits for the world: no thread, no lock. Woken by an event of the instance, or at
    ``wake_at`` (seconds since the epoch); then it is applied (or reverted) again.

    ``progress``: how far what it waits for has come, where somebody tells."""

    waiting_for: str
    wake_at: float
    learnt: Learnt = field(default_factory=dict)
    progress: Progress | None = None


@dataclass(frozen=True)
class Scene:
    """What a step works on: the host, whose turn it is, and what earlier steps learnt.

    ``known`` of the operation and of the step's own attachment; ``others`` of each attachment."""

    host: Host
    operation_id: str
    known: Learnt
    others: Mapping[str, Learnt] = field(default_factory=dict)

    @property
    def device(self) -> Device | None:
        """Of the step's own attachment."""
        return device_in(self.known)

    def since(self, learnt: str, now: float) -> float:
        """The moment that was learnt; now where none was, or where it is to come: then the clock
        has been set back."""
        known: float = self.known.get(learnt, now)
        return min(known, now)

    def device_of(self, attachment_id: str) -> Device | None:
        return device_in(self.others[attachment_id])


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
    """From its intent until undoing begins its attachment counts as a user of its volume."""

    @property
    def lane(self) -> Lane:
        return "guest"

    @property
    def targets(self) -> tuple[str, ...]:
        """What it asks of its lane, where that may be silent: one step runs after the other."""
        return ()

    @property
    def about(self) -> str | None:
        """The attachment whose part it reads and writes; None: the operation's own."""
        return None

    @property
    def turn(self) -> str | None:
        """The instance whose turn it needs; None: that of the operation's instance."""
        return None

    def beforehand(self, scene: Scene) -> Learnt:
        """What can be seen only until it is applied, and must not die with the agent: written with
        its first intent. Changes nothing."""
        return {}

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
    reached: ClassVar[str] = "has reached the guest"
    """Why it cannot be cancelled any more, as a part of a sentence."""

    def give_up(self, scene: Scene) -> Parked | None:
        """Before anybody asks whether it happened: what goes by itself is asked to end, and waited
        for. None: nothing goes."""
        return None

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
    result: Callable[[Record], dict[str, Any] | list[Any]]
    on_done: Closing

    @property
    def steps(self) -> tuple[Step, ...]:
        return (*self.reversible, self.commit, *self.onward)

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(step.name for step in self.steps)

    @property
    def subjects(self) -> tuple[str | None, ...]:
        return tuple(step.about for step in self.steps)

    @property
    def commit_position(self) -> int:
        return len(self.reversible)

    def next_step(self, record: Record) -> Step:
        """What is to be applied, reverted, or asked whether it happened, next."""
        turns = record.direction == "forward" and record.cause is not None
        if turns and record.intended >= self.commit_position:
            return self.commit
        return self.steps[max(0, record.current)]

    def turn(self, record: Record) -> str:
        """Whose turn that needs: an instance's, or one that nobody else asks for."""
        return self.next_step(record).turn or record.instance_id or record.operation_id

    def place(self, record: Record) -> tuple[Lane, tuple[str, ...], str]:
        """Where that is to run: in which lane, behind what else of its targets, in whose turn."""
        step = self.next_step(record)
        return step.lane, step.targets, self.turn(record)

    def touched(self, intended: int) -> bool:
        """May the host have been changed, where ``intended`` is the last intent?"""
        return any(not step.only_looks for step in self.steps[: intended + 1])

    def irrevocable(self, intended: int) -> bool:
        """Can it only go forward, where ``intended`` is the last intent?"""
        return self.commit.irrevocable and intended >= self.commit_position
