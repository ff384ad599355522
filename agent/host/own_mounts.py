"""Which mounts this agent has made: notes on disk, each true of one mount of one boot.

<state_path>/mounts/<md5 of the export>     <boot id> <id of the mount> <its device>

A note is written after the mount and taken back before the unmount. A kill between leaves a mount
without one: it stays until the next disconnect of its export, and a note of nothing is never left.
Half a note is untrue. The kernel gives numbers out again, so a note is forgotten as soon as its
mount is seen to be gone.
"""

import contextlib
import logging
import os
from collections.abc import Mapping
from pathlib import Path

from agent.host.far_files import lines_of, unescaped

LOG = logging.getLogger(__name__)


class OwnMounts:
    """Notes in ``directory``; None: none is kept, and no mount is ours."""

    def __init__(
        self,
        directory: Path | None,
        table: Path = Path("/proc/self/mountinfo"),
        boot_id: Path = Path("/proc/sys/kernel/random/boot_id"),
    ) -> None:
        self._directory = directory
        self._table = table
        self._boot_id = boot_id

    def note(self, mounted: str) -> None:
        """We have mounted something there. Where it cannot be written the mount is nobody's."""
        mount = self._mounts().get(mounted)
        if self._directory is None or mount is None:
            return
        try:
            self._directory.mkdir(mode=0o700, exist_ok=True)
            (self._directory / os.path.basename(mounted)).write_text(mount)
        except OSError as error:
            LOG.warning("%s stays mounted until a disconnect: %s", mounted, error)

    def forget(self, mounted: str) -> None:
        if self._directory is not None:
            with contextlib.suppress(OSError):
                (self._directory / os.path.basename(mounted)).unlink()

    def hold(self, mounted: str) -> bool:
        return self._is_true(mounted, self._mounts())

    def below(self, base: str) -> set[str]:
        """Where ours are mounted; notes that are not true any more are forgotten."""
        # Before the table is read: what is noted after that is true of a later one.
        noted = self._names()
        mounts = self._mounts()
        ours = {
            where
            for where in mounts
            if os.path.dirname(where) == base and self._is_true(where, mounts)
        }
        for untrue in noted - {os.path.basename(where) for where in ours}:
            self.forget(untrue)
        return ours

    def _names(self) -> set[str]:
        try:
            return set() if self._directory is None else set(os.listdir(self._directory))
        except OSError:  # nothing was ever noted
            return set()

    def _is_true(self, mounted: str, mounts: Mapping[str, str]) -> bool:
        if self._directory is None:
            return False
        try:
            note = (self._directory / os.path.basename(mounted)).read_text(errors="replace")
        except OSError:  # there is none
            return False
        return note == mounts.get(mounted)

    def _mounts(self) -> dict[str, str]:
        """What a note of each says; the topmost of each mount point."""
        boot = self._boot_id.read_text().strip()
        found = {}
        for line in lines_of(self._table.read_bytes()):
            number, _, device, _, where, *_ = line.split(" ")
            found[unescaped(where)] = f"{boot} {number} {device}\n"
        return found
