"""The lab tells the truth: what the other functional tests take for granted about it."""

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

import libvirt
import pytest

from tests.functional.stranger import ask_to_unplug, is_plugged, plug, unplug
from tests.lab.guest import Guest, GuestRefused, Shape, block_of
from tests.lab.lab import Lab
from tests.lab.loop_volume import LoopVolume
from tests.lab.patience import LabError, wait_until

kombu: Any = import_module("kombu")  # it has no types

pytestmark = pytest.mark.real


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    with Lab() as lab:
        lab.begin_broker()
        yield lab


@pytest.fixture(scope="module")
def guests(lab: Lab) -> list[Guest]:
    return lab.guests(2)


@pytest.fixture
def volume(lab: Lab) -> Iterator[LoopVolume]:
    with lab.volume() as volume:
        yield volume
        volume.assert_unused()


@pytest.mark.parametrize("half", ["0 write vda", "0 li", "0", "0 write vda 1 wor"])
def test_a_guest_survives_half_a_command_and_does_not_obey_it(
    guests: list[Guest], half: str
) -> None:
    """Number 0: what is asked next, from 1 on, must not take its answer for its own."""
    booted = guests[0].boot_id()
    guests[0].break_off(half)
    assert guests[0].boot_id() == booted


@pytest.mark.parametrize("bus", ["virtio", "scsi"])
def test_a_plugged_disk_is_there_in_the_guest_and_gone_when_unplugged(
    guests: list[Guest], volume: LoopVolume, bus: str
) -> None:
    guest = guests[0]
    plug(guest, volume, bus=bus)
    disk = guest.wait_for_disk(volume.volume_id)
    assert disk.size_bytes == volume.size_bytes
    assert not disk.read_only
    assert len(volume.users()) == 1

    unplug(guest, volume)
    assert guest.find_disk(volume.volume_id) is None
    volume.assert_unused()


def test_two_guests_see_each_others_bytes_and_a_reader_cannot_write(
    guests: list[Guest], volume: LoopVolume
) -> None:
    writer, reader = guests
    plug(writer, volume)
    plug(reader, volume, read_only=True)
    written, seen = (guest.wait_for_disk(volume.volume_id) for guest in guests)
    assert seen.read_only

    assert reader.read(seen.name, offset_mib=5) == ""
    for word in ("first", "second"):
        writer.write(written.name, word, offset_mib=5)
        assert reader.read(seen.name, offset_mib=5) == word
        assert volume.read(offset_mib=5) == block_of(word)
    assert writer.checksum(written.name, count_mib=8) == reader.checksum(seen.name, count_mib=8)
    with pytest.raises(GuestRefused):
        reader.write(seen.name, "forbidden", offset_mib=5)
    assert writer.read(written.name, offset_mib=5) == "second"

    for guest in guests:
        unplug(guest, volume)


def test_a_torn_block_is_noticed(guests: list[Guest], volume: LoopVolume) -> None:
    plug(guests[0], volume)
    disk = guests[0].wait_for_disk(volume.volume_id)
    guests[0].write(disk.name, "whole")
    with open(volume.path, "r+b", buffering=0) as device:
        device.write(block_of("other")[:512])
    with pytest.raises(LabError, match="torn"):
        guests[0].read(disk.name)
    unplug(guests[0], volume)


def test_a_disk_held_open_in_the_guest_leaves_all_the_same(
    guests: list[Guest], volume: LoopVolume
) -> None:
    plug(guests[0], volume)
    disk = guests[0].wait_for_disk(volume.volume_id)
    guests[0].hold(disk.name)
    unplug(guests[0], volume)
    guests[0].let_go(disk.name)


def test_a_grown_volume_is_grown_in_the_guest_when_it_is_told(
    guests: list[Guest], volume: LoopVolume
) -> None:
    plug(guests[0], volume)
    before = guests[0].wait_for_disk(volume.volume_id)
    volume.grow(96)
    guests[0].domain.blockResize("vdz", volume.size_bytes, libvirt.VIR_DOMAIN_BLOCK_RESIZE_BYTES)
    wait_until(
        lambda: guests[0].wait_for_disk(volume.volume_id).size_bytes == 96 * 1024 * 1024,
        f"the guest sees that {before.name} has grown",
        seconds=10,
    )
    unplug(guests[0], volume)


def test_a_stubborn_guest_keeps_its_disk_until_it_is_reset(lab: Lab, volume: LoopVolume) -> None:
    guest = lab.stubborn_guest()
    plug(guest, volume)
    ask_to_unplug(guest, volume)
    time.sleep(2)
    assert is_plugged(guest, volume)
    assert volume.users()

    guest.reset()
    wait_until(lambda: not is_plugged(guest, volume), "the reset lets go", seconds=10)
    volume.assert_unused()
    assert guest.state == "running"
    guest.destroy()


def test_guests_and_their_disks_live_on_when_libvirtd_is_killed_or_restarted(
    lab: Lab, guests: list[Guest], volume: LoopVolume
) -> None:
    plug(guests[0], volume)
    disk = guests[0].wait_for_disk(volume.volume_id)
    before = lab.libvirtd.guest_pids()
    assert {guest.name for guest in guests} <= set(before)

    daemon = lab.libvirtd.pid
    lab.libvirtd.kill()
    guests[0].write(disk.name, "alone")
    lab.libvirtd.start()
    lab.libvirtd.restart()
    assert lab.libvirtd.pid != daemon

    assert lab.libvirtd.guest_pids() == before
    assert guests[0].state == "running"
    assert guests[0].read(disk.name) == "alone"
    unplug(guests[0], volume)


def test_a_libvirtd_that_was_stopped_and_went_on_can_be_ended(lab: Lab) -> None:
    os.kill(lab.libvirtd.pid, signal.SIGSTOP)
    os.kill(lab.libvirtd.pid, signal.SIGCONT)
    lab.libvirtd.restart()
    assert lab.libvirtd.connection().isAlive()


def test_a_guest_pauses_reboots_powers_off_and_starts_again(lab: Lab) -> None:
    guest = lab.guest(start=False)
    assert guest.state == "shut off"
    guest.start(paused=True)
    assert guest.state == "paused"
    guest.resume()
    guest.wait_ready()
    guest.reboot()
    guest.wait_ready()
    guest.reset()
    guest.wait_ready()
    guest.shutdown()
    assert guest.state == "shut off"
    guest.undefine()
    assert guest.state == "gone"


def test_a_transient_guest_is_gone_when_it_stops(lab: Lab) -> None:
    guest = lab.guest(shape=Shape(has_system=False), is_persistent=False)
    assert guest.state == "running"
    assert not guest.domain.isPersistent()
    guest.destroy()
    assert guest.state == "gone"


def test_a_durable_queue_outlives_a_killed_and_a_restarted_broker(lab: Lab) -> None:
    url = lab.broker.url.replace("rabbit:", "amqp:")  # oslo's name of the scheme, and kombu's
    # Without a routing key the default exchange would drop what is put, and confirm it too.
    queue = kombu.Queue("lab", routing_key="lab", durable=True)
    confirmed = {"confirm_publish": True}
    with (
        kombu.Connection(url, transport_options=confirmed) as connection,
        connection.SimpleQueue(queue) as lasting,
    ):
        lasting.put("still here")
    lab.broker.kill()
    lab.broker.start()
    lab.broker.restart()
    with kombu.Connection(url) as connection, connection.SimpleQueue(queue) as lasting:
        assert lasting.get(timeout=10).payload == "still here"


# --- the agent's process, played by a few lines ------------------------------------

_ACTOR = """
import os, signal, socket, sys
with open(sys.argv[2]) as file:
    print(file.read(), os.environ.get("WORD"), flush=True)
if os.environ.get("WORD") == "fail":
    sys.exit("no such luck")
signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notify:
    notify.sendto(b"STATUS=up\\nREADY=1", os.environ["NOTIFY_SOCKET"])
signal.pause()
"""


def test_the_agents_process_starts_is_killed_and_starts_again(lab: Lab) -> None:
    agent = lab.agent(
        "actor",
        program=[sys.executable, "-c", _ACTOR],
        options={"journal": {"retention_seconds": 60}, "DEFAULT": {"debug": "false"}},
    )
    assert agent.statuses == ["STATUS=up", "READY=1"]
    said = agent.output_file.read_text()
    for line in (f"uri = {lab.libvirtd.uri}", "retention_seconds = 60", "debug = false"):
        assert line in said
    first = agent.pid

    agent.kill()
    assert agent.exit_code == -signal.SIGKILL
    agent.start(environment={"WORD": "hello"})
    assert agent.pid != first
    assert "hello" in agent.output_file.read_text()
    assert agent.stop() == 0
    with pytest.raises(LabError, match="no such luck"):
        agent.start(environment={"WORD": "fail"})


# --- nothing is left ---------------------------------------------------------------

_VICTIM = """
import sys, time
from tests.lab.lab import Lab
with Lab() as lab:
    volume = lab.volume()
    guest = lab.stubborn_guest()
    actor = lab.agent("actor", program=[sys.executable, "-c", sys.argv[1]])
    pids = [lab.libvirtd.pid, lab.broker.pid, actor.pid, *lab.libvirtd.guest_pids().values()]
    print(lab.directory, volume.path, *pids, flush=True)
    time.sleep(1000)
"""


@pytest.fixture
def own_root(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Labs are made there, and no other test's next one removes what is left. Its name is short:
    there are sockets in it."""
    with tempfile.TemporaryDirectory(prefix="v-") as root:
        monkeypatch.setattr(tempfile, "tempdir", root)
        yield root


def test_a_killed_test_leaves_no_process_and_the_next_lab_removes_the_rest(own_root: str) -> None:
    victim = subprocess.Popen(
        [sys.executable, "-c", _VICTIM, _ACTOR],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "TMPDIR": own_root},
    )
    assert victim.stdout is not None
    with victim.stdout as output:
        directory, device, *pids = output.readline().split()
    victim.kill()
    victim.wait()
    assert len(pids) == 4
    for pid in pids:
        wait_until(partial(has_ended, int(pid)), f"{pid} ends", seconds=10)
    assert Path(directory).is_relative_to(own_root)
    assert Path(directory).exists()

    with Lab():
        assert not Path(directory).exists()
        assert directory not in subprocess.check_output(["losetup", "--list"], text=True), device


def has_ended(pid: int) -> bool:
    return not Path(f"/proc/{pid}").exists()
