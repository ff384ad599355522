"""What the service manager is told."""

import socket
from contextlib import suppress
from pathlib import Path

import pytest

from agent.service.systemd import ServiceManager


def test_that_we_are_ready_is_said_until_it_was_heard(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agent.service.systemd.SLOW_SECONDS", 0.1)
    address = str(tmp_path / "notify")
    manager = ServiceManager({"NOTIFY_SOCKET": address})
    with (
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener,
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as others,
    ):
        listener.bind(address)
        full = 0
        with suppress(BlockingIOError):
            while others.sendto(b"STATUS=another", address):
                full += 1
        manager.ready()
        manager.status("connected")
        for _ in range(full):
            listener.recv(100)
        for say in (manager.alive, manager.alive, lambda: manager.status("connected")):
            say()
        heard = [listener.recv(100) for _ in range(3)]
    assert heard == [b"READY=1\nWATCHDOG=1", b"WATCHDOG=1", b"STATUS=connected"]


def test_who_is_away_stops_nobody(tmp_path: Path) -> None:
    ServiceManager({"NOTIFY_SOCKET": str(tmp_path / "nothing")}).ready()
    ServiceManager({}).ready()
