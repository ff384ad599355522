"""Two hundred random attaches and detaches of one volume over four guests, all at once."""

import random
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field

import pytest

from tests.functional.orchestrator import Orchestrator, wish
from tests.lab.guest import Guest
from tests.lab.loop_volume import LoopVolume

pytestmark = pytest.mark.real

PAIRS = 100


@dataclass
class Users:
    """Who has the volume for certain: attached by the agent's word, and not asked to let go."""

    since: dict[str, int] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _turn: int = 0

    def add(self, name: str) -> None:
        with self._lock:
            self._turn += 1
            self.since[name] = self._turn

    def remove(self, name: str) -> dict[str, int]:
        """The others."""
        with self._lock:
            self.since.pop(name, None)
            return dict(self.since)

    def still(self, before: dict[str, int]) -> list[str]:
        """Who of those has had it all the time."""
        with self._lock:
            return [name for name, turn in before.items() if self.since.get(name) == turn]

    def now(self) -> dict[str, int]:
        with self._lock:
            return dict(self.since)


@pytest.mark.timeout(600)
def test_nobody_loses_a_shared_volume_and_nothing_is_left_of_it(
    orchestrator: Orchestrator,
    guests: list[Guest],
    volume: LoopVolume,
    rounds: int,
    seed: int,
) -> None:
    users = Users()
    disconnects: list[bool] = []

    def come_and_go(number: int) -> None:
        guest, chance = guests[number], random.Random(f"{seed}-{number}")
        for turn in range(rounds * PAIRS // len(guests)):
            mode = chance.choice(("rw", "rw", "ro"))
            bus = chance.choice(("virtio", "scsi"))
            wanted = wish(guest, volume, multiattach=True, access_mode=mode, disk={"bus": bus})
            accepted = orchestrator.client.attach(wanted)
            if chance.random() < 0.7:
                assert orchestrator.finish(accepted).state == "done"
                users.add(guest.name)
                use(guest, volume, f"{number}-{turn}", offset_mib=number, writes=mode == "rw")
            others = users.remove(guest.name)
            is_disconnected = orchestrator.detached(wanted)["disconnected"]
            disconnects.append(is_disconnected)
            if is_disconnected:
                assert users.still(others) == [], f"{guest.name} took it from them"
            assert orchestrator.finish(accepted).state == "done"

    with (
        watching(lambda: assert_in_use(volume, users)),
        ThreadPoolExecutor(len(guests)) as crowd,
    ):
        for done in [crowd.submit(come_and_go, number) for number in range(len(guests))]:
            done.result()
    assert len(disconnects) == rounds * PAIRS
    assert False in disconnects, "they never shared it: this storm was none"


def use(guest: Guest, volume: LoopVolume, word: str, *, offset_mib: int, writes: bool) -> None:
    name = guest.wait_for_disk(volume.volume_id).name
    if writes:
        guest.write(name, word, offset_mib=offset_mib)
        assert guest.read(name, offset_mib=offset_mib) == word
    else:
        guest.read(name, offset_mib=offset_mib)


def assert_in_use(volume: LoopVolume, users: Users) -> None:
    """Whoever had the volume before and has it after we looked has it open: one QEMU each."""
    before = users.now()
    found = volume.users()
    assert len(found) >= len(users.still(before)), f"{found} are not {before}"


@contextmanager
def watching(look: Callable[[], None]) -> Iterator[None]:
    """Look again and again until the end; the first thing that is wrong is raised there."""
    over = threading.Event()

    def watch() -> None:
        while not over.wait(0.1):
            look()

    with ThreadPoolExecutor(1) as watcher:
        watched = watcher.submit(watch)
        try:
            yield
        finally:
            over.set()
        watched.result()
