"""Exports of network file systems, mounted by os-brick and unmounted by us.

<base>/<md5 of the export>/<name>     os-brick's layout, and the volume service's own
"""

import contextlib
import hashlib
import logging
import os
import subprocess
from collections.abc import Callable
from pathlib import Path

from agent.errors import ConnectFailed, Unavailable

LOG = logging.getLogger(__name__)

UNMOUNT_SECONDS = 60.0
"""Writes that the server has not confirmed are sent first; a server that is away never confirms."""


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

    def directory_of(self, export: str) -> str:
        name = hashlib.md5(export.encode(), usedforsecurity=False).hexdigest()
        return os.path.join(self.base, name)

    def hold(self, path: str) -> bool:
        """Is it a file below a mount of ours?"""
        return path.startswith(f"{self.base}/")

    def is_mounted(self, directory: str) -> bool:
        """By the kernel's table: a stat would hang where the server does not answer."""
        escaped = directory.replace("\\", r"\134").replace(" ", r"\040")  # proc(5), mounts
        lines = self._table.read_text().splitlines()
        return any(line.split(" ")[1] == escaped for line in lines)

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
