"""A disk of a running guest grows, and never shrinks."""

from types import SimpleNamespace
from typing import Any

import pytest

from agent.host.locks import FileLocks
from agent.model.device import Device
from agent.ports import DomainLook
from agent.saga.plan import Scene
from agent.steps.grow import GrowDisk
from tests.samples import attachment

GIB = 1 << 30
PATH = "/mnt/volume-1"
DOMAIN = (
    "<domain><name>guest</name><devices><disk type='file' device='disk'>"
    f"<source file='{PATH}'/><target dev='vda' bus='virtio'/></disk></devices></domain>"
)
NFS = {
    "driver_volume_type": "nfs",
    "data": {"export": "192.0.2.40:/vols", "name": "volume-1", "format": "raw"},
}


@pytest.mark.parametrize(("there", "given"), [(2, 2), (3, 3)])
def test_a_file_is_not_cut_off_at_what_an_older_request_asks(
    tmp_path: Any, there: int, given: int
) -> None:
    """Another host's guest has had a later one, and written behind it; QEMU here says 1 still, and
    would truncate."""
    locks = FileLocks(tmp_path, timeout_seconds=5)
    device = Device(path=PATH, identity={"path": PATH}, size_bytes=GIB)
    asked = attachment(connection_info=NFS)
    resized: list[int] = []

    def look(attachment: Any, device: Device) -> Device:
        assert len(locks.held()) == 2, "the volume's, and the export's"
        return device.model_copy(update={"size_bytes": there * GIB})

    def resize(instance_id: str, target_dev: str, size_bytes: int) -> None:
        assert locks.held() == []
        resized.append(size_bytes)

    domain = DomainLook(
        instance_id=asked.instance_id,
        name="guest",
        live_xml=DOMAIN,
        inactive_xml=None,
        state="running",
    )
    host: Any = SimpleNamespace(
        locks=locks,
        journal=SimpleNamespace(device_of=lambda attachment_id: device),
        connectors=SimpleNamespace(extend=look, names=lambda path: frozenset((path,))),
        domains=SimpleNamespace(look=lambda _: domain, size=lambda *_: GIB, resize=resize),
    )
    step = GrowDisk(asked, 2 * GIB)
    step.apply(Scene(host, "operation-1", {"header_bytes": 0}))
    assert resized == [given * GIB]
    assert step.lane == "mounts", "who looks at a file may wait for its server"
