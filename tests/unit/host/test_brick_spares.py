"""What os-brick's own connectors leave alone when they fail: all that was there before."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from os_brick import exception

from agent.host.brick_library import os_brick_connector, spare_what_is_here
from tests.unit.host.test_brick_calls import NQN, ONE_PATH, UUID
from tests.unit.host.test_brick_locks import lock_path as lock_path  # the fixture

PORTALS = [["192.0.2.20", 4420, "tcp"]]

FAILING = {
    "ISCSI": ("_connect_single_volume", "_cleanup_connection", ONE_PATH),
    "NVMEOF": (
        "_connect_target",
        "_try_disconnect_all",
        {"target_nqn": NQN, "portals": PORTALS, "vol_uuid": UUID},
    ),
}
"""{protocol: (what fails in it, what it then takes away with, a volume)}"""


def cleanups(
    protocol: str, monkeypatch: pytest.MonkeyPatch, prepare: Callable[[Any], None]
) -> list[str]:
    """Of a connect that fails."""
    fails, cleans, volume = FAILING[protocol]
    connector = os_brick_connector(protocol, device_scan_attempts=1, execute=lambda *_, **__: "")
    called: list[str] = []

    def fail(*_about: object) -> None:
        raise exception.VolumeDeviceNotFound(device="")

    monkeypatch.setattr(type(connector), cleans, lambda *_, **__: called.append(cleans))
    monkeypatch.setattr(type(connector), fails, fail)
    prepare(connector)
    with pytest.raises(exception.VolumeDeviceNotFound):
        connector.connect_volume(dict(volume))
    return called


@pytest.mark.parametrize("protocol", FAILING)
def test_os_brick_takes_away_what_is_at_the_address(
    lock_path: Path, monkeypatch: pytest.MonkeyPatch, protocol: str
) -> None:
    """By itself: also under a guest that waits for its paths. If it no longer does, we need not."""
    assert len(cleanups(protocol, monkeypatch, lambda connector: None)) == 1


@pytest.mark.parametrize("protocol", FAILING)
def test_a_connect_of_ours_takes_nothing_away(
    lock_path: Path, monkeypatch: pytest.MonkeyPatch, protocol: str
) -> None:
    assert cleanups(protocol, monkeypatch, spare_what_is_here) == []
