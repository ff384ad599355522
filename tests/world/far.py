"""The other hypervisor, at the end of the road: its domains, and what its agent says of them.

No agent of ours runs there: that one's part is told by whoever tells the story.
"""

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from agent.operations import VERBS
from agent.ports import PeerAbilities, Sighting
from tests.world.domains import SimulatedDomains
from tests.world.instants import Instants
from tests.world.locks import SimulatedLocks
from tests.world.road import Road, RoadMigrations

Answer = TypeVar("Answer")

FAR_HOST = "far"
FAR_URI = "qemu://far/system"


class Far:
    """Implements ports.Peers. ``is_silent``: the agent there does not answer. ``lacks``: sources
    that its QEMU does not find. ``leased``: what it has prepared, {attachment: migration}."""

    def __init__(self, instants: Instants, road: Road) -> None:
        self._instants = instants
        self.is_silent = False
        self.lacks: frozenset[str] = frozenset()
        self.leased: dict[str, str] = {}
        self.verbs = frozenset(VERBS)
        self.domains = SimulatedDomains(
            Instants(),
            SimulatedLocks(),
            can_open=lambda source: source not in self.lacks,
            canonical=lambda source: frozenset({source}),
            happened=lambda _instance_id: None,
        )
        self.migrations = RoadMigrations(Instants(), self.domains, road, FAR_URI)

    # ports.Peers

    def look(self, host: str, instance_id: str) -> Sighting | None:
        def ask() -> Sighting:
            found = self.domains.look(instance_id)
            return Sighting(state=None) if found is None else Sighting(found.state, found.job)

        return self._call("look at peer", host, ask)

    def abilities(self, host: str) -> PeerAbilities | None:
        able = PeerAbilities(self.verbs, self.domains.libvirt)
        return self._call("ask what a peer can", host, lambda: able)

    def prepared(self, host: str, instance_id: str) -> Mapping[str, str] | None:
        return self._call("ask what a peer has prepared", host, lambda: dict(self.leased))

    def _call(self, name: str, host: str, ask: Callable[[], Answer]) -> Answer | None:
        def answer() -> Answer | None:
            is_away = self.is_silent or self.domains.is_away or host != FAR_HOST
            return None if is_away else ask()

        return self._instants.call(name, answer, part=f"the agent of {host}")

    # what survives the agent

    def outline(self) -> list[object]:
        return [self.is_silent, sorted(self.lacks), self.leased, self.domains.outline()]

    def image(self) -> dict[str, Any]:
        same = {name: getattr(self, name) for name in ("is_silent", "lacks", "leased", "verbs")}
        return {**same, "domains": self.domains.image()}

    def restore(self, image: Mapping[str, Any]) -> None:
        for name in ("is_silent", "lacks", "leased", "verbs"):
            setattr(self, name, image[name])
        self.domains.restore(image["domains"])
