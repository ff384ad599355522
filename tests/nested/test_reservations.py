"""Guests fence each other by SCSI persistent reservations, at a real target."""

import json
import subprocess
from typing import Any

import pytest

from tests.functional.cluster import RESERVING, Member, fence_each_other
from tests.functional.orchestrator import Orchestrator, disks_of
from tests.lab.guest import Guest
from tests.lab.patience import PATIENCE
from tests.nested.inside.iscsi import PORTAL, Target
from tests.nested.inside.leftovers import sessions
from tests.nested.inside.storage import Storage
from tests.nested.inside.wishes import wish


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
    image = json.dumps({"driver": "raw", "file": source})
    write = ["qemu-io", "-c", "write -P 0x61 1M 4k", f"json:{image}"]
    return subprocess.run(write, capture_output=True, text=True, timeout=60 * PATIENCE, check=False)


@pytest.mark.usefixtures("single_path")
class TestReservations:
    @pytest.mark.exhaustive
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
        fence_each_other(first, second)
        assert [guest.state for guest in guests] == ["running", "running"]

        second.clear()
        assert orchestrator.detached(wishes[0])["disconnected"] is True
        second.write("alone")
        assert orchestrator.detached(wishes[1])["disconnected"] is True
        assert sessions() == set()

    @pytest.mark.exhaustive
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
