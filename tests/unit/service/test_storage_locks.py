"""Each call of the real adapter is made with its locks held: traced, by the locks' own word."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from agent.host.brick import BrickConnectors
from agent.host.locks import FileLocks
from agent.journal.record import Held
from agent.journal.store import Journal
from agent.model.attachment import Attachment
from agent.model.device import Device, Disconnected
from agent.ports import Host
from agent.saga.plan import Scene
from agent.service.watch import Watch
from agent.steps.grow import ExtendVolume
from agent.steps.volume import ConnectVolume, DisconnectVolume
from tests.samples import attachment
from tests.unit.host.test_brick_calls import CASES, ISCSI, Bench, Case, wire
from tests.unit.host.test_brick_calls import bench as bench  # the fixture
from tests.world.world import VirtualClock, World

EXPORT, SUBSYSTEM = "192.0.2.40:/vols", "nqn.2014-08.org.nvmexpress:last"


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

    def extend(self, attachment: Attachment, device: Device) -> Device:
        self._trace("extend")
        return super().extend(attachment, device)

    def exports(self) -> list[str]:
        return [EXPORT]

    def leave(self, export: str) -> None:
        self._trace("leave")

    def leave_subsystem(self, device: Device) -> None:
        self._trace("leave subsystem")

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


def host_with(
    connectors: TracedConnectors, locks: FileLocks, journal: Journal, world: World
) -> Host:
    return Host(
        name="hypervisor-1",
        domains=world.domains,
        connectors=connectors,
        locks=locks,
        clock=VirtualClock(),
        journal=journal,
        secrets=world.secrets,
        peers=world.far,
        migrations=world.migrations,
        copies=world.copies,
    )


@pytest.mark.parametrize(
    "case", [ISCSI, *(case for case in CASES if case.name != "local")], ids=lambda case: case.name
)
def test_every_call_of_every_protocol(
    case: Case, bench: Bench, tmp_path: Path, journal: Journal, world: World
) -> None:
    locks = FileLocks(tmp_path / "held", timeout_seconds=5)
    connectors = TracedConnectors(locks, **bench.options(**case.options))
    host = host_with(connectors, locks, journal, world)
    volume = attachment(**wire(bench, case), size_bytes=64 << 20)
    case.there(bench)
    known = ConnectVolume(volume).apply(Scene(host, "operation-1", {}))
    held = Held(volume, "operation-1", Device.model_validate(known["device"]), {})
    journal.write(lambda book: book.keep(held))
    ExtendVolume((volume,), 1).apply(Scene(host, "operation-1", {}))
    journal.write(lambda book: book.drop(volume.attachment_id))
    bench.brick.on_disconnect = bench.remove_everything
    ConnectVolume(volume).revert(Scene(host, "operation-1", known))
    DisconnectVolume(volume).apply(Scene(host, "operation-1", known))

    wanted = {f"volume:{volume.volume_id}", *(f"target:{t}" for t in volume.connection.targets)}
    assert connectors.calls == [
        ("connect", wanted),
        ("extend", wanted),
        ("disconnect", wanted),
        ("disconnect", wanted),
    ]
    assert locks.held() == []


def test_every_call_that_nobody_asks_for(
    bench: Bench, tmp_path: Path, journal: Journal, world: World
) -> None:
    """What is left of an export, and of the last namespace of a subsystem."""
    locks = FileLocks(tmp_path / "held", timeout_seconds=5)
    connectors = TracedConnectors(locks, **bench.options())
    last = Device(path="/dev/nvme0n1", identity={"nguid": "1"}, size_bytes=1, subsystem=SUBSYSTEM)
    journal.write(lambda book: book.leave_behind("volume-1", last))
    Watch(host_with(connectors, locks, journal, world), journal).leave_unneeded()
    assert connectors.calls == [
        ("leave subsystem", {f"target:{SUBSYSTEM}"}),
        ("leave", {f"target:{EXPORT}"}),
    ]
