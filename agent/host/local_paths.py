"""Which paths of this host a request may name itself: [local] allowed_paths."""

import os
import stat
import subprocess
from collections.abc import Iterable, Sequence
from pathlib import Path

from agent.errors import Invalid, Unavailable
from agent.host.block_devices import BlockDevices
from agent.host.bounded import Spawn, run_bounded

ANSWER_SECONDS = 10.0
"""What a file system may take to tell of a file: who sent the request waits meanwhile."""

_OTHERS_MAY_WRITE = stat.S_IWGRP | stat.S_IWOTH


class LocalPaths:
    """Whoever may send requests may hand what is below ``allowed`` to a guest, and nothing else.

    Links are resolved first. A link in /dev itself that only root can have made counts as what
    it is below: /dev/vg-volumes/lv and /dev/drbd/by-res/r0/0 lead to /dev/dm-3 and /dev/drbd1000,
    which say nothing about who may have them.
    """

    def __init__(
        self,
        allowed: Sequence[str],
        devices: BlockDevices,
        dev: Path = Path("/dev"),
        spawn: Spawn = subprocess.Popen,
    ) -> None:
        self._spawn = spawn
        self._devices = devices
        self._named = tuple(allowed)
        self._allowed = tuple(
            Path(os.path.realpath(path)) for path in allowed if not devices.is_far(path)
        )
        self._dev = dev

    def check_device(self, path: str) -> None:
        """Raises Invalid unless it is an allowed block device of this host."""
        if self._devices.is_far(path):
            raise Invalid(f"{path} is a file of a network file system; nothing was touched")
        self._refuse_none_allowed(path)
        real = Path(os.path.realpath(path))
        if not (_is_below(real, self._allowed) or self._is_below_by_name(path)):
            raise self._not_allowed(path, real)
        if not os.path.exists(real):
            raise Invalid(f"there is no {path} on this host; nothing was touched")
        if self._devices.look(path) is None:
            raise Invalid(f"{path} is no block device; nothing was touched")

    def check_file(self, path: object) -> None:
        """Raises Invalid unless it is an allowed plain file of this host; Unavailable where its
        file system does not answer."""
        if not isinstance(path, str) or not path.startswith("/"):
            raise Invalid("connection_info.data.device_path must be an absolute path")
        self._refuse_none_allowed(path)
        resolve = ("realpath", "--zero", "--canonicalize-missing", "--")
        real, *allowed = self._ask(*resolve, path, *self._named).split("\0")[:-1]
        if not _is_below(Path(real), map(Path, allowed)):
            raise self._not_allowed(path, real)
        if not self._ask("stat", "--format=%F", "--", real).startswith("regular "):
            raise Invalid(f"{path} is no plain file; nothing was touched")

    def _ask(self, *command: str) -> str:
        """By a child, which may wait for the server of the file."""
        try:
            told, _ = run_bounded([*command], ANSWER_SECONDS, self._spawn)
        except subprocess.TimeoutExpired as error:
            raise Unavailable(
                "a file system that the request or [local] allowed_paths names",
                f"it has not answered for {ANSWER_SECONDS:g} s; nothing was touched",
            ) from error
        return told

    def _refuse_none_allowed(self, path: str) -> None:
        if not self._named:
            raise Invalid(
                f"{path} is not allowed: [local] allowed_paths of this host is empty, so no local "
                "volume is attached; nothing was touched: name the directories of such volumes "
                "there and restart the agent"
            )

    def _not_allowed(self, path: str, real: object) -> Invalid:
        return Invalid(
            f"{path} is {real}, which is below none of [local] allowed_paths "
            f"({', '.join(self._named)}); nothing was touched"
        )

    def _is_below_by_name(self, path: str) -> bool:
        directory = Path(os.path.realpath(os.path.dirname(path)))
        is_below = _is_below(directory / os.path.basename(path), self._allowed)
        return is_below and self._only_root(directory)

    def _only_root(self, directory: Path) -> bool:
        """Is it in /dev itself (not /dev/shm, another file system), and written by root alone?"""
        try:
            found, dev = directory.stat(), self._dev.stat()
        except OSError:
            return False
        return (
            directory.is_relative_to(self._dev)
            and found.st_dev == dev.st_dev
            and found.st_uid == 0
            and not found.st_mode & _OTHERS_MAY_WRITE
        )


def _is_below(path: Path, directories: Iterable[Path]) -> bool:
    return any(path.is_relative_to(directory) for directory in directories)
