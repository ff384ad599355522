"""Vendors' connectors of os-brick: what they leave undone, and what they must be told."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from os_brick.initiator.connectors.storpool import StorPoolConnector

from agent.errors import ConnectFailed
from agent.host.brick import BrickConnectors
from agent.model.attachment import Attachment
from agent.model.device import Device, Disconnected, same_device
from tests.samples import attachment
from tests.unit.host.test_brick_calls import UUID, Bench, Recorder, qemu_of_nobody
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


def connected(bench: Bench, asked: Attachment, connectors: BrickConnectors | None = None) -> Device:
    device = (connectors or bench.connectors()).connect(asked)
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


class TestStorPool:
    """Its connector detaches by the path that it is told, and ends with an error without one."""

    @pytest.fixture
    def asked(self, bench: Bench) -> Attachment:
        bench.tree.add("sp-3", "252:0", {})
        bench.brick.info = {
            "type": "block",
            "path": bench.tree.link("storpool-byid/a1b2", "sp-3"),
        }
        bench.tree.link("storpool/os--volume-v1", "sp-3")
        return volume("storpool", {"volume": "v1", "client_id": 7, "access_mode": "rw"})

    @pytest.fixture
    def connectors(self, bench: Bench) -> BrickConnectors:
        class StorPool(Recorder):
            def get_volume_paths(self, properties: dict[str, Any]) -> list[str]:
                return [str(bench.tree.dev / "storpool" / f"os--volume-{properties['volume']}")]

        bench.brick = StorPool(bench.brick.info, on_disconnect=bench.remove_everything)
        return bench.connectors()

    def test_what_never_came_is_detached_by_its_name(self, bench: Bench, asked: Attachment) -> None:
        """Or came, and os-brick could not say its name. By os-brick's own connector."""
        sent: list[dict[str, Any]] = []

        class Cluster(StorPoolConnector):  # type: ignore[misc]
            def __init__(self, **options: Any) -> None:
                self._config = {"SP_OURID": "7"}
                self._volume_prefix = "os"
                self._sp_api = SimpleNamespace(volumes_reassign_wait=sent.append)

        connectors = bench.connectors(factory=lambda protocol, **options: Cluster(**options))
        assert connectors.disconnect(asked, None) == Disconnected()
        ours = {"volume": "os--volume-v1", "detach": ["7"], "force": False}
        assert sent == [{"reassign": [ours]}]

    def test_what_has_gone_is_detached_once_more(
        self, bench: Bench, asked: Attachment, connectors: BrickConnectors
    ) -> None:
        """As after a kill between the disconnect and its note."""
        device = connected(bench, asked, connectors)
        bench.tree.remove("sp-3")
        (bench.tree.dev / "storpool-byid/a1b2").unlink()
        connectors.disconnect(asked, device)
        assert bench.brick.of("disconnect_volume")[2] == device.device_info

    def test_what_a_qemu_of_nobody_has_open_stays(
        self, bench: Bench, asked: Attachment, connectors: BrickConnectors, tmp_path: Path
    ) -> None:
        """os-brick would detach it by force, from under a guest that libvirt has lost."""
        with (
            qemu_of_nobody(bench.tree.dev / "sp-3", tmp_path) as process_id,
            pytest.raises(ConnectFailed, match=f"process {process_id}"),
        ):
            connectors.disconnect(asked, None)
        assert [call[0] for call in bench.brick.calls] == ["factory"]


def test_a_kernel_name_that_a_vendors_device_had_is_not_told(bench: Bench) -> None:
    """LightOS: it may be another namespace's by now."""
    lightos(bench)
    asked = volume("lightos", LIGHTOS)
    device = connected(bench, asked)
    bench.remove_everything()
    bench.connectors().disconnect(asked, device)
    assert bench.brick.of("disconnect_volume")[2] == {"type": "block"}
