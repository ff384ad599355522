"""Exports of network file systems, mounted by os-brick and unmounted by us.

<base>/<md5 of the export>/<name>     os-brick's layout, and the volume service's own
"""

import contextlib
import hashlib
import logging
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

from agent.errors import ConnectFailed, Unavailable
from agent.host.bounded import ANSWER_SECONDS, Spawn, run_bounded
from agent.host.far_files import lines_of, unescaped
from agent.host.own_mounts import OwnMounts

LOG = logging.getLogger(__name__)

UNMOUNT_SECONDS = 60.0
"""Writes that the server has not confirmed are sent first; a server that is away never confirms."""

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
        own: OwnMounts | None = None,
        table: Path = Path("/proc/self/mounts"),
        spawn: Spawn = subprocess.Popen,
    ) -> None:
        self.base = base
        self._needed = needed
        self._table = table
        self._spawn = spawn
        self._own = own or OwnMounts(None)

    def make_base(self) -> None:
        """QEMU, another user, must get through it, whatever our umask is."""
        if not os.path.isdir(self.base):
            os.makedirs(self.base, exist_ok=True)
            os.chmod(self.base, THROUGH)

    def directory_of(self, export: str) -> str:
        written = export.encode(errors="surrogateescape")
        name = hashlib.md5(written, usedforsecurity=False).hexdigest()
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
        return any(mounted == directory for _, mounted in self._mounted())

    def exports(self) -> list[str]:
        """What is mounted below ``base`` by us, or by an earlier life. Who shares the base may have
        mounted what it needs only later, as for a guest that is to come."""
        ours = self._own.below(self.base)
        return sorted(
            {
                export
                for export, directory in self._mounted()
                if directory in ours and self.directory_of(export) == directory
            }
        )

    @contextlib.contextmanager
    def made(self, export: str | None) -> Iterator[None]:
        """What is mounted there meanwhile is ours. The caller holds the export's lock."""
        directory = None if export is None else self.directory_of(export)
        if directory is None or self.is_mounted(directory):
            yield
            return
        try:
            yield
        finally:
            self._own.note(directory)

    def is_only_here(self, path: str) -> bool:
        """Raises Unavailable where its file system does not answer."""
        ask = ["findmnt", "--noheadings", "--output", "FSTYPE", "--target", path]
        try:
            told, _ = run_bounded(ask, ANSWER_SECONDS, self._spawn)
        except subprocess.TimeoutExpired as error:
            raise Unavailable(
                f"the server of {path}", f"it has not answered for {ANSWER_SECONDS:g} s"
            ) from error
        return told.strip() in OF_ONE_HOST

    def leave_ours(self, export: str) -> None:
        """As leave, of what ``exports`` has told; unless somebody else has mounted it since."""
        if self._own.hold(self.directory_of(export)):
            self.leave(export)

    def leave(self, export: str, shown: str | None = None) -> None:
        """Unmount the export unless somebody needs it. The caller holds the export's lock.
        ``shown`` is what people may see of it, where that is not the whole.

        Raises Unavailable (no answer in time), ConnectFailed (refused)."""
        directory = self.directory_of(export)
        name = shown or export
        if self._needed is None or self._needed(directory):
            return
        if self.is_mounted(directory):
            said = self._unmount(directory)
            if self.is_mounted(directory) and "busy" in said:
                LOG.info("%s (%s) stays mounted: files below it are open", directory, name)
                return
            if self.is_mounted(directory):
                raise ConnectFailed(
                    f"{name} stays mounted at {directory}: {said}; it is tried again"
                )
        with contextlib.suppress(OSError):  # not empty, or gone: the mount is what counts
            os.rmdir(directory)

    def _mounted(self) -> Iterator[tuple[str, str]]:
        """What, and where."""
        for line in lines_of(self._table.read_bytes()):
            source, directory, *_ = line.split(" ")
            yield unescaped(source), unescaped(directory)

    def _unmount(self, directory: str) -> str:
        """What umount says."""
        is_own = self._own.hold(directory)
        self._own.forget(directory)
        try:
            _, said = run_bounded(["umount", directory], UNMOUNT_SECONDS, self._spawn)
        except subprocess.TimeoutExpired as error:
            raise Unavailable(
                f"the server of {directory}",
                f"it could not be unmounted within {UNMOUNT_SECONDS:g} s; it is tried again",
            ) from error
        finally:
            if is_own:
                self._own.note(directory)
        return said.strip()


def with_retry(options: str) -> str:
    """mount.nfs(8) tries a server that refuses again for two minutes, and says nothing of it."""
    given = [option for option in options.split(",") if option]
    has_retry = any(option.startswith("retry=") for option in given)
    return ",".join(given if has_retry else [*given, "retry=0"])
