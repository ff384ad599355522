"""The contract of ports.Domains on the simulated host: what sweeps build on is so."""

import itertools

import pytest

from agent.guest.xml import XmlElement
from tests.contract.domains import MIB, Bench, DomainsContract
from tests.world.domains import SimulatedDomains
from tests.world.instants import Instants
from tests.world.locks import SimulatedLocks

RUNNING, SHUT_OFF, TRANSIENT = (f"00000000-0000-4000-8000-00000000000{n}" for n in (1, 2, 3))


class TestSimulated(DomainsContract):
    @pytest.fixture
    def bench(self) -> Bench:
        sizes: dict[str, int] = {}

        def size_of(disk: XmlElement) -> int:
            source = disk.find("source")
            assert source is not None
            return sizes.get(source.get("dev", ""), MIB)

        domains = SimulatedDomains(
            Instants(),
            SimulatedLocks(),
            can_open=lambda source: True,
            canonical=lambda source: frozenset({source}),
            happened=lambda instance_id: None,
            size_of=size_of,
        )
        domains.add(RUNNING)
        domains.add(SHUT_OFF, runs=False)
        domains.add(TRANSIENT, is_persistent=False)
        numbers = itertools.count(1)

        def wait_released(instance_id: str, alias: str) -> None:
            domains.let_guests_act()

        return Bench(
            domains=domains,
            running=RUNNING,
            shut_off=SHUT_OFF,
            transient=TRANSIENT,
            make_volume=lambda: f"/dev/disk/by-id/wwn-{next(numbers)}",
            wait_released=wait_released,
            grow=sizes.__setitem__,
        )
