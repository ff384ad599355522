"""A volume grows under guests that run: they see it themselves, whatever it is made of."""

import os
import subprocess
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from oslo_config import cfg

from agent.bus.client import AgentClient
from agent.host.mounts import Mounts
from agent.model.outcome import Answer
from tests.functional.conftest import ANSWER_SECONDS, BARE, MakeVolume
from tests.functional.orchestrator import Orchestrator, Wish, assert_no_disk, disks_of, wish
from tests.lab.agent_process import AgentProcess
from tests.lab.guest import Guest
from tests.lab.lab import Lab
from tests.lab.loop_volume import LoopVolume

pytestmark = pytest.mark.real

MIB = 1 << 20

EXPORT = "192.0.2.40:/volumes"


def undone(answer: Answer) -> str:
    assert answer.state == "undone", answer
    assert answer.error is not None
    return answer.error.code


def test_two_guests_see_all_of_a_device_that_has_grown(
    orchestrator: Orchestrator, guests: list[Guest], volume: LoopVolume
) -> None:
    """By virtio-blk and by virtio-scsi, and they share what is new."""
    one = wish(guests[0], volume, multiattach=True)
    other = wish(guests[1], volume, multiattach=True, disk={"bus": "scsi"})
    orchestrator.attached(one)
    orchestrator.attached(other)
    first = guests[0].wait_for_size(volume.volume_id, 64 * MIB)
    guests[0].write(first, "before")
    volume.grow(96)
    rows = orchestrator.extended(volume.volume_id, 96 * MIB)
    for wanted in (one, other):
        row = rows[wanted["attachment_id"]]
        assert (row["guest_size_bytes"], row["error"]) == (96 * MIB, None)
    first = guests[0].wait_for_size(volume.volume_id, 96 * MIB)
    second = guests[1].wait_for_size(volume.volume_id, 96 * MIB)
    guests[0].write(first, "behind", offset_mib=95)
    assert guests[1].read(second, offset_mib=95) == "behind"
    assert guests[1].read(second) == "before"
    sizes = [row["device"]["size_bytes"] for row in orchestrator.client.list_attachments()]
    assert sizes == [96 * MIB] * 2
    for wanted in (one, other):
        orchestrator.detached(wanted)


def test_what_the_storage_side_has_not_done_is_told_and_no_guest_is(
    orchestrator: Orchestrator, guests: list[Guest], volume: LoopVolume
) -> None:
    wanted = wish(guests[0], volume)
    orchestrator.attached(wanted)
    client = orchestrator.client
    assert undone(orchestrator.finish(client.extend(volume.volume_id, 96 * MIB))) == (
        "connect-failed"
    )
    guests[0].wait_for_size(volume.volume_id, 64 * MIB)
    smaller = client.extend(volume.volume_id, 32 * MIB)
    assert smaller.error is not None
    assert (smaller.state, smaller.error.code) == ("refused", "invalid")
    volume.grow(96)
    orchestrator.extended(volume.volume_id, 96 * MIB)
    guests[0].wait_for_size(volume.volume_id, 96 * MIB)
    orchestrator.detached(wanted)


def test_one_that_reads_only_is_told_of_and_the_other_grows(
    orchestrator: Orchestrator, guests: list[Guest], volume: LoopVolume
) -> None:
    reader = wish(guests[0], volume, multiattach=True, access_mode="ro")
    writer = wish(guests[1], volume, multiattach=True)
    orchestrator.attached(reader)
    orchestrator.attached(writer)
    volume.grow(80)
    rows = orchestrator.extended(volume.volume_id, 80 * MIB)
    assert rows[reader["attachment_id"]]["error"]["code"] == "unsupported"
    assert rows[writer["attachment_id"]]["guest_size_bytes"] == 80 * MIB
    guests[1].wait_for_size(volume.volume_id, 80 * MIB)
    guests[0].wait_for_size(volume.volume_id, 64 * MIB)
    for wanted in (reader, writer):
        orchestrator.detached(wanted)


def test_a_guest_that_is_shut_off_starts_with_the_new_size(
    orchestrator: Orchestrator, lab: Lab, make_volume: MakeVolume
) -> None:
    guest, volume = lab.guest(shape=BARE, start=False), make_volume(size_mib=8)
    wanted = wish(guest, volume, disk={"bus": "scsi"})
    orchestrator.attached(wanted)
    volume.grow(16)
    row = orchestrator.extended(volume.volume_id, 16 * MIB)[wanted["attachment_id"]]
    assert (row["device_size_bytes"], row["guest_size_bytes"]) == (16 * MIB, None)
    guest.start()
    (target, *_) = [disk.find("target").get("dev") for disk in disks_of(guest, wanted)]
    assert guest.domain.blockInfo(target)[0] == 16 * MIB
    orchestrator.detached(wanted)
    guest.destroy()
    guest.undefine()


@pytest.fixture(scope="module")
def export(lab: Lab) -> Iterator[Path]:
    base = lab.directory / "mounts"
    base.mkdir(mode=0o755)
    there = Path(Mounts(str(base), None).directory_of(EXPORT))
    there.mkdir(mode=0o755)
    with ExitStack() as mounted:
        # Onto itself: libvirtd has mounts of its own, and finds the same files there without it.
        subprocess.run(["mount", "--bind", str(there), str(there)], check=True)
        mounted.callback(subprocess.run, ["umount", str(there)], check=False)
        # Somebody else's file: the agent does not unmount what is busy.
        mounted.enter_context(open(there / "somebody-elses", "w"))
        yield there


@pytest.fixture(scope="module")
def files_agent(lab: Lab, export: Path) -> AgentProcess:
    tools = lab.directory / "tools"
    tools.mkdir()
    (tools / "mount.nfs").write_text("#!/bin/sh\nexit 1\n")  # looked for, and never run
    (tools / "mount.nfs").chmod(0o755)
    agent = lab.agent(
        "files-host",
        options={"storage": {"nfs_mount_point_base": export.parent}},
        environment={"PATH": f"{tools}:{os.environ['PATH']}"},
    )
    agent.wait_connected()
    return agent


class TestFiles:
    """QEMU itself makes them larger. The export is mounted already: a directory of this machine."""

    @pytest.fixture
    def orchestrator(
        self, lab: Lab, files_agent: AgentProcess, guests: list[Guest]
    ) -> Iterator[Orchestrator]:
        with AgentClient(
            cfg.CONF, files_agent.host, url=lab.broker.url, timeout_seconds=ANSWER_SECONDS
        ) as client:
            orchestrator = Orchestrator(client)
            yield orchestrator
            try:
                orchestrator.assert_idle()
                assert_no_disk(guests)
            finally:
                orchestrator.leave_nothing()

    @pytest.fixture
    def make_file(self, export: Path) -> Callable[[str], str]:
        def make(image_format: str) -> str:
            volume_id = str(uuid.uuid4())
            path = export / volume_id
            command = ["qemu-img", "create", "-q", "-f", image_format, str(path), "64M"]
            subprocess.run(command, check=True, timeout=60)
            path.chmod(0o666)
            return volume_id

        return make

    def wish(self, guest: Guest, volume_id: str, image_format: str, **other: Any) -> Wish:
        data = {"export": EXPORT, "name": volume_id, "format": image_format}
        return {
            "attachment_id": str(uuid.uuid4()),
            "instance_id": guest.uuid,
            "volume_id": volume_id,
            "connection_info": {"driver_volume_type": "nfs", "data": data},
            **other,
        }

    def test_a_raw_file_of_two_guests(
        self,
        orchestrator: Orchestrator,
        guests: list[Guest],
        export: Path,
        make_file: Callable[[str], str],
    ) -> None:
        volume_id = make_file("raw")
        wishes = [self.wish(guest, volume_id, "raw", multiattach=True) for guest in guests[:2]]
        for wanted in wishes:
            orchestrator.attached(wanted)
        rows = orchestrator.extended(volume_id, 96 * MIB)
        assert (export / volume_id).stat().st_size == 96 * MIB
        for wanted in wishes:
            row = rows[wanted["attachment_id"]]
            assert (row["guest_size_bytes"], row["device_size_bytes"]) == (96 * MIB,) * 2
        names = [guest.wait_for_size(volume_id, 96 * MIB) for guest in guests[:2]]
        guests[0].write(names[0], "behind", offset_mib=95)
        assert guests[1].read(names[1], offset_mib=95) == "behind"
        assert orchestrator.extended(volume_id, 96 * MIB).keys() == rows.keys()
        for wanted in wishes:
            orchestrator.detached(wanted)

    def test_a_qcow2_file(
        self,
        orchestrator: Orchestrator,
        guests: list[Guest],
        export: Path,
        make_file: Callable[[str], str],
    ) -> None:
        volume_id = make_file("qcow2")
        wanted = self.wish(guests[2], volume_id, "qcow2")
        orchestrator.attached(wanted)
        row = orchestrator.extended(volume_id, 96 * MIB)[wanted["attachment_id"]]
        assert (row["guest_size_bytes"], row["device_size_bytes"]) == (96 * MIB,) * 2
        name = guests[2].wait_for_size(volume_id, 96 * MIB)
        guests[2].write(name, "behind", offset_mib=95)
        assert (export / volume_id).stat().st_size < 64 * MIB
        (listed,) = orchestrator.client.list_attachments()
        assert listed["device"]["size_bytes"] == 96 * MIB
        orchestrator.detached(wanted)

    def test_a_file_that_no_guest_runs_with_stays_as_it_is(
        self,
        orchestrator: Orchestrator,
        lab: Lab,
        export: Path,
        make_file: Callable[[str], str],
    ) -> None:
        volume_id, guest = make_file("raw"), lab.guest(shape=BARE, start=False)
        wanted = self.wish(guest, volume_id, "raw")
        orchestrator.attached(wanted)
        answer = orchestrator.finish(orchestrator.client.extend(volume_id, 96 * MIB))
        assert undone(answer) == "unsupported"
        assert (export / volume_id).stat().st_size == 64 * MIB
        orchestrator.detached(wanted)
        guest.undefine()
