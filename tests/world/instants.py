"""The moments at which an agent can die, or be told that something failed."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal, TypeVar

from agent.errors import AgentError, Unavailable

Answer = TypeVar("Answer")

Fault = Literal["crash", "unavailable", "refused"]


class Crash(BaseException):
    """The agent is killed here. No ``except Exception`` of its own may see it."""


@dataclass
class Instants:
    """Numbers every instant and lets one fault happen where ``faults`` says so.

    ``watch`` is told of every instant before anything happens there, ``others_act`` lets others
    do to the host what they do then.
    """

    faults: dict[int, Fault] = field(default_factory=dict)
    watch: Callable[[str], None] = lambda name: None
    others_act: Callable[[str], None] = lambda name: None
    passed: list[str] = field(default_factory=list)
    possible: list[frozenset[Fault]] = field(default_factory=list)

    def call(
        self,
        name: str,
        effect: Callable[[], Answer],
        *,
        part: str,
        refusal: AgentError | None = None,
    ) -> Answer:
        """A call of a port: it may fail before its effect and after it; an error says neither."""
        self.reach(f"before {name}", part=part, refusal=refusal)
        answer = effect()
        self.reach(f"after {name}", part=part, refusal=refusal)
        return answer

    def reach(
        self, name: str, *, part: str | None = None, refusal: AgentError | None = None
    ) -> None:
        """One instant. Without ``part`` only death is possible here."""
        self.watch(name)
        self.others_act(name)
        self.passed.append(name)
        self.possible.append(_possible(part, refusal))
        fault = self.faults.get(len(self.passed) - 1)
        if fault == "crash":
            raise Crash(name)
        if fault == "unavailable" and part is not None:
            raise Unavailable(part, f"simulated, at instant {len(self.passed) - 1} {name}")
        if fault == "refused" and refusal is not None:
            raise refusal


def _possible(part: str | None, refusal: AgentError | None) -> frozenset[Fault]:
    return _POSSIBLE[part is not None, refusal is not None]


_POSSIBLE: dict[tuple[bool, bool], frozenset[Fault]] = {
    (False, False): frozenset({"crash"}),
    (True, False): frozenset({"crash", "unavailable"}),
    (False, True): frozenset({"crash", "refused"}),
    (True, True): frozenset({"crash", "unavailable", "refused"}),
}
