"""The other hypervisor, at the end of the road: its domains, and what its agent says of them.

No agent of ours runs there: that one's part is told by whoever tells the story.
"""

from collections.abc import Mapping
from typing import Any

from agent.errors import Unavailable
from agent.ports import Sighting
from tests.world.domains import SimulatedDomains
from tests.world.instants import Instants
from tests.world.locks import SimulatedLocks
from tests.world.road import Road, RoadMigrations

FAR_HOST = "far"
FAR_URI = "qemu://far/system"


class Far:
    """Implements ports.Peers. ``is_silent``: the agent there does not answer. ``lacks``: sources
    that its QEMU does not find."""

    def __init__(self, instants: Instants, road: Road) -> None:
        self._instants = instants
        self.is_silent = False
        self.lacks: frozenset[str] = frozenset()
        self.domains = SimulatedDomains(
            Instants(),
            SimulatedLocks(),
            can_open=lambda source: source not in self.lacks,
            canonical=lambda source: frozenset({source}),
            happened=lambda _instance_id: None,
        )
        self.migrations = RoadMigrations(Instants(), self.domains, road, FAR_URI)

    # ports.Peers

    def look(self, host: str, instance_id: str) -> Sighting:
        return self._instants.call(
            "look at peer", lambda: self._look(host, instance_id), part=f"the agent of {host}"
        )

    def _look(self, host: str, instance_id: str) -> Sighting:
        if self.is_silent or self.domains.is_away or host != FAR_HOST:
            raise Unavailable(f"the agent of {host}", "simulated: silence")
        found = self.domains.look(instance_id)
        return Sighting(state=None) if found is None else Sighting(found.state, found.job)

    # what survives the agent

    def outline(self) -> list[object]:
        return [self.is_silent, sorted(self.lacks), self.domains.outline()]

    def image(self) -> dict[str, Any]:
        image = {"is_silent": self.is_silent, "lacks": self.lacks}
        return {**image, "domains": self.domains.image()}

    def restore(self, image: Mapping[str, Any]) -> None:
        self.is_silent, self.lacks = image["is_silent"], image["lacks"]
        self.domains.restore(image["domains"])
