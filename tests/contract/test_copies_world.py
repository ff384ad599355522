"""The contract of ports.Copies on the simulated host: what sweeps build on is so."""

import itertools
from collections.abc import Callable

import pytest

from agent.guest.xml import XmlElement
from tests.contract.copies import CopiesContract, CopyBench
from tests.world.copies import TURNS, SimulatedCopies
from tests.world.domains import SimulatedDomains, slice_bytes, source_of
from tests.world.instants import Instants
from tests.world.locks import SimulatedLocks

RUNNING, SHUT_OFF, TRANSIENT = (f"00000000-0000-4000-8000-00000000000{n}" for n in (1, 2, 3))


class TestSimulated(CopiesContract):
    @pytest.fixture
    def bench(self) -> CopyBench:
        sizes: dict[str, int] = {}

        def size_of(disk: XmlElement) -> int:
            return slice_bytes(disk) or sizes[source_of(disk) or ""]

        instants = Instants()
        domains = SimulatedDomains(
            instants,
            SimulatedLocks(),
            can_open=lambda source: source in sizes,
            canonical=lambda source: frozenset({source}),
            happened=lambda instance_id: None,
            size_of=size_of,
        )
        copies = SimulatedCopies(instants, domains)
        domains.add(RUNNING)
        domains.add(SHUT_OFF, runs=False)
        domains.add(TRANSIENT, is_persistent=False)
        numbers = itertools.count(1)

        def make_volume(size_bytes: int) -> str:
            path = f"/dev/disk/by-id/wwn-{next(numbers)}"
            sizes[path] = size_bytes
            return path

        def wait(condition: Callable[[], bool], what: str) -> None:
            for _ in range(TURNS):
                copies.act()
            assert condition(), what

        def pause(is_paused: bool) -> None:
            copies.pace = "stalls" if is_paused else "goes"

        return CopyBench(
            domains=domains,
            copies=copies,
            running=RUNNING,
            shut_off=SHUT_OFF,
            transient=TRANSIENT,
            make_volume=make_volume,
            wait=wait,
            pause=pause,
        )
