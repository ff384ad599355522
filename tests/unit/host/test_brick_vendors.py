"""Vendors' connectors of os-brick: what they leave undone, and what they must be told."""

from typing import Any

import pytest

from agent.errors import ConnectFailed
from agent.model.attachment import Attachment
from agent.model.device import Device, Disconnected
from tests.samples import attachment
from tests.unit.host.test_brick_calls import UUID, Bench
from tests.unit.host.test_brick_calls import bench as bench  # the fixture

POWERFLEX = {"scaleIO_volname": "vol-1", "scaleIO_volume_id": "3a9f", "sdc_guid": "5F1C"}
LIGHTOS = {"uuid": UUID, "subsysnqn": "nqn.2016-01.com.lightbitslabs:uuid:1"}


def volume(protocol: str, data: dict[str, Any]) -> Attachment:
    return attachment(connection_info={"driver_volume_type": protocol, "data": data})


def powerflex(bench: Bench, name: str = "scinia") -> None:
    """Its devices say nothing of themselves; a rule of the vendor's names them."""
    bench.tree.add(name, "252:0", {}, by_id=("emc-vol-1b2c-3a9f",))
    link = str(bench.tree.dev / "disk/by-id/emc-vol-1b2c-3a9f")
    bench.brick.info = {"type": "block", "path": link}


def lightos(bench: Bench) -> None:
    path = bench.tree.nvme("nvme0n1", "259:1", uuid=UUID, controllers={"nvme0": "live"})
    bench.brick.info = {"type": "block", "path": path}


def connected(bench: Bench, asked: Attachment) -> Device:
    device = bench.connectors().connect(asked)
    bench.brick.calls.clear()
    return device


class TestWhoUnmaps:
    """os-brick returns, and the device is there until the storage side unmaps the volume."""

    @pytest.mark.parametrize("name", ["scaleio", "lightos"])
    def test_the_storage_side(self, bench: Bench, name: str) -> None:
        powerflex(bench) if name == "scaleio" else lightos(bench)
        asked = volume(name, POWERFLEX if name == "scaleio" else LIGHTOS)
        device = connected(bench, asked)
        assert bench.connectors().disconnect(asked, device) == Disconnected(awaiting_unmap=True)
        assert bench.connectors().present(device)
        bench.remove_everything()
        assert bench.connectors().disconnect(asked, device) == Disconnected()
        assert not bench.connectors().present(device)

    def test_os_brick_itself(self, bench: Bench) -> None:
        """It was given the gateway's address and password, and no sdc_guid."""
        powerflex(bench)
        gateway = {name: POWERFLEX[name] for name in ("scaleIO_volname", "scaleIO_volume_id")}
        asked = volume("scaleio", {**gateway, "serverIP": "192.0.2.5"})
        device = connected(bench, asked)
        with pytest.raises(ConnectFailed, match="still on this host"):
            bench.connectors().disconnect(asked, device)
