"""What this host itself does with a block device: a guest that writes to it would destroy both.

A device counts with its partitions and with what is built on them (LVM, md, device-mapper). That
something is built on it is no use yet: udev does so by itself with what guests have written.
"""

import os
from collections.abc import Iterator
from pathlib import Path

from agent.host.far_files import lines_of, unescaped
from agent.host.sysfs import entries, text


def use_by_host(node: str, proc: Path, sys: Path) -> str | None:
    """In words; None: the host does nothing with it. ``node`` is the kernel's, as /dev/sdx."""
    blocks = sys / "class" / "block"
    names = frozenset(_with_what_is_built_on(os.path.basename(node), blocks))
    numbers = frozenset(text(blocks / name, "dev") for name in names) - {""}
    for line in _lines(proc / "self" / "mountinfo"):
        fields, _, mounted = line.partition(" - ")
        _, _, number, _, where, *_ = fields.split(" ")
        _, source, *_ = mounted.split(" ")
        # btrfs gives its mounts a number that no device has.
        if number in numbers or _name_of(source) in names:
            return f"mounted at {unescaped(where)}"
    for line in _lines(proc / "swaps")[1:]:
        if _name_of(line.split()[0]) in names:
            return f"swap ({line.split()[0]})"
    return None


def _with_what_is_built_on(name: str, blocks: Path) -> Iterator[str]:
    yield name
    partitions = [path for path in entries(blocks / name) if text(path, "partition")]
    for other in (*partitions, *entries(blocks / name / "holders")):
        yield from _with_what_is_built_on(other.name, blocks)


def _name_of(path: str) -> str:
    """Empty of what is no device: it may be on a server, which must not be asked."""
    return os.path.basename(os.path.realpath(path)) if path.startswith("/dev/") else ""


def _lines(path: Path) -> list[str]:
    """Empty where the kernel has no such file: swap may be left out of one."""
    try:
        return list(lines_of(path.read_bytes()))
    except OSError:
        return []
