"""Many volumes come and go at once, on a target that they share and on targets of their own.

A guest writes to a neighbour of theirs, and verifies, throughout. One LUN never appears, and one
portal is slow. In CI 4 and 4 volumes in 2 rounds; ``tools/nested --storm``: 16 and 16 in 20.
"""

import random
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import pytest

from agent.bus.client import AgentClient
from agent.model.outcome import Answer
from tests.functional.orchestrator import Orchestrator, Wish
from tests.lab.guest import Guest, GuestRefused
from tests.lab.patience import LabError
from tests.nested.inside.guests import empty_guest
from tests.nested.inside.iscsi import PORTAL, SECOND_PORTAL, Backing, SlowPortal, Target
from tests.nested.inside.leftovers import scsi_disks, sessions
from tests.nested.inside.storage import Storage
from tests.nested.inside.wishes import wish

LONG = 3600.0
"""An end, not a measure: the last of many waits for all others."""
DELAY_MILLISECONDS = 40
PAUSE_SECONDS = 5.0
"""Between two turns of who writes: without it an emulated guest takes a processor for itself."""


@pytest.fixture
def empty_guests() -> Iterator[list[Guest]]:
    found = [empty_guest() for _ in range(2)]
    yield found
    for guest in found:
        guest.destroy()
        guest.undefine()


@contextmanager
def writing(guest: Guest, volume: Backing) -> Iterator[list[str]]:
    """A thread in which the guest writes and verifies; yields what it met."""
    disk = guest.wait_for_disk(volume.volume_id).name
    over, trouble = threading.Event(), list[str]()

    def work() -> None:
        number = 0
        while not over.is_set():
            number += 1
            try:
                guest.write(disk, f"turn-{number}", offset_mib=number % 8)
                assert guest.read(disk, offset_mib=number % 8) == f"turn-{number}"
            except (AssertionError, LabError, GuestRefused) as error:
                trouble.append(f"turn {number}: {error}")
                return
            over.wait(PAUSE_SECONDS)

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield trouble
    finally:
        over.set()
        thread.join()


class Timed:
    """How long operations took, alone and together."""

    def __init__(self, client: AgentClient) -> None:
        self._orchestrator = Orchestrator(client)
        self.seconds: list[float] = []

    def attach(self, wanted: Wish) -> Answer:
        return self._timed(lambda: self._orchestrator.client.attach(wanted))

    def detach(self, wanted: Wish) -> Answer:
        return self._timed(
            lambda: self._orchestrator.client.detach(wanted["attachment_id"], wanted["instance_id"])
        )

    def _timed(self, ask: Callable[[], Answer]) -> Answer:
        begun = time.monotonic()
        answer = self._orchestrator.finish(ask(), seconds=LONG)
        self.seconds.append(time.monotonic() - begun)
        return answer


@pytest.mark.timeout(6 * 3600)
@pytest.mark.usefixtures("single_path")
def test_storm(
    orchestrator: Orchestrator,
    client: AgentClient,
    guests: list[Guest],
    empty_guests: list[Guest],
    storage: Storage,
    request: pytest.FixtureRequest,
    capfd: pytest.CaptureFixture[str],
) -> None:
    many = request.config.getoption("--storm")
    count, rounds = (16, many) if many else (4, 2)
    chance = random.Random(request.config.getoption("--seed") or 1)
    shared, neighbour = storage.target(), storage.backing()
    shared.map(0, neighbour)
    places = [(storage.backing(), shared, 10 + 3 * number) for number in range(count)]
    for number in range(count):
        portal = SECOND_PORTAL if number == 0 else PORTAL
        places.append((storage.backing(), storage.target(portals=(portal,)), 0))
    for backing, target, lun in places:
        target.map(lun, backing)
    missing = (storage.backing(), shared, 200)
    held = wish(guests[0], neighbour, shared.connection_info(0))
    orchestrator.attached(held)
    alone, together, makespan = Timed(client), Timed(client), 0.0
    with SlowPortal(SECOND_PORTAL, DELAY_MILLISECONDS), writing(guests[0], neighbour) as trouble:
        for backing, target, lun in places[count - 1 : count + 2]:  # shared; own, slow; own
            single = wish(empty_guests[0], backing, target.connection_info(lun), disk=SCSI)
            assert alone.attach(single).state == "done"
            assert alone.detach(single).state == "done"
        single_seconds = sum(alone.seconds) / len(alone.seconds)
        for number in range(1, rounds + 1):
            begun = time.monotonic()
            one_round(together, chance, places, missing, empty_guests)
            makespan += time.monotonic() - begun
            assert trouble == []
            assert sessions() == {shared.iqn}, "a session was left, or the neighbour's was cut"
            assert len(scsi_disks()) == 1
            operations = len(together.seconds)
            with capfd.disabled():
                print(
                    f"storm, {number} rounds: {operations} operations in {makespan:.0f} s; alone "
                    f"each takes {single_seconds:.1f} s, all {operations * single_seconds:.0f} s",
                    flush=True,
                )
    assert trouble == []
    orchestrator.detached(held)


SCSI = {"bus": "scsi"}


def one_round(
    timed: Timed,
    chance: random.Random,
    places: list[tuple[Backing, Target, int]],
    missing: tuple[Backing, Target, int],
    guests: list[Guest],
) -> None:
    """Every volume comes to one guest or both, and goes, each in its own time."""
    jobs = [
        (guest, place) for place in places for guest in chance.sample(guests, chance.choice((1, 2)))
    ]
    chance.shuffle(jobs)

    def come_and_go(job: tuple[Guest, tuple[Backing, Target, int]]) -> None:
        guest, (backing, target, lun) = job
        wanted = wish(guest, backing, target.connection_info(lun), disk=SCSI)
        attached = timed.attach(wanted)
        assert attached.state == "done", attached
        detached = timed.detach(wanted)
        assert detached.state == "done", detached

    def never_appear() -> None:
        backing, target, lun = missing
        wanted = wish(guests[0], backing, target.connection_info(lun), disk=SCSI)
        answer = timed.attach(wanted)
        assert answer.error is not None
        assert (answer.state, answer.error.code) == ("undone", "lun-missing")

    with ThreadPoolExecutor(len(jobs) + 1) as pool:
        ends = [pool.submit(come_and_go, job) for job in jobs]
        ends.append(pool.submit(never_appear))
    for end in ends:
        end.result()
