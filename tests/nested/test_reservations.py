"""Guests fence each other by SCSI persistent reservations, at a real target."""

import json
import subprocess
from typing import Any

import pytest

from tests.functional.orchestrator import Orchestrator, disks_of
from tests.lab.guest import Guest, GuestRefused
from tests.nested.inside.iscsi import PORTAL, Target
from tests.nested.inside.leftovers import sessions
from tests.nested.inside.storage import Storage
from tests.nested.inside.wishes import wish

RESERVING = {"bus": "scsi", "type": "lun", "reservations": "managed"}

WRITE_EXCLUSIVE = "--prout-type=1"

CONFLICT = "Invalid exchange"
"""EBADE: what Linux makes of RESERVATION CONFLICT."""


class Member:
    """A guest of the cluster, with the key that it registers."""

    def __init__(self, guest: Guest, volume_id: str, key: str) -> None:
        self.guest = guest
        self.key = key
        self.disk = guest.wait_for_disk(volume_id).name

    def register(self) -> None:
        self._out("--register", f"--param-sark={self.key}")

    def reserve(self) -> None:
        self._out("--reserve", f"--param-rk={self.key}", WRITE_EXCLUSIVE)

    def preempt(self, other: "Member") -> None:
        keys = (f"--param-rk={self.key}", f"--param-sark={other.key}")
        self._out("--preempt", *keys, WRITE_EXCLUSIVE)

    def clear(self) -> None:
        self._out("--clear", f"--param-rk={self.key}")

    def keys(self) -> set[str]:
        """That the target knows."""
        said = " ".join(self.guest.persist(self.disk, "--in", "--read-keys"))
        return {word for word in said.split() if word.startswith("0x") and len(word) < 8}

    def write(self, word: str) -> None:
        self.guest.write(self.disk, word)

    def read(self) -> str:
        return self.guest.read(self.disk)

    def cannot_write(self) -> None:
        with pytest.raises(GuestRefused, match=CONFLICT):
            self.write("forbidden")

    def _out(self, *options: str) -> None:
        self.guest.persist(self.disk, "--out", *options)


def stranger_writes(target: Target, lun: int, initiator: str) -> subprocess.CompletedProcess[str]:
    """By another host's initiator: QEMU's own, without a guest."""
    source = {
        "driver": "iscsi",
        "transport": "tcp",
        "portal": PORTAL,
        "target": target.iqn,
        "lun": lun,
        "initiator-name": initiator,
    }
    write = ["qemu-io", "-f", "raw", "-c", "write -P 0x61 1M 4k", f"json:{json.dumps(source)}"]
    return subprocess.run(write, capture_output=True, text=True, timeout=60, check=False)


@pytest.mark.usefixtures("single_path")
class TestReservations:
    def test_two_guests_of_one_host_by_initiators_of_their_own(
        self, orchestrator: Orchestrator, guests: list[Guest], storage: Storage
    ) -> None:
        target, backing = storage.lun(7, chap=("user", "secret-of-chap"))
        info = target.connection_info(7)
        own: dict[str, Any] = {"initiator": "instance", "disk": RESERVING}
        wishes = [wish(guest, backing, info, **own) for guest in guests]
        for wanted in wishes:
            orchestrator.attached(wanted)
        assert sessions() == set(), "the host has logged in"
        first, second = (
            Member(guest, backing.volume_id, key)
            for guest, key in zip(guests, ("0xa", "0xb"), strict=True)
        )
        first.write("before")
        assert second.read() == "before"

        first.register()
        second.register()
        assert first.keys() == {"0xa", "0xb"}, "the target takes both guests for one"
        first.reserve()
        first.write("by-the-holder")
        second.cannot_write()
        assert second.read() == "by-the-holder"

        second.preempt(first)
        assert second.keys() == {"0xb"}
        first.cannot_write()
        second.write("by-the-new-holder")
        assert first.read() == "by-the-new-holder"
        assert [guest.state for guest in guests] == ["running", "running"]

        second.clear()
        assert orchestrator.detached(wishes[0])["disconnected"] is True
        second.write("alone")
        assert orchestrator.detached(wishes[1])["disconnected"] is True
        assert sessions() == set()

    def test_one_guest_by_the_kernel(
        self, orchestrator: Orchestrator, guests: list[Guest], storage: Storage
    ) -> None:
        """What the reservation keeps out is another host, and a second guest here is refused."""
        target, backing = storage.lun(7)
        info = target.connection_info(7)
        wanted = wish(guests[0], backing, info, disk=RESERVING)
        orchestrator.attached(wanted)
        live, _ = disks_of(guests[0], wanted)
        assert live.find("source/reservations") is not None
        member = Member(guests[0], backing.volume_id, "0xa")
        stranger = "iqn.2026-01.org.example:another-host"
        assert stranger_writes(target, 7, stranger).returncode == 0

        member.register()
        member.reserve()
        assert member.keys() == {"0xa"}
        member.write("by-the-holder")
        refused = stranger_writes(target, 7, stranger)
        assert refused.returncode != 0, "the reservation keeps nobody out"

        second = orchestrator.attach(wish(guests[1], backing, info, disk=RESERVING))
        assert second.error is not None
        assert second.error.code == "sharing-conflict"

        member.clear()
        assert stranger_writes(target, 7, stranger).returncode == 0
        assert orchestrator.detached(wanted)["disconnected"] is True
