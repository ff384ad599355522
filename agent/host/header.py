"""The first bytes of a volume, as it holds them now: nothing is cached, nothing is written."""

import os
import subprocess

from agent.errors import ConnectFailed
from agent.host.bounded import Spawn, refuse_silent
from agent.ports import HEADER_BYTES


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
