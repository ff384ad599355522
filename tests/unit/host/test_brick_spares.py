"""What os-brick's own connectors leave alone when they fail: all that was there before."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from os_brick import exception

from agent.host.brick_library import (
    keep_to_the_target,
    os_brick_connector,
    spare_what_is_here,
)
from tests.unit.host.test_brick_calls import IQN, NQN, ONE_PATH, UUID
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


def test_native_multipath_is_seen_once_its_module_is_there(
    lock_path: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """By itself os-brick looks once, and 'nvme connect', which loads it, comes later."""
    monkeypatch.setattr("agent.host.brick_library.NVME_CORE", tmp_path / "nvme_core")
    kind = "os_brick.initiator.connectors.nvmeof.NVMeOFConnector"
    monkeypatch.setattr(f"{kind}.native_multipath_supported", None)
    loaded: list[str] = []
    monkeypatch.setattr("agent.host.brick_library.load_module", loaded.append)
    seen = []
    for is_there in (False, True):
        monkeypatch.setattr(
            f"{kind}._is_native_multipath_supported",
            staticmethod(lambda is_there=is_there: is_there),
        )
        connector = os_brick_connector("NVMEOF", use_multipath=True)
        seen.append(connector.supports_multipath())
    assert seen == [False, True]
    assert set(loaded) == {"nvme-core"}


OTHER = "iqn.2010-10.org.openstack:other"


def told(*ways: tuple[str, str]) -> Callable[..., Any]:
    """A portal of which sendtargets tells these."""

    def execute(*command: str, **how: Any) -> tuple[str, str]:
        lines = [f"{portal},1 {iqn}\n" for portal, iqn in ways]
        return ("".join(lines) if "sendtargets" in command else "", "")

    return execute


P1, P2 = "192.0.2.1:3260", "192.0.2.2:3260"


@pytest.mark.parametrize(
    ("ways", "ours"),
    [
        ([(P1, OTHER), (P2, OTHER), (P1, IQN)], [P1]),
        ([(P1, IQN), (P2, IQN), (P1, OTHER)], [P1, P2]),
        ([(P1, OTHER)], [P1]),
    ],
    ids=["another target has more portals", "ours has", "ours is not told"],
)
def test_no_other_target_is_taken(
    lock_path: Path, ways: list[tuple[str, str]], ours: list[str]
) -> None:
    options = {"use_multipath": True, "execute": told(*ways), "device_scan_attempts": 1}
    connector = os_brick_connector("ISCSI", **options)
    keep_to_the_target(connector, IQN)
    found = connector._get_ips_iqns_luns(dict(ONE_PATH))
    assert sorted(found) == [(portal, IQN, 1) for portal in ours]


def test_by_itself_os_brick_takes_them(lock_path: Path) -> None:
    """If it no longer does, we need not."""
    ways = [(P1, OTHER), (P2, OTHER), (P1, IQN)]
    connector = os_brick_connector("ISCSI", use_multipath=True, execute=told(*ways))
    assert OTHER in {iqn for _portal, iqn, _lun in connector._get_ips_iqns_luns(dict(ONE_PATH))}
