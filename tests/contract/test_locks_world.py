"""The contract of ports.Locks on the simulated host: all of it that one thread can show."""

import pytest

from agent.ports import Locks
from tests.contract.locks import LocksContract
from tests.world.locks import SimulatedLocks


class TestSimulated(LocksContract):
    @pytest.fixture
    def locks(self) -> Locks:
        return SimulatedLocks()
