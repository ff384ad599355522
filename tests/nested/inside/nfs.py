"""An NFS server on this machine's own loopback, and the files in its exports."""

import uuid
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.nested.inside.leftovers import mounts, run
from tests.nested.inside.stored import MIB, part_of

EXPORTS = Path("/srv/exports")


@dataclass
class VolumeFile:
    """A volume in an export; ``format`` is what the request will say."""

    export: "Export"
    format: str = "raw"
    size_mib: int = 32
    volume_id: str = field(default_factory=lambda: str(uuid.uuid4()))

    def __post_init__(self) -> None:
        self.name = f"volume-{self.volume_id}"
        self.file = self.export.directory / self.name
        size = ("create", "-q", "-f", self.format, str(self.file), f"{self.size_mib}M")
        run("qemu-img", *size)
        self.file.chmod(0o666)

    @property
    def size_bytes(self) -> int:
        return self.size_mib * MIB

    def read(self, offset_mib: int = 0, length_bytes: int = 4096) -> bytes:
        if self.format == "raw":
            return part_of(self.file, offset_mib, length_bytes)
        raw = self.file.with_suffix(".raw")
        run("qemu-img", "convert", "-f", self.format, "-O", "raw", str(self.file), str(raw))
        try:
            return part_of(raw, offset_mib, length_bytes)
        finally:
            raw.unlink()

    def connection_info(self, **more: Any) -> dict[str, Any]:
        data = {"export": self.export.source, "name": self.name, "format": self.format}
        return {"driver_volume_type": "nfs", "data": {**data, **more}}


def unmount_everything() -> None:
    """After a test that failed."""
    for source in mounts():
        run("umount", "--force", "--lazy", source, check=False)


class Export:
    def __init__(self, name: str) -> None:
        self.directory = EXPORTS / name
        self.directory.mkdir(parents=True, mode=0o777, exist_ok=True)
        self.directory.chmod(0o777)
        self.source = f"127.0.0.1:{self.directory}"
        run("exportfs", "-o", "rw,no_root_squash,insecure,no_subtree_check,sync", self.source)

    def withdraw(self) -> None:
        run("exportfs", "-u", self.source)

    def close(self) -> None:
        run("exportfs", "-u", self.source, check=False)
        run("exportfs", "-f")
        for file in self.directory.iterdir():
            file.unlink()
        self.directory.rmdir()
