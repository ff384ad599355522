"""The other hypervisor, at the end of the road: its domains, and what its agent says of them.

No agent of ours runs there: that one's part is told by whoever tells the story.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, TypeVar

from agent.model.attachment import Attachment
from agent.operations import VERBS
from agent.ports import Prepared, Readiness, Sighting
from tests.world.copied import copied
from tests.world.domains import SimulatedDomains
from tests.world.instants import Instants
from tests.world.locks import SimulatedLocks
from tests.world.road import Road, RoadMigrations

Answer = TypeVar("Answer")

FAR_HOST = "far"
FAR_URI = "qemu://far/system"

_SAME = ("is_silent", "lacks", "leased", "otherwise", "shows", "given_up", "verbs")


class Far:
    """Implements ports.Peers. ``is_silent``: the agent there does not answer. ``lacks``: sources
    that its QEMU does not find. ``leased``: what it has prepared, {attachment: migration}.
    ``otherwise``: what of those is not as it is here, as fields of Prepared. ``shows``: bytes that
    volumes of those have there. ``given_up``: migrations from there that have failed."""

    def __init__(
        self, instants: Instants, road: Road, here: Callable[[str], Attachment | None]
    ) -> None:
        """``here`` tells an attachment of this host."""
        self._instants = instants
        self._here = here
        self.is_silent = False
        self.lacks: frozenset[str] = frozenset()
        self.leased: dict[str, str] = {}
        self.otherwise: dict[str, dict[str, Any]] = {}
        self.shows: dict[str, int] = {}
        self.given_up: frozenset[str] = frozenset()
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
        return self._call("look at peer", host, lambda: self._sighting(instance_id))

    def readiness(self, host: str, instance_id: str) -> Readiness | None:
        def ask() -> Readiness:
            seen = self._sighting(instance_id)
            prepared = {
                one: self._prepared(here, migration_id)
                for one, migration_id in self.leased.items()
                if (here := self._here(one)) is not None
            }
            return Readiness(self.verbs, self.domains.libvirt, seen, prepared)

        return self._call("ask whether a peer is ready", host, ask)

    def has_given_up(self, host: str, instance_id: str, migration_id: str) -> bool | None:
        def ask() -> bool:
            return migration_id in self.given_up

        return self._call("ask whether a peer has given up", host, ask)

    def _prepared(self, here: Attachment, migration_id: str) -> Prepared:
        one = here.attachment_id
        same = Prepared(
            migration_id,
            self.shows.get(one, 0),
            here.volume_id,
            here.multiattach,
            "ro" if here.read_only else "rw",
        )
        return replace(same, **self.otherwise.get(one, {}))

    def _sighting(self, instance_id: str) -> Sighting:
        found = self.domains.look(instance_id)
        return Sighting(state=None) if found is None else Sighting(found.state, found.job)

    def _call(self, name: str, host: str, ask: Callable[[], Answer]) -> Answer | None:
        def answer() -> Answer | None:
            is_away = self.is_silent or self.domains.is_away or host != FAR_HOST
            return None if is_away else ask()

        return self._instants.call(name, answer, part=f"the agent of {host}")

    # what survives the agent

    def outline(self) -> list[object]:
        told = [self.is_silent, self.leased, self.shows, sorted(self.lacks), sorted(self.given_up)]
        return [*told, self.domains.outline()]

    def image(self) -> dict[str, Any]:
        own = {name: copied(getattr(self, name)) for name in _SAME}
        return {**own, "domains": self.domains.image()}

    def restore(self, image: Mapping[str, Any]) -> None:
        for name in _SAME:
            setattr(self, name, copied(image[name]))
        self.domains.restore(image["domains"])
