"""The contract of ports.Domains on the simulated host: what sweeps build on is so."""

import itertools

import pytest

from tests.contract.domains import Bench, DomainsContract
from tests.world.domains import SimulatedDomains
from tests.world.instants import Instants
from tests.world.locks import SimulatedLocks

RUNNING, SHUT_OFF, TRANSIENT = (f"00000000-0000-4000-8000-00000000000{n}" for n in (1, 2, 3))


class TestSimulated(DomainsContract):
    @pytest.fixture
    def bench(self) -> Bench:
        domains = SimulatedDomains(
            Instants(),
            SimulatedLocks(),
            can_open=lambda source: True,
            canonical=lambda source: frozenset({source}),
            happened=lambda instance_id: None,
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
        )
