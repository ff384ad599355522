"""ports.Migrations between two simulated hosts, with what libvirt 9.0 and QEMU 7.2 were seen to do.

What goes, goes by itself, turn by turn (``Road.act``), whoever watches it: it survives an agent.
Each host's end (``Migrations``) has one life of an agent at a time, and forgets with it.

* at first only the source knows of it; then the destination has a domain, paused and transient,
  which becomes persistent when it has arrived, or with a post-copy
* the source's domain stands for the switch-over, and is gone with the end; numbers of it have those
  who were told of the end, and the destination's libvirt
* who has not asked is told nothing of a failure
* what somebody has paused goes like any other, and is paused over there
* over a road that is cut each side gives up by itself, the destination later
* in post-copy only the libvirts do: QEMU fetches on when the road is mended, unless it was cut for
  so long that QEMU gave up as well. Then it waits to be told, and not before libvirt tells it
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal, TypeVar

from lxml import etree

from agent.errors import (
    AgentError,
    Invalid,
    MigrationFailed,
    TooLate,
    Unavailable,
    UnknownInstance,
)
from agent.model.migration import Journey, MigrationProgress, Phase
from tests.world.copied import copied
from tests.world.domains import Guest, SimulatedDomains
from tests.world.instants import Instants

Answer = TypeVar("Answer")

OUT, IN = "migration", "incoming migration"

TOTAL_BYTES = 1 << 28

POST_COPY: frozenset[str] = frozenset(("postcopy", "postcopy-failed"))

STATISTICS = {
    "elapsed_milliseconds": 9600,
    "downtime_milliseconds": 38,
    "setup_milliseconds": 1,
    "transferred_bytes": TOTAL_BYTES // 4,
    "total_bytes": TOTAL_BYTES,
    "iterations": 3,
}


@dataclass
class Trip:
    """One instance on its way. ``source`` and ``destination`` are the URIs of the ends.

    ``abandoned``: the source has given it up, and the destination does not know yet. ``is_lost``:
    in a post-copy QEMU has given up as well."""

    source: str
    destination: str
    journey: Journey
    phase: Phase = "setup"
    remaining_bytes: int = TOTAL_BYTES
    downtime_milliseconds: int | None = None
    abandoned: bool = False
    is_lost: bool = False


@dataclass
class Road:
    """``pace`` stalls: what goes stays in its phase. ``is_cut``: nothing passes."""

    hosts: dict[str, SimulatedDomains] = field(default_factory=dict)
    ends: dict[str, "RoadMigrations"] = field(default_factory=dict)
    trips: dict[str, Trip] = field(default_factory=dict)
    arrived: set[tuple[str, str]] = field(default_factory=set)
    pace: Literal["goes", "stalls"] = "goes"
    is_cut: bool = False

    def act(self) -> bool:
        """The next turn of everything that goes; did anything happen?"""
        turned = [self._turn(instance_id) for instance_id in list(self.trips)]
        return any(turned)

    def _turn(self, instance_id: str) -> bool:
        trip = self.trips[instance_id]
        if trip.abandoned:
            self._vanish_there(instance_id)
        elif self.is_cut and trip.phase in POST_COPY:
            if trip.phase == "postcopy-failed":
                return False
            trip.phase = "postcopy-failed"
            self.ends[trip.source].told(instance_id, _broken())
        elif self.is_cut or self.hosts[trip.destination].is_away:
            self.fail(instance_id, _broken())
        elif trip.phase == "setup":
            self._open(instance_id)
        elif trip.is_lost or self.pace == "stalls":
            return False
        elif trip.phase == "precopy":
            self._copy(instance_id)
        else:
            self._arrive(instance_id)
        return True

    def _open(self, instance_id: str) -> None:
        """QEMU over there opens what it is told to, before anything is copied."""
        trip = self.trips[instance_id]
        there = self.hosts[trip.destination]
        missing = [path for path in _sources(trip.journey.live_xml) if not there.can_open(path)]
        if instance_id in there.guests:
            self.fail(instance_id, MigrationFailed("simulated: the domain is there already"))
        elif missing:
            self.fail(instance_id, MigrationFailed(f"simulated: {missing[0]}: No such file"))
        else:
            here = self.hosts[trip.source].guests[instance_id]
            there.guests[instance_id] = Guest(
                instance_id,
                here.name,
                inactive=None,
                live=trip.journey.live_xml,
                is_paused=True,
                job=IN,
                attitude=here.attitude,
            )
            trip.phase = "precopy"
            there.happened(instance_id)
            self.hosts[trip.source].happened(instance_id)

    def _copy(self, instance_id: str) -> None:
        trip = self.trips[instance_id]
        trip.remaining_bytes //= 8
        if trip.remaining_bytes < TOTAL_BYTES >> 8:
            trip.phase = "switchover"
            self.hosts[trip.source].guests[instance_id].is_paused = True
        self.hosts[trip.source].happened(instance_id)

    def switch(self, instance_id: str) -> None:
        """To post-copy: from now on it runs over there, and nobody can call it back."""
        trip = self.trips[instance_id]
        here = self.hosts[trip.source].guests[instance_id]
        here.is_paused = True
        trip.phase = "postcopy"
        self._settle_there(instance_id, job=IN)
        self.hosts[trip.source].happened(instance_id)

    def _arrive(self, instance_id: str) -> None:
        self._settle_there(instance_id, job=None)
        trip = self.trips.pop(instance_id)
        del self.hosts[trip.source].guests[instance_id]
        self.arrived.add((trip.destination, instance_id))
        self.ends[trip.source].arrived(instance_id)
        self.hosts[trip.source].happened(instance_id)

    def _settle_there(self, instance_id: str, job: str | None) -> None:
        trip = self.trips[instance_id]
        here, there = self.hosts[trip.source], self.hosts[trip.destination]
        assert here.guests[instance_id].is_paused, f"{instance_id} would run twice"
        guest = there.guests[instance_id]
        guest.is_paused = guest.is_held = here.guests[instance_id].is_held
        guest.job = job
        guest.inactive = trip.journey.persistent_xml
        there.happened(instance_id)

    def fail(self, instance_id: str, why: AgentError) -> None:
        """It runs on at the source. The destination hears of it if the road is whole."""
        trip = self.trips[instance_id]
        assert trip.phase not in POST_COPY, "the guest runs over there"
        guest = self.hosts[trip.source].guests[instance_id]
        guest.is_back = guest.is_paused and not guest.is_held
        guest.job, guest.is_paused = None, guest.is_held
        trip.abandoned = True
        if not self.is_cut:
            self._vanish_there(instance_id)
        self.ends[trip.source].told(instance_id, why)

    def _vanish_there(self, instance_id: str) -> None:
        trip = self.trips.pop(instance_id)
        there = self.hosts[trip.destination]
        found = there.guests.get(instance_id)
        if found is not None and found.job == IN:
            del there.guests[instance_id]
            there.happened(instance_id)

    # what survives the agents

    def outline(self) -> list[object]:
        return [self.pace, self.is_cut, sorted(self.arrived), sorted(self.trips.items(), key=str)]

    def image(self) -> dict[str, object]:
        names = ("trips", "arrived", "pace", "is_cut")
        return {name: copied(getattr(self, name)) for name in names}

    def restore(self, image: Mapping[str, object]) -> None:
        for name, value in image.items():
            setattr(self, name, copied(value))


class RoadMigrations:
    """One host's end of the road; ``uri`` is what leads here."""

    def __init__(self, instants: Instants, domains: SimulatedDomains, road: Road, uri: str) -> None:
        self._instants = instants
        self._domains = domains
        self._road = road
        self._uri = uri
        road.hosts[uri], road.ends[uri] = domains, self
        self.forget()

    def forget(self) -> None:
        """The life of the agent is over: its calls, and what it was told."""
        self._asked: set[str] = set()
        self._refusals: dict[str, AgentError] = {}
        self._heard: set[str] = set()

    # ports.Migrations

    def descriptions(self, instance_id: str) -> tuple[str, str | None]:
        def ask() -> tuple[str, str | None]:
            guest = self._guest(instance_id)
            if guest.live is None:
                raise Unavailable("libvirt", "simulated: the domain does not run")
            return guest.live, guest.inactive

        return self._call("descriptions", ask)

    def start(self, instance_id: str, journey: Journey) -> None:
        def begin() -> None:
            guest = self._guest(instance_id)
            if self._trip(instance_id) is not None:
                return
            self._refusals.pop(instance_id, None)
            self._heard.discard(instance_id)
            self._asked.add(instance_id)
            if journey.libvirt_uri not in self._road.hosts or self._road.is_cut:
                self.told(instance_id, MigrationFailed("libvirt here does not reach the other"))
            elif guest.job is not None or guest.live is None:
                self.told(instance_id, MigrationFailed(f"simulated: the domain has {guest.job}"))
            else:
                guest.job = OUT
                self._road.trips[instance_id] = Trip(self._uri, journey.libvirt_uri, journey)

        self._change("start-migration", begin)

    def progress(self, instance_id: str) -> MigrationProgress | None:
        def ask() -> MigrationProgress | None:
            trip = self._trip(instance_id)
            if trip is None:
                return None
            if trip.phase == "setup" or trip.phase in POST_COPY:
                return MigrationProgress(phase=trip.phase)
            return MigrationProgress(
                phase=trip.phase,
                done_bytes=TOTAL_BYTES - trip.remaining_bytes,
                remaining_bytes=trip.remaining_bytes - 1,
                total_bytes=TOTAL_BYTES,
                rate_bytes_per_second=1 << 20,
                dirty_bytes_per_second=1 << 12,
                downtime_milliseconds=trip.downtime_milliseconds or 300,
            )

        return self._call("progress", ask)

    def refusal(self, instance_id: str) -> AgentError | None:
        return self._refusals.get(instance_id)

    def statistics(self, instance_id: str) -> Mapping[str, int]:
        def ask() -> Mapping[str, int]:
            is_known = instance_id in self._heard or (self._uri, instance_id) in self._road.arrived
            return STATISTICS if is_known else {}

        return self._call("statistics", ask)

    def abort(self, instance_id: str) -> None:
        def give_up(trip: Trip) -> None:
            if trip.phase in POST_COPY:
                raise TooLate("simulated: it runs over there")
            self._road.fail(instance_id, MigrationFailed("the migration was given up as asked"))

        self._while_it_goes("abort-migration", instance_id, give_up)

    def allow_downtime(self, instance_id: str, milliseconds: int) -> None:
        def allow(trip: Trip) -> None:
            trip.downtime_milliseconds = milliseconds

        self._while_it_goes("allow-downtime", instance_id, allow)

    def start_post_copy(self, instance_id: str) -> None:
        def switch(trip: Trip) -> None:
            if trip.phase in POST_COPY:
                return
            if trip.phase == "setup":
                raise Unavailable("libvirt", "simulated: the copy has not begun yet")
            if not trip.journey.options.post_copy:
                raise Invalid("post-copy was not allowed (options.post_copy)")
            self._road.switch(instance_id)

        self._while_it_goes("start-post-copy", instance_id, switch)

    def resume_post_copy(self, instance_id: str, journey: Journey) -> None:
        def resume(trip: Trip) -> None:
            if trip.phase != "postcopy-failed":
                return
            self._refusals.pop(instance_id, None)
            self._asked.add(instance_id)
            if self._road.is_cut:
                self.told(instance_id, _broken())
            elif not trip.is_lost:
                self.told(instance_id, MigrationFailed("simulated: QEMU is still running it"))
            else:
                trip.phase, trip.is_lost = "postcopy", False

        self._while_it_goes("resume-post-copy", instance_id, resume)

    def clear(self, instance_id: str) -> None:
        def remove() -> None:
            guest = self._domains.guests.get(instance_id)
            if guest is not None and guest.live is not None and not guest.is_paused:
                raise Unavailable("libvirt", "simulated: it runs here")
            self._domains.guests.pop(instance_id, None)

        self._change("clear-domain", remove)

    def pause(self, instance_id: str) -> None:
        def stand(trip: Trip) -> None:
            if trip.phase not in POST_COPY and not self._domains.guests[instance_id].is_held:
                self._domains.guests[instance_id].is_paused = True
                trip.phase = "switchover"

        self._while_it_goes("pause", instance_id, stand)

    # what this life is told

    def told(self, instance_id: str, why: AgentError) -> None:
        """The call that has moved it ends; if that was another life's, nobody hears."""
        if instance_id in self._asked:
            self._asked.discard(instance_id)
            self._refusals[instance_id] = why
            self._domains.happened(instance_id)

    def arrived(self, instance_id: str) -> None:
        self._asked.discard(instance_id)
        self._heard.add(instance_id)

    def _trip(self, instance_id: str) -> Trip | None:
        """From here, and not given up."""
        trip = self._road.trips.get(instance_id)
        is_ours = trip is not None and trip.source == self._uri and not trip.abandoned
        return trip if is_ours else None

    def _guest(self, instance_id: str) -> Guest:
        if instance_id not in self._domains.guests:
            raise UnknownInstance(f"libvirt on this host has no domain {instance_id}")
        return self._domains.guests[instance_id]

    def _while_it_goes(self, name: str, instance_id: str, act: Callable[[Trip], None]) -> None:
        def change() -> None:
            trip = self._trip(instance_id)
            if trip is not None:
                act(trip)

        self._change(name, change)

    def _change(self, name: str, effect: Callable[[], None]) -> None:
        refusal = MigrationFailed("simulated: libvirt does not like it")
        self._instants.call(name, lambda: self._answer(effect), part="libvirt", refusal=refusal)

    def _call(self, name: str, effect: Callable[[], Answer]) -> Answer:
        return self._instants.call(name, lambda: self._answer(effect), part="libvirt")

    def _answer(self, effect: Callable[[], Answer]) -> Answer:
        if self._domains.is_away:
            raise Unavailable("libvirt", "simulated: it is away")
        return effect()


def _broken() -> MigrationFailed:
    return MigrationFailed("the connection to the destination's libvirt broke")


def _sources(domain_xml: str) -> list[str]:
    found = etree.fromstring(domain_xml).iterfind("devices/disk/source")
    paths = (source.get("dev") or source.get("file") for source in found)
    return [path for path in paths if path]
