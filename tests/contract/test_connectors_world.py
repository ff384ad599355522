"""The contract of ports.Connectors on the simulated storage."""

import itertools
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import pytest

from agent.model.attachment import Attachment
from tests.contract.connectors import Bench, ConnectorsContract
from tests.world.instants import Instants
from tests.world.locks import SimulatedLocks
from tests.world.storage import Lun, SimulatedConnectors
from tests.world.story import TARGET, VOLUMES, attachment


class TestSimulated(ConnectorsContract):
    @pytest.fixture
    def bench(self) -> Bench:
        locks = SimulatedLocks()
        storage = SimulatedConnectors(Instants(), locks, in_use=lambda names: [])
        numbers = itertools.count(1)

        def make_volume() -> Attachment:
            number = next(numbers)
            storage.luns[TARGET, number] = Lun(VOLUMES[number - 1])
            return Attachment.parse(attachment(number, volume=number))

        def grow(volume: Attachment, size_bytes: int) -> None:
            number = int(volume.attachment_id.removeprefix("att-"))
            storage.luns[TARGET, number].size_bytes = size_bytes

        @contextmanager
        def locked(volume: Attachment) -> Iterator[None]:
            with ExitStack() as held:
                held.enter_context(locks.volume(volume.volume_id))
                held.enter_context(locks.targets(volume.connection.targets))
                yield

        return Bench(
            connectors=storage,
            make_volume=make_volume,
            hidden_volume=lambda: Attachment.parse(attachment(9, volume=9)),
            locked=locked,
            grow=grow,
        )
