"""Each call of the real adapter is made with its locks held: traced, by the locks' own word."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from agent.host.brick import BrickConnectors
from agent.host.locks import FileLocks
from agent.journal.store import Journal
from agent.model.attachment import Attachment
from agent.model.device import Device, Disconnected
from agent.ports import Host
from agent.saga.plan import Scene
from agent.steps.volume import ConnectVolume, DisconnectVolume
from tests.samples import attachment
from tests.unit.host.test_brick_calls import CASES, ISCSI, Bench, Case, wire
from tests.unit.host.test_brick_calls import bench as bench  # the fixture
from tests.world.world import VirtualClock, World


class TracedConnectors(BrickConnectors):
    """Writes down which locks are held when a call comes."""

    def __init__(self, locks: FileLocks, **options: Any) -> None:
        super().__init__(**options)
        self._held = locks.held
        self.calls: list[tuple[str, frozenset[str]]] = []

    def connect(self, attachment: Attachment) -> Device:
        self._trace("connect")
        return super().connect(attachment)

    def disconnect(self, attachment: Attachment, device: Device | None) -> Disconnected:
        self._trace("disconnect")
        return super().disconnect(attachment, device)

    def _trace(self, call: str) -> None:
        held = [lock["name"] for lock in self._held() if lock["holder"]]
        self.calls.append((call, frozenset(held)))


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    opened = Journal(tmp_path / "state", VirtualClock())
    yield opened
    opened.close()


@pytest.fixture
def world() -> Iterator[World]:
    empty = World()
    yield empty
    empty.close()


@pytest.mark.parametrize(
    "case", [ISCSI, *(case for case in CASES if case.name != "local")], ids=lambda case: case.name
)
def test_every_call_of_every_protocol(
    case: Case, bench: Bench, tmp_path: Path, journal: Journal, world: World
) -> None:
    locks = FileLocks(tmp_path / "held", timeout_seconds=5)
    connectors = TracedConnectors(locks, **bench.options(**case.options))
    clock = VirtualClock()
    host = Host(
        name="hypervisor-1",
        domains=world.domains,
        connectors=connectors,
        locks=locks,
        clock=clock,
        journal=journal,
        secrets=world.secrets,
        peers=world.far,
        migrations=world.migrations,
        copies=world.copies,
    )
    volume = attachment(**wire(bench, case), size_bytes=64 << 20)
    case.there(bench)
    known = ConnectVolume(volume).apply(Scene(host, "operation-1", {}))
    bench.brick.on_disconnect = bench.remove_everything
    ConnectVolume(volume).revert(Scene(host, "operation-1", known))
    DisconnectVolume(volume).apply(Scene(host, "operation-1", known))

    wanted = {f"volume:{volume.volume_id}", *(f"target:{t}" for t in volume.connection.targets)}
    assert connectors.calls == [
        ("connect", wanted),
        ("disconnect", wanted),
        ("disconnect", wanted),
    ]
    assert locks.held() == []
