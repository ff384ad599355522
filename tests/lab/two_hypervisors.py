"""Two hypervisors on one machine, a wire between them, and guests that go from one to the other.

    <lab>/hypervisors/<name>/       as libvirtd.py has it; guests/ what its QEMUs made
    <lab>/guests/                   seen by each hypervisor as its own guests/

Each is a libvirtd with a hostname, a host uuid and a network namespace of its own; the wire is a
veth pair made inside, so that it goes when they do. Nothing but the two is on it: libvirtd listens
on TCP there, and asks nobody who he is. Volumes are loop devices, which both see by the same path.
Agents are outside, and reach their libvirtd by its socket and each other by the broker.
"""

import subprocess
import threading
from collections.abc import Mapping
from contextlib import ExitStack
from types import TracebackType
from typing import Self

from tests.lab.agent_process import AgentProcess, Options
from tests.lab.guest import Guest, Shape
from tests.lab.guest_image import cache_directory
from tests.lab.lab import Lab
from tests.lab.libvirtd import Libvirtd, Station
from tests.lab.patience import LabError

_WIRE = "wire0"
_ADDRESSES = {"left": "192.0.2.1", "right": "192.0.2.2"}
"""TEST-NET-1 (RFC 5737): nobody's, should a packet ever leave."""


class TwoHypervisors:
    """``left`` and ``right``, up and connected."""

    def __init__(self, lab: Lab) -> None:
        self._lab = lab
        self._stack = ExitStack()
        self._finding = threading.Lock()
        guests = lab.directory / "guests"
        guests.mkdir(exist_ok=True)
        self.left, self.right = (
            Libvirtd(
                lab.directory / "hypervisors" / name,
                cache_directory=cache_directory(),
                station=Station(name, address, guests),
            )
            for name, address in _ADDRESSES.items()
        )

    def __enter__(self) -> Self:
        try:
            for hypervisor in (self.left, self.right):
                self._stack.enter_context(hypervisor)
            self._lay_wire()
        except BaseException:
            self._stack.close()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stack.close()

    def _lay_wire(self) -> None:
        other_end = f"peer name {_WIRE} netns {self.right.enclosure.first_pid}"
        self._ip(self.left, f"link add {_WIRE} type veth {other_end}")
        for hypervisor in (self.left, self.right):
            self._ip(hypervisor, f"address add {address_of(hypervisor)}/30 dev {_WIRE}")
            self._ip(hypervisor, "link set lo up")
            self._ip(hypervisor, f"link set {_WIRE} up")

    def cut(self) -> None:
        """Nothing goes over the wire any more, and nobody is told."""
        self._ip(self.left, f"link set {_WIRE} down")

    def mend(self) -> None:
        self._ip(self.left, f"link set {_WIRE} up")

    def hang_up(self) -> None:
        """Neither has a connection to the other any more, and both know it."""
        for hypervisor in (self.left, self.right):
            address = address_of(self.other(hypervisor))
            self._inside(hypervisor, "ss", "--kill", "--tcp", "dst", address)

    def _ip(self, hypervisor: Libvirtd, words: str) -> None:
        self._inside(hypervisor, "ip", *words.split())

    @staticmethod
    def _inside(hypervisor: Libvirtd, *command: str) -> str:
        """In its network, and nowhere else: the other's pid is one of the outside."""
        entering = ["nsenter", "--target", str(hypervisor.enclosure.first_pid), "--net"]
        done = subprocess.run([*entering, *command], capture_output=True, text=True, timeout=30)
        if done.returncode:
            raise LabError(f"{' '.join(command)}: {done.stderr.strip()}")
        return done.stdout

    def other(self, hypervisor: Libvirtd) -> Libvirtd:
        return self.right if hypervisor is self.left else self.left

    def find(self, guest: Guest) -> Libvirtd:
        """Wherever it has gone: from now on it is asked there. LabError where it is nowhere."""
        with self._finding:
            for _ in range(3):  # it may go while it is looked for
                if guest.exists():
                    return guest.hypervisor
                guest.is_now_at(self.other(guest.hypervisor))
        raise LabError(f"{guest.name} is on neither hypervisor")

    def guest(
        self,
        name: str,
        *,
        shape: Shape | None = None,
        is_persistent: bool = True,
        start: bool = True,
    ) -> Guest:
        """On the left, started but not waited for."""
        guest = Guest(
            self.left,
            self._lab.image,
            self._lab.directory / "guests",
            name,
            shape=shape,
            is_persistent=is_persistent,
            migrates=True,
        )
        self._stack.callback(guest.close)
        if start:
            guest.start()
        elif is_persistent:
            guest.define()
        return guest

    def agent(
        self,
        hypervisor: Libvirtd,
        *,
        options: Options | None = None,
        environment: Mapping[str, str] | None = None,
        start: bool = True,
    ) -> AgentProcess:
        """The agent of that hypervisor, whose host is named as it is."""
        return self._lab.agent(
            hostname_of(hypervisor),
            libvirt_uri=hypervisor.uri,
            options=options,
            environment=environment,
            start=start,
        )


def hostname_of(hypervisor: Libvirtd) -> str:
    assert hypervisor.station is not None
    return hypervisor.station.hostname


def address_of(hypervisor: Libvirtd) -> str:
    """Where the other hypervisor reaches it."""
    assert hypervisor.station is not None
    return hypervisor.station.address


def libvirt_uri_for(hypervisor: Libvirtd) -> str:
    """By which the other hypervisor's libvirtd reaches this one's."""
    return f"qemu+tcp://{address_of(hypervisor)}/system"
