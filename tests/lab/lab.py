"""Everything real that a test needs, in one directory, gone when the test is.

    <temporary directory>/ua-lab-XXXXXXXX/     short: it holds sockets
        owner                                  locked as long as the lab's process lives
        broker/  libvirtd/  guests/  volumes/  agents/<host>/

Daemons and guests die with this process, however it ends (enclosure.py). Loop devices and the
directory of a killed process are removed when the next lab starts.
"""

import fcntl
import itertools
import os
import shutil
import tempfile
import uuid
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import IO, Self

from tests.lab.agent_process import AgentProcess, Options
from tests.lab.broker import Broker
from tests.lab.guest import Guest, Shape
from tests.lab.guest_image import GuestImage, cache_directory, guest_image
from tests.lab.libvirtd import Libvirtd
from tests.lab.loop_volume import LoopVolume, detach_leftovers

_PREFIX = "ua-lab-"


class Lab:
    """Broker and libvirtd start when they are first used; guests and volumes when asked for."""

    def __init__(self) -> None:
        self._stack = ExitStack()
        self._numbers = itertools.count(1)

    def __enter__(self) -> Self:
        if os.geteuid() != 0:
            raise PermissionError("the lab makes namespaces and loop devices: run this as root")
        _remove_leftovers()
        self.directory, owner = _make_directory()
        self._stack.callback(_remove, self.directory, owner)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """End all it started, last first, and remove the directory."""
        self._stack.close()

    @cached_property
    def broker(self) -> Broker:
        broker = self._starting_broker
        broker.wait_ready()
        return broker

    def begin_broker(self) -> None:
        """Start the broker, which takes seconds, and go on; the first use of it waits."""
        assert self._starting_broker

    @cached_property
    def _starting_broker(self) -> Broker:
        broker = Broker(self.directory / "broker")
        broker.open(wait=False)
        self._stack.callback(broker.close)
        return broker

    @cached_property
    def libvirtd(self) -> Libvirtd:
        return self._stack.enter_context(
            Libvirtd(self.directory / "libvirtd", cache_directory=cache_directory())
        )

    @cached_property
    def image(self) -> GuestImage:
        return guest_image(cache_directory())

    def guest(
        self,
        *,
        name: str | None = None,
        shape: Shape | None = None,
        is_persistent: bool = True,
        start: bool = True,
    ) -> Guest:
        """A guest, started but not waited for: call wait_ready() when all are started."""
        directory = self.directory / "guests"
        directory.mkdir(exist_ok=True)
        guest = Guest(
            self.libvirtd,
            self.image,
            directory,
            name or f"guest-{next(self._numbers)}",
            shape=shape,
            is_persistent=is_persistent,
        )
        self._stack.callback(guest.close)
        if start:
            guest.start()
        elif is_persistent:
            guest.define()
        return guest

    def guests(self, count: int, *, shape: Shape | None = None) -> list[Guest]:
        """So many guests, all booted."""
        booting = [self.guest(shape=shape) for _ in range(count)]
        for guest in booting:
            guest.wait_ready()
        return booting

    def stubborn_guest(self, *, is_persistent: bool = True) -> Guest:
        """A running guest without a system: keeps a virtio-blk disk until it is reset."""
        return self.guest(shape=Shape(has_system=False), is_persistent=is_persistent)

    def volume(self, *, volume_id: str | None = None, size_mib: int = 64) -> LoopVolume:
        directory = self.directory / "volumes"
        directory.mkdir(exist_ok=True)
        return self._stack.enter_context(
            LoopVolume(directory, volume_id or str(uuid.uuid4()), size_mib=size_mib)
        )

    def agent(
        self,
        host: str = "lab-host",
        *,
        options: Options | None = None,
        environment: Mapping[str, str] | None = None,
        allowed_paths: Sequence[str] = ("/dev",),
        program: Sequence[str] | None = None,
        libvirt_uri: str | None = None,
        start: bool = True,
    ) -> AgentProcess:
        """The agent, configured for this lab's broker and libvirtd; ready when started."""
        agent = AgentProcess(
            self.directory / "agents" / host,
            host=host,
            transport_url=self.broker.url,
            libvirt_uri=libvirt_uri or self.libvirtd.uri,
            allowed_paths=allowed_paths,
            options=options,
            environment=environment,
            program=program,
        )
        self._stack.callback(agent.close)
        if start:
            agent.start()
        return agent


def _make_directory() -> tuple[Path, IO[str]]:
    """A new directory, and the open file whose lock says that its owner lives."""
    directory = Path(tempfile.mkdtemp(prefix=_PREFIX))
    # Locked under another name first: a file named "owner" without a lock is a dead owner.
    owner = (directory / "owner.new").open("w")
    fcntl.flock(owner, fcntl.LOCK_EX)
    (directory / "owner.new").rename(directory / "owner")
    return directory, owner


def _remove(directory: Path, owner: IO[str]) -> None:
    detach_leftovers(directory)
    shutil.rmtree(directory, ignore_errors=True)
    owner.close()


def _remove_leftovers() -> None:
    for directory in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*"):
        try:
            owner = (directory / "owner").open()
            fcntl.flock(owner, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (FileNotFoundError, BlockingIOError):
            continue  # being made, or in use
        _remove(directory, owner)
