"""A volume as the storage side keeps it: a file of this machine."""

import uuid
from dataclasses import dataclass, field
from pathlib import Path

from tests.nested.inside.leftovers import run

PLACE = Path("/var/lib/volumes")
MIB = 1 << 20


@dataclass
class StoredVolume:
    """``file`` is there from construction to close()."""

    volume_id: str = field(default_factory=lambda: str(uuid.uuid4()))
    size_mib: int = 32

    def __post_init__(self) -> None:
        self.file = PLACE / self.volume_id
        with self.file.open("xb") as file:
            file.truncate(self.size_bytes)

    @property
    def size_bytes(self) -> int:
        return self.size_mib * MIB

    def grow(self, size_mib: int) -> None:
        """The file. Whoever shows it is told in its own way."""
        self.size_mib = size_mib
        with self.file.open("r+b") as file:
            file.truncate(self.size_bytes)

    def read(self, offset_mib: int = 0, length_bytes: int = 4096) -> bytes:
        """What is stored there."""
        run("sync")
        return part_of(self.file, offset_mib, length_bytes)

    def close(self) -> None:
        self.file.unlink()


def part_of(path: Path, offset_mib: int, length_bytes: int) -> bytes:
    with path.open("rb") as file:
        file.seek(offset_mib * MIB)
        return file.read(length_bytes)
