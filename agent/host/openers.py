"""Which QEMU has a device open, by the kernel's word.

libvirt may have lost track of a guest that runs: it says "shut off" of one whose status file it
cannot read, and the old volume of one in whose pivot it died.
"""

import os
from collections.abc import Callable, Collection, Iterator
from functools import partial
from pathlib import Path

from agent.errors import ConnectFailed

LOOKS = 10
PAUSE_SECONDS = 0.3
"""libvirt may tell of a disk that is gone a moment before QEMU has closed it."""

PROC = Path("/proc")


def refuse_open(nodes: Collection[str], pause: Callable[[float], None], proc: Path = PROC) -> None:
    """``nodes`` are one device's: it itself and its paths.

    Raises ConnectFailed: to pull it would pull the disk from under a guest."""
    for _ in range(LOOKS):
        holders = list(_qemus_with(nodes, proc))
        if not holders:
            return
        pause(PAUSE_SECONDS)
    names = ", ".join(sorted(nodes))
    raise ConnectFailed(
        f"{names} is open in QEMU (process {', '.join(holders)}), and libvirt knows of no guest "
        "that has it; it stays, and is tried again: see whose it is (docs/operate), and shut that "
        "guest off"
    )


def _qemus_with(nodes: Collection[str], proc: Path) -> Iterator[str]:
    for comm in proc.glob("[0-9]*/comm"):
        name = _read(partial(comm.read_text, errors="replace"))
        if name.startswith(("qemu", "kvm")) and not _opened(comm.parent).isdisjoint(nodes):
            yield comm.parent.name


def _opened(process: Path) -> set[str]:
    """The names of what it has open; a device that its own /dev has no more is "(deleted)"."""
    try:
        files = list((process / "fd").iterdir())
    except OSError:  # it has ended
        return set()
    return {_read(partial(os.readlink, file)).removesuffix(" (deleted)") for file in files}


def _read(read: Callable[[], str]) -> str:
    try:
        return read()
    except OSError:  # closed, or ended
        return ""
