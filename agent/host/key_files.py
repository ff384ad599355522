"""Which files of this host a request may name as its passphrase: [encryption] secret_directories.

Whoever may send requests may use a key below them, and never see it. A file that others could read
is no secret, and one that others could write is not the operator's: neither is taken.
"""

import os
import stat
from collections.abc import Sequence
from pathlib import Path

from agent.errors import Invalid, Unsupported

LARGEST_BYTES = 65536
"""Of a libvirt secret (VIR_SECRET_VALUE_MAX)."""

_TOO_OPEN = stat.S_IWGRP | stat.S_IRWXO


class KeyFiles:
    """``directories`` are the operator's; links are resolved, and lead nowhere else."""

    def __init__(self, directories: Sequence[str]) -> None:
        self._directories = tuple(Path(os.path.realpath(path)) for path in directories)

    def read(self, path: str) -> bytes:
        """All bytes, a newline at the end too.  Raises Unsupported, Invalid."""
        real = self._allowed(path)
        try:
            descriptor = os.open(real, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        except FileNotFoundError:
            raise Invalid(f"encryption.secret_file: there is no {path} on this host") from None
        except OSError as error:
            raise _unreadable(path, error) from None
        try:
            _refuse_open_to_others(path, os.fstat(descriptor))
            key = os.pread(descriptor, LARGEST_BYTES + 1, 0)
        except OSError as error:
            raise _unreadable(path, error) from None
        finally:
            os.close(descriptor)
        if not 0 < len(key) <= LARGEST_BYTES:
            raise Invalid(
                f"encryption.secret_file: {path} must hold 1 to {LARGEST_BYTES} bytes, the "
                "passphrase and nothing else"
            )
        return key

    def _allowed(self, path: str) -> Path:
        if not self._directories:
            raise Unsupported(
                "encryption.secret_file: [encryption] secret_directories of this host is empty, so "
                "no file holds a passphrase: name the directories there and restart the agent"
            )
        real = Path(os.path.realpath(path))
        is_below = any(real.is_relative_to(directory) for directory in self._directories)
        if not path.startswith("/") or not is_below:
            allowed = ", ".join(str(directory) for directory in self._directories)
            raise Invalid(
                f"encryption.secret_file: {path} leads below none of [encryption] "
                f"secret_directories ({allowed})"
            )
        return real


def _unreadable(path: str, error: OSError) -> Invalid:
    return Invalid(f"encryption.secret_file: {path}: {error.strerror}")


def _refuse_open_to_others(path: str, found: os.stat_result) -> None:
    if not stat.S_ISREG(found.st_mode):
        raise Invalid(f"encryption.secret_file: {path} is no plain file")
    if found.st_uid not in (0, os.geteuid()) or found.st_mode & _TOO_OPEN:
        raise Invalid(
            f"encryption.secret_file: {path} has mode {stat.S_IMODE(found.st_mode):04o} and owner "
            f"{found.st_uid}: only root or the agent's user may own it, only they may write it, "
            "and others may not read it"
        )
