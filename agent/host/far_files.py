"""Files of network file systems: named by the kernel's table of mounts, and never touched.

    36 25 0:53 /sub /mnt/foreign rw,relatime shared:1 - cifs //nas/vols rw      proc(5), mountinfo
          0:53 //nas/vols/sub/x     what /mnt/foreign/x is called by every mount of its file system

A stat, or a link that is read, waits for the server: on a hard mount for ever, in the kernel.
"""

import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

FAR = frozenset(
    (
        *("nfs", "nfs4", "cifs", "smb3", "smbfs", "afs", "coda", "9p", "virtiofs"),
        *("ceph", "lustre", "gpfs", "beegfs", "orangefs", "pvfs2", "acfs", "gfs2", "ocfs2"),
        *("fuse", "autofs"),
    )
)
"""Types of file systems in which a stat may wait for another host, or for a process of this one;
and autofs, where it mounts one. FUSE has a type for each maker (``fuse.glusterfs``)."""

LINKS = 40
"""As many as the kernel follows (path_resolution(7))."""


@dataclass(frozen=True)
class Mount:
    """``names`` is what its root is called wherever it is mounted."""

    names: str
    is_far: bool


class FarFiles:
    """By ``table``, the kernel's. What the host itself runs from is not far, whatever its type."""

    def __init__(self, table: Path = Path("/proc/self/mountinfo")) -> None:
        self._table = table
        self._parsed: tuple[bytes, Mapping[str, Mount]] = (b"", {})

    def hold(self, path: str) -> bool:
        """Does the absolute path lead to one?"""
        return bool(self.names(path))

    def names(self, path: str) -> frozenset[str]:
        """As BlockDevices.names, links followed as far as this host has them; empty: it is not far.

        The same file of one file system has one name by each of its mounts. Below /dev are nodes of
        this host, and links to them: for those, which most disks are, the table is not read."""
        if path.startswith("/dev/") and ".." not in path:
            return frozenset()
        mounts = self._mounts()
        far = _far_path(path, mounts)
        if far is None:
            return frozenset()
        mounted = next(above for above in _and_above(far) if above in mounts)
        return frozenset((path, far, f"file {mounts[mounted].names}{far.removeprefix(mounted)}"))

    def _mounts(self) -> Mapping[str, Mount]:
        """By mount point, the topmost of each; nothing where none is far.

        The table is read for every disk of every domain, and parsed when it has changed."""
        content = self._table.read_bytes()
        if self._parsed[0] != content:
            mounts = dict(map(_mount, lines_of(content)))
            mounts.pop("/", None)
            is_any_far = any(mount.is_far for mount in mounts.values())
            self._parsed = content, mounts if is_any_far else {}
        return self._parsed[1]


def lines_of(table: bytes) -> list[str]:
    """Of a table of the kernel's. Names in it are bytes, which need not be UTF-8."""
    return os.fsdecode(table).split("\n")[:-1]


def unescaped(field: str) -> str:
    """Of the kernel's tables (proc(5), mounts): a space is \\040."""
    return re.sub(r"\\([0-7]{3})", lambda octal: chr(int(octal[1], 8)), field)


def _mount(line: str) -> tuple[str, Mount]:
    """Of NFS the kernel says the root in the source, and ``/`` for it (nfs_show_devname)."""
    where, _, what = line.partition(" - ")
    _, _, number, root, directory, *_ = where.split(" ")
    kind, source, *_ = what.split(" ")
    names = f"{number} {unescaped(source).rstrip('/')}{unescaped(root).rstrip('/')}"
    return unescaped(directory), Mount(names, kind in FAR or kind.startswith("fuse."))


def _far_path(path: str, mounts: Mapping[str, Mount]) -> str | None:
    """The path without those links that this host has; None: it leads to nothing far."""
    here, links = "", 0
    waiting = path.split("/")[::-1] if mounts else []
    while waiting:
        part = waiting.pop()
        if part in ("", ".", ".."):
            here = here.rpartition("/")[0] if part == ".." else here
            continue
        there = f"{here}/{part}"
        if there in mounts and mounts[there].is_far:
            return "/".join((there, *(part for part in waiting[::-1] if part not in ("", "."))))
        link = _link(there)
        if link is None:
            here = there
            continue
        links += 1
        if links > LINKS:
            return None
        here = "" if link.startswith("/") else here
        waiting += link.split("/")[::-1]
    return None


def _link(path: str) -> str | None:
    try:
        return os.readlink(path)
    except OSError:  # none, or nothing is there
        return None


def _and_above(path: str) -> Iterator[str]:
    while path:
        yield path
        path = path.rpartition("/")[0]
