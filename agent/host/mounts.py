"""Exports of network file systems, mounted by os-brick and unmounted by us.

<base>/<md5 of the export>/<name>     os-brick's layout, and the volume service's own
"""

import contextlib
import hashlib
import logging
import os
import re
import subprocess
from collections.abc import Callable
from pathlib import Path

from agent.errors import ConnectFailed, Unavailable

LOG = logging.getLogger(__name__)

UNMOUNT_SECONDS = 60.0
"""Writes that the server has not confirmed are sent first; a server that is away never confirms."""

PROBE_SECONDS = 30.0
"""What a server may take to tell of a file. Who asks one that is away is stuck in the kernel."""


OF_ONE_HOST = frozenset(
    ("ext2", "ext3", "ext4", "xfs", "btrfs", "zfs", "f2fs", "tmpfs", "ramfs", "overlay")
)
"""Types of file systems. Of all others libvirt judges, which moves no guest whose disk is a file
on one that it does not know as shared."""

THROUGH = 0o711
"""Everybody may go through a directory, and nobody list it."""


class Mounts:
    """What is mounted below ``base``. ``needed`` says whether a disk or promise names a file in a
    directory: a guest that is shut off has no file open. Without it nothing is unmounted."""

    def __init__(
        self,
        base: str,
        needed: Callable[[str], bool] | None,
        table: Path = Path("/proc/self/mounts"),
    ) -> None:
        self.base = base
        self._needed = needed
        self._table = table

    def make_base(self) -> None:
        """QEMU, another user, must get through it, whatever our umask is."""
        if not os.path.isdir(self.base):
            os.makedirs(self.base, exist_ok=True)
            os.chmod(self.base, THROUGH)

    def directory_of(self, export: str) -> str:
        name = hashlib.md5(export.encode(), usedforsecurity=False).hexdigest()
        return os.path.join(self.base, name)

    def file_of(self, export: str, name: str) -> str | None:
        """The path of a file in an export; None: the export is not mounted."""
        directory = self.directory_of(export)
        return os.path.join(directory, name) if self.is_mounted(directory) else None

    def hold(self, path: str) -> bool:
        """Is it a file below a mount of ours?"""
        return path.startswith(f"{self.base}/")

    def is_mounted(self, directory: str) -> bool:
        """By the kernel's table: a stat would hang where the server does not answer."""
        lines = self._table.read_text().splitlines()
        return any(_unescaped(line.split(" ")[1]) == directory for line in lines)

    def exports(self) -> list[str]:
        """What is mounted below ``base`` by us, or by an earlier life: by the kernel's table."""
        lines = [line.split(" ") for line in self._table.read_text().splitlines()]
        return sorted(
            {
                export
                for source, directory, *_ in lines
                if (export := _unescaped(source))
                and self.directory_of(export) == _unescaped(directory)
            }
        )

    def probe(self, path: str) -> None:
        """Raises ConnectFailed where the server does not tell of the file in time."""
        try:
            subprocess.run(["stat", path], capture_output=True, timeout=PROBE_SECONDS, check=False)
        except subprocess.TimeoutExpired as error:
            raise ConnectFailed(
                f"the server of {path} has not answered for {PROBE_SECONDS:g} s; nothing was "
                "plugged: look at the server, then try again"
            ) from error

    def is_only_here(self, path: str) -> bool:
        """Raises Unavailable where its file system does not answer."""
        ask = ["findmnt", "--noheadings", "--output", "FSTYPE", "--target", path]
        try:
            told = subprocess.run(ask, capture_output=True, timeout=PROBE_SECONDS, check=False)
        except subprocess.TimeoutExpired as error:
            raise Unavailable(
                f"the server of {path}", f"it has not answered for {PROBE_SECONDS:g} s"
            ) from error
        return told.stdout.decode().strip() in OF_ONE_HOST

    def leave(self, export: str) -> None:
        """Unmount the export unless somebody needs it. The caller holds the export's lock.

        Raises Unavailable (no answer in time), ConnectFailed (refused)."""
        directory = self.directory_of(export)
        if self._needed is None or self._needed(directory):
            return
        if self.is_mounted(directory):
            said = _unmount(directory)
            if self.is_mounted(directory) and "busy" in said:
                LOG.info("%s (%s) stays mounted: files below it are open", directory, export)
                return
            if self.is_mounted(directory):
                raise ConnectFailed(
                    f"{export} stays mounted at {directory}: {said}; it is tried again"
                )
        with contextlib.suppress(OSError):  # not empty, or gone: the mount is what counts
            os.rmdir(directory)


def _unescaped(field: str) -> str:
    """Of the kernel's table (proc(5), mounts): a space is \\040."""
    return re.sub(r"\\([0-7]{3})", lambda octal: chr(int(octal[1], 8)), field)


def _unmount(directory: str) -> str:
    """What umount says."""
    try:
        return subprocess.run(
            ["umount", directory],
            capture_output=True,
            text=True,
            timeout=UNMOUNT_SECONDS,
            check=False,
            env={**os.environ, "LC_ALL": "C"},
        ).stderr.strip()
    except subprocess.TimeoutExpired as error:
        raise Unavailable(
            f"the server of {directory}",
            f"it could not be unmounted within {UNMOUNT_SECONDS:g} s; it is tried again",
        ) from error
