"""What this host itself does with a block device: a guest that writes to it would destroy both.

A device counts with its partitions and with what is built on them (LVM, md, device-mapper). That
something is built on it is no use yet: udev does so by itself with what guests have written.
"""

import os
import re
from collections.abc import Collection, Iterator
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


def built_on(device: Collection[str], sys: Path) -> list[str]:
    """Kernel names of what is built on a device, whose own names are those of its paths and of its
    multipath map: what os-brick takes for that map, or fails at. The maps of a map's partitions go
    with it (kpartx); what is on a partition of a path it removes the device beneath."""
    blocks = sys / "class" / "block"
    return sorted({name for own in device for name in _built_on(own, blocks)} - set(device))


def _built_on(name: str, blocks: Path) -> Iterator[str]:
    its_partitions = re.compile(rf"part\d+-{re.escape(text(blocks / name, 'dm/uuid'))}")
    for holder in _holders(name, blocks):
        uuid = text(blocks / holder, "dm/uuid")
        if its_partitions.fullmatch(uuid):
            yield from _holders(holder, blocks)
        elif not uuid.startswith("mpath-"):
            yield holder


def _with_what_is_built_on(name: str, blocks: Path) -> Iterator[str]:
    yield name
    for other in (*_partitions(name, blocks), *_holders(name, blocks)):
        yield from _with_what_is_built_on(other, blocks)


def _partitions(name: str, blocks: Path) -> list[str]:
    return [path.name for path in entries(blocks / name) if text(path, "partition")]


def _holders(name: str, blocks: Path) -> list[str]:
    return [path.name for path in entries(blocks / name / "holders")]


def _name_of(path: str) -> str:
    """Empty of what is no device: it may be on a server, which must not be asked."""
    return os.path.basename(os.path.realpath(path)) if path.startswith("/dev/") else ""


def _lines(path: Path) -> list[str]:
    """Empty where the kernel has no such file: swap may be left out of one."""
    try:
        return list(lines_of(path.read_bytes()))
    except OSError:
        return []
