"""NVMe over TCP subsystems of nvmet, on this machine's own loopback, by configfs."""

import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.nested.inside.leftovers import run
from tests.nested.inside.stored import StoredVolume

NVMET = Path("/sys/kernel/config/nvmet")
ADDRESSES = ("127.0.0.1", "127.0.0.2")
PORT = 4420


@dataclass
class Namespace(StoredVolume):
    """What a subsystem shows as a namespace."""

    nguid: str = field(default_factory=lambda: str(uuid.uuid4()))


class Subsystem:
    """One NQN, which listens at ``addresses``."""

    def __init__(self, name: str, *, addresses: Sequence[str] = ADDRESSES[:1]) -> None:
        self.nqn = f"nqn.2026-01.org.example:{name}"
        self.addresses = list(addresses)
        self.namespaces: dict[int, Namespace] = {}
        self._place = NVMET / "subsystems" / self.nqn
        self._place.mkdir()
        (self._place / "attr_allow_any_host").write_text("1")
        for address in addresses:
            (_port(address) / "subsystems" / self.nqn).symlink_to(self._place)

    def map(self, number: int, namespace: Namespace) -> None:
        place = self._place / "namespaces" / str(number)
        place.mkdir()
        (place / "device_path").write_text(str(namespace.file))
        (place / "device_uuid").write_text(namespace.volume_id)
        (place / "device_nguid").write_text(namespace.nguid)
        (place / "enable").write_text("1")
        self.namespaces[number] = namespace

    def grow(self, number: int, size_mib: int) -> None:
        """The namespace; hosts are told by an event."""
        self.namespaces[number].grow(size_mib)
        (self._place / "namespaces" / str(number) / "revalidate_size").write_text("1")

    def unmap(self, number: int) -> None:
        place = self._place / "namespaces" / str(number)
        (place / "enable").write_text("0")
        place.rmdir()
        del self.namespaces[number]

    def connection_info(self, number: int, **more: Any) -> dict[str, Any]:
        """The newer form: the namespace is found by its uuid."""
        data = {
            "target_nqn": self.nqn,
            "portals": [[address, PORT, "tcp"] for address in self.addresses],
            "vol_uuid": self.namespaces[number].volume_id,
        }
        return {"driver_volume_type": "nvmeof", "data": {**data, **more}}

    def old_connection_info(self, number: int) -> dict[str, Any]:
        data = {
            "nqn": self.nqn,
            "target_portal": self.addresses[0],
            "target_port": PORT,
            "transport_type": "tcp",
            "ns_id": number,
        }
        return {"driver_volume_type": "nvmeof", "data": data}

    def close(self) -> None:
        for address in self.addresses:
            (_port(address) / "subsystems" / self.nqn).unlink()
        for number in list(self.namespaces):
            self.unmap(number)
        self._place.rmdir()


def _port(address: str) -> Path:
    """Made once for each address; it stays, and harms nobody."""
    place = NVMET / "ports" / str(1 + ADDRESSES.index(address))
    if not place.exists():
        place.mkdir()
        for attribute, value in {
            "addr_trtype": "tcp",
            "addr_adrfam": "ipv4",
            "addr_traddr": address,
            "addr_trsvcid": str(PORT),
        }.items():
            (place / attribute).write_text(value)
    return place


def disconnect_everything() -> None:
    """After a test that failed."""
    run("nvme", "disconnect-all", check=False)
