"""A volume without a storage service: a sparse file behind a loop device."""

import contextlib
import os
import subprocess
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tests.lab.patience import LabError, wait_until

_MIB = 1024 * 1024


class LoopVolume:
    """``path`` is the device. It is there from construction to close()."""

    def __init__(self, directory: Path, volume_id: str, *, size_mib: int = 64) -> None:
        self.volume_id = volume_id
        self.file = directory / f"{volume_id}.volume"
        self.size_bytes = size_mib * _MIB
        with self.file.open("xb") as file:
            file.truncate(self.size_bytes)
        self.path = _losetup("--find", "--show", str(self.file)).strip()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Take the device away. One that is still open goes when its last user does."""
        if self.file.exists():
            with contextlib.suppress(LabError):  # somebody was faster
                _losetup("--detach", self.path)
            self.file.unlink()

    def connection_info(self) -> dict[str, Any]:
        """What the wire carries for it, in the nested form."""
        return {"driver_volume_type": "local", "data": {"device_path": self.path}}

    def grow(self, size_mib: int) -> None:
        """Make it larger, as the storage side would; guests are not told."""
        assert size_mib * _MIB >= self.size_bytes, "volumes do not shrink"
        self.size_bytes = size_mib * _MIB
        os.truncate(self.file, self.size_bytes)
        _losetup("--set-capacity", self.path)

    def fail(self) -> None:
        """From now on every read of it fails, as from a dead array; what was in it is lost."""
        os.truncate(self.file, 0)

    def recover(self) -> None:
        """It is well again, and holds zeros."""
        os.truncate(self.file, self.size_bytes)

    def read(self, offset_mib: int = 0, length_bytes: int = 4096) -> bytes:
        """What is stored there, past the host's cache of the device."""
        with open(self.path, "rb") as device:
            os.posix_fadvise(device.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
            return os.pread(device.fileno(), length_bytes, offset_mib * _MIB)

    def users(self) -> tuple[str, ...]:
        """Who has the device open: "PID NAME", and "holder NAME" for block devices on top."""
        holders = Path("/sys/block", Path(self.path).name, "holders")
        found = [f"holder {holder.name}" for holder in holders.iterdir()]
        for process in Path("/proc").iterdir():
            with contextlib.suppress(OSError):  # it has just ended
                if process.name.isdigit() and self._is_open_in(process):
                    found.append(f"{process.name} {(process / 'comm').read_text().strip()}")
        return tuple(found)

    def _is_open_in(self, process: Path) -> bool:
        return any(os.readlink(fd) == self.path for fd in (process / "fd").iterdir())

    def assert_unused(self, *, seconds: float = 5) -> None:
        """AssertionError, naming them, when somebody uses the device after so many seconds."""
        try:
            wait_until(lambda: not self.users(), f"{self.path} is unused", seconds=seconds)
        except LabError as error:
            raise AssertionError(f"{error}; used by {', '.join(self.users())}") from error


def detach_leftovers(directory: Path) -> None:
    """Detach the loop devices of files below a directory whose owner was killed."""
    for line in _losetup("--list", "--noheadings", "--output", "NAME,BACK-FILE").splitlines():
        name, _, file = line.strip().partition(" ")
        if Path(file.strip().removesuffix(" (deleted)")).is_relative_to(directory):
            with contextlib.suppress(LabError):
                _losetup("--detach", name)


def _losetup(*arguments: str) -> str:
    done = subprocess.run(
        ["losetup", *arguments], capture_output=True, text=True, timeout=30, check=False
    )
    if done.returncode:
        raise LabError(f"losetup {' '.join(arguments)}: {done.stderr.strip()}")
    return done.stdout
