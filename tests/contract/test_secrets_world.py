"""The contract of ports.Secrets on the simulated host."""

import pytest

from tests.contract.secrets import SecretsContract
from tests.world.instants import Instants
from tests.world.secrets import SimulatedSecrets


class TestSimulated(SecretsContract):
    @pytest.fixture
    def secrets(self) -> SimulatedSecrets:
        return SimulatedSecrets(Instants(), lambda: False)
