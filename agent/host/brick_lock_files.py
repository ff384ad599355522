"""os-brick's lock files, so made that programs of other users can open them.

    <lock_path>/os-brick-connect_volume    0666, empty, root's or the compute service's

A compute or volume service is an ordinary user, opens the same files for writing, and is refused
where our umask (0077) was the first to make one. Their names are no secret, and they hold nothing.
Whoever gets through the directory may lock them: it is the operator's.
"""

import os
import stat
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Any

from oslo_concurrency import lockutils

FOR_ALL = 0o666

NAMES = ("os-brick-*", "scaleio-*")
"""What os-brick calls them."""


class SharedLock(lockutils.InterProcessLock):  # type: ignore[misc]
    """oslo.concurrency's lock, of a file that all may open."""

    def acquire(self, *how: Any, **options: Any) -> Any:
        """Raises OSError where the file can be neither made nor opened."""
        make_for_all(Path(os.fsdecode(self.path)))
        return super().acquire(*how, **options)


def share_lock_files(directory: Path) -> None:
    """From now on os-brick's locks of this process are of such files; those that an earlier life
    made for itself alone are mended. To be called while no lock of os-brick's is held: one goes
    when any descriptor of its file is closed.

    What cannot be made or mended is told by the first call that needs it."""
    lockutils.InterProcessLock = SharedLock
    for name in NAMES:
        for path in directory.glob(name):
            with suppress(OSError):
                _mend(path)


def make_for_all(path: Path) -> None:
    """Make the file, if it is not there; nobody ever sees it with another mode.

    The caller excludes those of this process who would lock it meanwhile, as above."""
    if os.path.lexists(path):
        return
    path.parent.mkdir(parents=True, exist_ok=True)  # for us alone: who shares it has made it
    with tempfile.NamedTemporaryFile(dir=path.parent, prefix=".new-") as made:
        os.fchmod(made.fileno(), FOR_ALL)
        with suppress(FileExistsError):  # another program was quicker
            os.link(made.name, path)


def _mend(path: Path) -> None:
    """Only what is a lock file of ours for certain: in a directory where others write a name may
    be a link to anything."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    try:
        found = os.fstat(descriptor)
        is_lock_file = stat.S_ISREG(found.st_mode) and found.st_nlink == 1 and not found.st_size
        if is_lock_file and found.st_uid == os.geteuid():
            os.fchmod(descriptor, FOR_ALL)
    finally:
        os.close(descriptor)
