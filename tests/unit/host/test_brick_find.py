"""A volume is found where it is, and nothing is connected for it."""

from pathlib import Path
from typing import Any

import pytest

from agent.host.brick_device import DeviceReader
from agent.host.brick_find import Finder
from agent.host.mounts import Mounts
from agent.host.nvme import NvmeControllers
from agent.model.attachment import Attachment
from agent.model.device import Device
from tests.samples import attachment_payload, local
from tests.unit.host.device_tree import DeviceTree

EXPORT = "nas:/volumes"


@pytest.fixture
def tree(tmp_path: Path) -> DeviceTree:
    return DeviceTree(tmp_path / "tree")


@pytest.fixture
def mounts(tmp_path: Path) -> Mounts:
    """``table`` is the kernel's; nothing is in it yet."""
    (tmp_path / "table").touch()
    return Mounts(str(tmp_path / "mnt"), None, table=tmp_path / "table")


def find(tree: DeviceTree, mounts: Mounts, info: dict[str, Any]) -> Device | None:
    reader = DeviceReader(
        tree.devices, use_multipath=False, enforce_multipath=False, settle=lambda: None
    )
    finder = Finder(tree.devices, reader, NvmeControllers(tree.devices), mounts)
    stored = Attachment.model_validate(attachment_payload(connection_info=info))
    return finder.find(stored.connection)


def nfs(name: str) -> dict[str, Any]:
    return {"driver_volume_type": "nfs", "data": {"export": EXPORT, "name": name}}


def test_a_file_is_found_while_its_export_is_mounted(
    tree: DeviceTree, mounts: Mounts, tmp_path: Path
) -> None:
    directory = Path(mounts.directory_of(EXPORT))
    directory.mkdir(parents=True)
    (directory / "volume-1").write_bytes(bytes(4096))
    assert find(tree, mounts, nfs("volume-1")) is None, "it is below no mount"
    (tmp_path / "table").write_text(f"{EXPORT} {directory} nfs rw 0 0\n")
    found = find(tree, mounts, nfs("volume-1"))
    assert found is not None
    assert (found.path, found.size_bytes) == (f"{directory}/volume-1", 4096)
    assert find(tree, mounts, nfs("volume-2")) is None


def test_a_device_of_the_host_is_found_by_its_path(tree: DeviceTree, mounts: Mounts) -> None:
    assert find(tree, mounts, local(str(tree.dev / "sdb"))) is None
    node = tree.scsi("sdb", "8:16", "6001405aaaaaaaaaaaaaaaaaaaaaaaaa")
    found = find(tree, mounts, local(node))
    assert found is not None
    assert (found.path, found.scsi) == (node, True)


def test_one_that_says_nothing_of_itself_is_known_by_the_link_that_is_named(
    tree: DeviceTree, mounts: Mounts
) -> None:
    """As a connect would know it."""
    tree.add("zd0", "230:0", {})
    link = tree.link("zvol/pool/volume-1", "zd0")
    found = find(tree, mounts, local(link))
    assert found is not None
    assert found.identity == {"path": link}
    assert tree.devices.find(found.identity) == str(tree.dev / "zd0")


def test_what_qemu_reaches_by_itself_is_where_the_request_says(
    tree: DeviceTree, mounts: Mounts
) -> None:
    info = {"driver_volume_type": "rbd", "data": {"name": "pool/image", "auth_enabled": False}}
    found = find(tree, mounts, info)
    assert found is not None
    assert (found.path, found.identity) == ("rbd:pool/image", {"path": "rbd:pool/image"})


@pytest.mark.parametrize("mark", [{"vol_uuid": "volume-1"}, {"volume_nguid": "volume-1"}], ids=str)
def test_a_namespace_that_an_older_agent_was_told_wrongly_is_nowhere(
    tree: DeviceTree, mounts: Mounts, mark: dict[str, str]
) -> None:
    """Nothing of the subsystem is taken for it."""
    nqn, portal, other = "nqn-1", "192.0.2.20:4420", "0e1f8a3e-2c47-4d0a-9e61-7f0c2b9d1a34"
    tree.nvme("nvme0n1", "259:1", uuid=other, controllers={"nvme0": "live"})
    tree.fabric_controller("nvme0", nqn, portal, {"nvme0c0n1": other})
    data = {"target_nqn": nqn, "portals": [["192.0.2.20", 4420, "tcp"]], "ns_id": 1, **mark}
    assert find(tree, mounts, {"driver_volume_type": "nvmeof", "data": data}) is None
