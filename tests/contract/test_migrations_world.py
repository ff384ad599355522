"""The contract of ports.Migrations between two simulated hosts, and what sweeps need of them."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

import pytest

from agent.errors import MigrationFailed, TooLate
from agent.model.migration import Journey
from tests.contract.migrations import Bench, MigrationsContract
from tests.world.domains import SimulatedDomains
from tests.world.instants import Instants
from tests.world.locks import SimulatedLocks
from tests.world.road import Road, RoadMigrations

TRAVELLER = "00000000-0000-4000-8000-000000000001"

TURNS_AT_MOST = 50


@dataclass
class Two:
    """Two hosts, and the traveller on the first."""

    road: Road = field(default_factory=Road)
    stirred: Counter[str] = field(default_factory=Counter)
    can_open: bool = True

    def __post_init__(self) -> None:
        self.domains = {name: self._host(name) for name in ("one", "two")}
        self.ends = {
            name: RoadMigrations(Instants(), domains, self.road, f"qemu://{name}/system")
            for name, domains in self.domains.items()
        }
        self.domains["one"].add(TRAVELLER)

    def _host(self, name: str) -> SimulatedDomains:
        def happened(_instance_id: str) -> None:
            self.stirred[name] += 1

        return SimulatedDomains(
            Instants(),
            SimulatedLocks(),
            can_open=lambda source: self.can_open,
            canonical=lambda source: frozenset({source}),
            happened=happened,
        )

    def bench(self) -> Bench:
        self.road.pace = "stalls"

        def hurry() -> None:
            self.road.pace = "goes"

        def hold(name: str, *, is_held: bool) -> None:
            guest = self.domains[name].guests[TRAVELLER]
            guest.is_paused = guest.is_held = is_held

        def wait(is_so: Callable[[], bool], what: str) -> None:
            for _ in range(TURNS_AT_MOST):
                if is_so():
                    return
                self.road.act()
            pytest.fail(f"it is never so: {what}")

        return Bench(
            here=self.ends["one"],
            here_domains=self.domains["one"],
            there=self.ends["two"],
            there_domains=self.domains["two"],
            instance_id=TRAVELLER,
            there_uri="qemu://two/system",
            nowhere_uri="qemu://nowhere/system",
            hurry=hurry,
            wait=wait,
            stirred=lambda: self.stirred["one"],
            suspend=lambda: hold("one", is_held=True),
            resume=lambda: hold("two", is_held=False),
        )


@pytest.fixture
def two() -> Two:
    return Two()


@pytest.fixture
def bench(two: Two) -> Bench:
    return two.bench()


class TestSimulated(MigrationsContract):
    @pytest.fixture
    def bench(self, two: Two) -> Bench:
        return two.bench()


def test_another_life_sees_it_and_is_told_of_its_end_alone(two: Two, bench: Bench) -> None:
    bench.start()
    two.ends["one"].forget()
    assert bench.here.progress(TRAVELLER) is not None
    heard = bench.stirred()
    bench.here.abort(TRAVELLER)
    bench.wait_over()
    bench.assert_runs_here()
    assert bench.here.refusal(TRAVELLER) is None
    assert bench.stirred() == heard, "libvirt sends the source no event"


def test_what_is_transient_stays_so(two: Two, bench: Bench) -> None:
    two.domains["one"].add(TRAVELLER, is_persistent=False)
    bench.start()
    bench.hurry()
    bench.wait_over()
    there = bench.look_there()
    assert there is not None
    assert there.inactive_xml is None


def test_over_a_road_that_is_cut_each_side_gives_up_by_itself(two: Two, bench: Bench) -> None:
    bench.start()
    two.road.is_cut = True
    bench.wait_over()
    here, there = bench.look_here(), bench.look_there()
    assert here is not None
    assert there is not None
    assert (here.state, here.job) == ("running", None)
    assert (there.state, there.job) == ("paused", "incoming migration"), "it does not know yet"
    bench.wait(lambda: bench.look_there() is None, "the destination notices")
    assert isinstance(bench.here.refusal(TRAVELLER), MigrationFailed)


def cut_post_copy(two: Two, bench: Bench) -> Journey:
    bench.start(post_copy=True)
    journey = bench.journey()
    bench.here.start_post_copy(TRAVELLER)
    two.road.is_cut = True
    two.road.act()
    progress = bench.here.progress(TRAVELLER)
    assert progress is not None
    assert progress.phase == "postcopy-failed"
    return journey


def test_a_post_copy_that_was_cut_goes_on_by_itself(two: Two, bench: Bench) -> None:
    journey = cut_post_copy(two, bench)
    with pytest.raises(TooLate):
        bench.here.abort(TRAVELLER)
    there = bench.look_there()
    assert there is not None
    assert there.state == "running"
    bench.here.resume_post_copy(TRAVELLER, journey)
    assert not two.road.act(), "the road is still cut"
    two.road.is_cut = False
    bench.here.resume_post_copy(TRAVELLER, journey)
    assert "still" in bench.here.refusal(TRAVELLER).detail  # type: ignore[union-attr]
    bench.hurry()
    bench.wait_over()
    bench.assert_runs_there()


def test_a_post_copy_that_qemu_gave_up_goes_on_when_it_is_asked_to(two: Two, bench: Bench) -> None:
    journey = cut_post_copy(two, bench)
    two.road.trips[TRAVELLER].is_lost = True
    two.road.is_cut = False
    bench.hurry()
    assert not two.road.act(), "nobody has asked"
    bench.here.resume_post_copy(TRAVELLER, journey)
    bench.wait_over()
    bench.assert_runs_there()


def test_a_destination_that_cannot_open_the_disk_refuses(two: Two, bench: Bench) -> None:
    two.domains["one"].plug(
        TRAVELLER,
        "<disk type='block' device='disk'><alias name='ua-a'/><source dev='/dev/v'/>"
        "<target dev='vda' bus='virtio'/></disk>",
    )
    two.can_open = False
    bench.here.start(TRAVELLER, bench.journey())
    bench.wait_over()
    bench.assert_runs_here()
    refusal = bench.here.refusal(TRAVELLER)
    assert refusal is not None
    assert "No such file" in refusal.detail


def test_what_goes_survives_the_agents(two: Two, bench: Bench) -> None:
    bench.start()
    image, domains = two.road.image(), {name: d.image() for name, d in two.domains.items()}
    again = Two()
    again.road.restore(image)
    for name, found in domains.items():
        again.domains[name].restore(found)
    assert again.road.outline() == two.road.outline()
    later = again.bench()
    assert later.here.progress(TRAVELLER) == bench.here.progress(TRAVELLER)
    later.hurry()
    later.wait_over()
    later.assert_runs_there()
    assert bench.here.progress(TRAVELLER) is not None, "the other world is another"
