"""The first bytes of a volume, as it holds them now: nothing is cached, nothing is written."""

import os
import subprocess

from agent.errors import ConnectFailed
from agent.host.bounded import Spawn, run_bounded
from agent.ports import HEADER_BYTES

ANSWER_SECONDS = 30.0
"""What storage may take to show the beginning of a volume. Who asks one that is away is stuck in
the kernel: for ever, where a map queues without a path."""

BLOCK_BYTES = 4096
"""Of no device is this less than a block: a read past the cache of a part of one asks nobody."""


def read_header(path: str, spawn: Spawn = subprocess.Popen) -> bytes:
    """HEADER_BYTES, or what there is.  Raises ConnectFailed."""
    refuse_silent(path, spawn)
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            # Another host may have written it since somebody here has read it last.
            os.posix_fadvise(descriptor, 0, HEADER_BYTES, os.POSIX_FADV_DONTNEED)
            return os.pread(descriptor, HEADER_BYTES, 0)
        finally:
            os.close(descriptor)
    except OSError as error:
        raise ConnectFailed(
            f"{path} cannot be read ({error.strerror}), so whether it is encrypted is not known"
        ) from error


def refuse_silent(path: str, spawn: Spawn, *flags: str) -> None:
    """A child opens it and reads, past the cache, which may know what nobody says any more: it may
    be stuck, and we are not. What it is told, or that it cannot read, says nothing here."""
    how = ",".join(("direct", *flags))
    read = ["dd", f"if={path}", "of=/dev/null", f"bs={BLOCK_BYTES}", "count=1", f"iflag={how}"]
    try:
        run_bounded(read, ANSWER_SECONDS, spawn)
    except subprocess.TimeoutExpired as error:
        raise ConnectFailed(
            f"{path} has not answered for {ANSWER_SECONDS:g} s, or has not taken yet what this "
            "host had still to write; nothing was done to any guest: look at its server, or its "
            "paths, then try again"
        ) from error
