"""Vendors' connectors of os-brick: what they leave undone, and what they must be told."""

from typing import Any

import pytest

from agent.errors import ConnectFailed
from agent.model.attachment import Attachment
from agent.model.device import Device, Disconnected, same_device
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


class TestItsNameInTheKernel:
    """A boot gives them out anew, and PowerFlex's devices say nothing else of themselves."""

    @pytest.fixture
    def after_a_boot(self, bench: Bench) -> tuple[Attachment, Device, str]:
        """Ours has another name, and another volume has the one that ours had."""
        powerflex(bench)
        asked = volume("scaleio", POWERFLEX)
        device = connected(bench, asked)
        bench.tree.remove("scinia")
        bench.tree.add("scinia", "252:16", {}, by_id=("emc-vol-1b2c-9999",))
        powerflex(bench, "scinib")
        return asked, device, str(bench.tree.dev / "scinib")

    def test_does_not_say_which_one_is_ours(
        self, bench: Bench, after_a_boot: tuple[Attachment, Device, str]
    ) -> None:
        asked, device, node = after_a_boot
        assert bench.connectors().in_place(device)
        assert bench.tree.devices.all_of(device.identity) == [node]
        assert same_device(bench.connectors().connect(asked).identity, device.identity)

    def test_is_not_what_is_looked_for(
        self, bench: Bench, after_a_boot: tuple[Attachment, Device, str]
    ) -> None:
        _, device, _ = after_a_boot
        bench.tree.remove("scinib")
        assert not bench.connectors().in_place(device)
        assert not bench.connectors().present(device)

    def test_proves_nothing_of_a_device_that_says_who_it_is(
        self, bench: Bench, after_a_boot: tuple[Attachment, Device, str]
    ) -> None:
        _, device, _ = after_a_boot
        bench.tree.remove("scinib")
        bench.tree.scsi("sdb", "8:16", UUID[:8], by_id=("emc-vol-1b2c-3a9f",))
        assert not bench.connectors().present(device)
