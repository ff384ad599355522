"""Mounts of network file systems below a directory of ours."""

import contextlib
import os
import subprocess
from pathlib import Path

from agent.errors import ConnectFailed, Unavailable

UNMOUNT_SECONDS = 60.0
"""Writes that the server has not confirmed are sent first; a server that is away never confirms."""


def is_mounted(directory: str, table: Path = Path("/proc/self/mounts")) -> bool:
    """By the kernel's table: a stat would hang where the server does not answer."""
    escaped = directory.replace("\\", r"\134").replace(" ", r"\040")  # proc(5), mounts
    return any(line.split(" ")[1] == escaped for line in table.read_text().splitlines())


def unmount(directory: str) -> bool:
    """Unmount and remove the directory. False: somebody has files open there, it stays.

    Raises Unavailable (no answer in time), ConnectFailed (refused)."""
    if is_mounted(directory):
        try:
            done = subprocess.run(
                ["umount", directory],
                capture_output=True,
                text=True,
                timeout=UNMOUNT_SECONDS,
                check=False,
                env={**os.environ, "LC_ALL": "C"},
            )
        except subprocess.TimeoutExpired as error:
            raise Unavailable(
                f"the server of {directory}",
                f"it could not be unmounted within {UNMOUNT_SECONDS:g} s; it is tried again",
            ) from error
        if is_mounted(directory):
            if "busy" in done.stderr:
                return False
            raise ConnectFailed(f"{directory} stays mounted: {done.stderr.strip()}")
    with contextlib.suppress(OSError):  # not empty, or gone: the mount is what counts
        os.rmdir(directory)
    return True
