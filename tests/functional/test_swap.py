"""A guest's disk moves to another volume while the guest writes: nothing is lost, whoever dies."""

import os
import random
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from functools import partial
from pathlib import Path
from signal import SIGKILL
from types import TracebackType
from typing import Any, Self

import libvirt
import pytest

from agent.guest.domain_xml import parse_domain
from agent.model.outcome import Answer
from tests.functional.conftest import MakeVolume
from tests.functional.orchestrator import Orchestrator, Wish, alias_of, halves, wish
from tests.lab.agent_process import AgentProcess
from tests.lab.guest import Guest, block_of
from tests.lab.lab import Lab
from tests.lab.loop_volume import LoopVolume
from tests.lab.patience import LabError, wait_until
from tests.lab.serial_line import GuestRefused

pytestmark = pytest.mark.real

MIB = 1 << 20


class Writer:
    """A guest that writes all the time, and knows what it has written."""

    def __init__(self, guest: Guest, disk: str, size_mib: int = 64) -> None:
        self._guest, self._disk, self._size_mib = guest, disk, size_mib
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._write)
        self._error: Exception | None = None
        self.written: dict[int, str] = {}

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._over.set()
        self._thread.join()
        if error is None:
            assert self._error is None, f"a write failed: {self._error}"
            assert self.written

    def _write(self) -> None:
        number = 0
        while not self._over.is_set() and self._error is None:
            offset_mib, pattern = number * 7 % self._size_mib, f"round-{number}"
            try:
                self._guest.write(self._disk, pattern, offset_mib=offset_mib)
            except (OSError, LabError, GuestRefused) as error:
                self._error = error
            self.written[offset_mib] = pattern
            number += 1

    def assert_on(self, volume: LoopVolume) -> None:
        for offset_mib, pattern in self.written.items():
            assert volume.read(offset_mib) == block_of(pattern), f"at {offset_mib} MiB"


class Swaps:
    """One guest's disk on its way from volume to volume."""

    def __init__(self, orchestrator: Orchestrator, guest: Guest, volume: LoopVolume) -> None:
        self.orchestrator, self.guest, self.volume = orchestrator, guest, volume
        self.wanted = self.first = wish(guest, volume)
        orchestrator.attached(self.wanted)
        self.disk = guest.wait_for_disk(volume.volume_id).name

    def ask(self, volume: LoopVolume, **wishes: Any) -> tuple[Wish, Answer]:
        new = wish(self.guest, volume)
        answer = self.orchestrator.client.swap(self.wanted["attachment_id"], new, **wishes)
        assert answer.state != "refused", answer
        return new, answer

    def to(self, volume: LoopVolume, **wishes: Any) -> Answer:
        new, accepted = self.ask(volume, **wishes)
        return self.ended(new, volume, self.orchestrator.finish(accepted))

    def ended(self, new: Wish, volume: LoopVolume, answer: Answer) -> Answer:
        """It must have been done: the guest has the volume in both halves, and no other."""
        assert answer.state == "done", answer
        for xml in halves(self.guest):
            (disk,) = [one for one in parse_domain(xml).disks if one.alias]
            assert (disk.source, disk.serial) == (volume.path, self.first["volume_id"])
            assert disk.alias == alias_of(self.first)
        (row,) = self.orchestrator.client.list_attachments()
        assert row["attachment_id"] == new["attachment_id"]
        assert row["disk"]["alias"] == alias_of(self.first)
        self.volume.assert_unused()
        self.wanted, self.volume = new, volume
        return answer

    def stays(self) -> None:
        """The guest is where it was, and writes there."""
        self.guest.write(self.disk, "still-here", offset_mib=1)
        assert self.volume.read(1) == block_of("still-here")
        (row,) = self.orchestrator.client.list_attachments()
        assert row["attachment_id"] == self.wanted["attachment_id"]


@pytest.fixture
def swaps(orchestrator: Orchestrator, guests: list[Guest], volume: LoopVolume) -> Iterator[Swaps]:
    swaps = Swaps(orchestrator, guests[0], volume)
    yield swaps
    orchestrator.detached(swaps.wanted)
    guests[0].wait_for_no_disk(swaps.first["volume_id"])


def far(swaps: Swaps, accepted: Answer, percent: int) -> None:
    """As soon as so much is copied."""
    operation_id = accepted.operation_id
    assert operation_id is not None

    def look() -> bool:
        answer = swaps.orchestrator.client.get_operation(operation_id)
        assert not answer.closed, answer
        return answer.progress is not None and answer.progress.percent >= percent

    wait_until(look, f"{percent} % are copied", seconds=60)


def slow_down_at(swaps: Swaps, percent: int) -> None:
    """Faster until so much is copied, by QEMU's own word; then it takes many seconds more."""
    domain, target_dev = swaps.guest.domain, copied_disk(swaps)
    limit_copy(swaps, 4 * MIB)

    def look() -> bool:
        job = domain.blockJobInfo(target_dev)
        assert job, "the copy is over"
        return bool(100 * job["cur"] >= percent * job["end"])

    wait_until(look, f"{percent} % are copied", seconds=60)
    limit_copy(swaps, MIB)


def limit_copy(swaps: Swaps, bytes_a_second: int) -> None:
    """0: as fast as it goes."""
    swaps.guest.domain.blockJobSetSpeed(
        copied_disk(swaps), bytes_a_second, libvirt.VIR_DOMAIN_BLOCK_JOB_SPEED_BANDWIDTH_BYTES
    )


def copied_disk(swaps: Swaps) -> str:
    facts = parse_domain(swaps.guest.domain.XMLDesc(0))
    (disk,) = [one for one in facts.disks if one.copies_to]
    return disk.target_dev


def code(answer: Answer) -> str:
    assert answer.state in ("undone", "cancelled"), answer
    assert answer.error is not None
    return answer.error.code


def test_a_guest_that_writes_keeps_every_write(swaps: Swaps, make_volume: MakeVolume) -> None:
    new = make_volume()
    with Writer(swaps.guest, swaps.disk) as writer:
        answer = swaps.to(new, synchronous_writes=True)
    writer.assert_on(new)
    assert answer.progress is None
    assert isinstance(answer.result, dict)
    assert answer.result["device"]["path"] == new.path
    late = swaps.orchestrator.detach(swaps.first)
    assert late.state == "done"
    swaps.stays()
    limits = swaps.orchestrator.client.set_iotune(
        swaps.wanted["attachment_id"], {"total_iops_sec": 5000}
    )
    assert swaps.orchestrator.finish(limits).state == "done"
    new.grow(80)
    grown = swaps.orchestrator.finish(
        swaps.orchestrator.client.extend(new.volume_id, new.size_bytes)
    )
    assert isinstance(grown.result, list)
    assert [row["guest_size_bytes"] for row in grown.result] == [80 * MIB]


def test_agent_and_libvirtd_die_while_it_copies(
    swaps: Swaps, make_volume: MakeVolume, agent: AgentProcess, lab: Lab
) -> None:
    new_volume = make_volume()
    with Writer(swaps.guest, swaps.disk) as writer:
        new, accepted = swaps.ask(new_volume, bandwidth_bytes_per_second=MIB)
        far(swaps, accepted, 1)
        slow_down_at(swaps, 10)
        agent.kill()
        assert swaps.guest.domain.isPersistent() == 1
        agent.start()
        slow_down_at(swaps, 50)
        lab.libvirtd.kill()
        lab.libvirtd.start()
        assert swaps.guest.domain.isPersistent() == 1
        slow_down_at(swaps, 90)
        agent.kill()
        lab.libvirtd.kill()
        lab.libvirtd.start()
        limit_copy(swaps, 0)  # before the agent looks: it may be ready by then, and is not over
        agent.start()
        answer = swaps.orchestrator.finish(accepted)
        swaps.ended(new, new_volume, answer)
        assert swaps.guest.domain.isPersistent() == 1
    writer.assert_on(new_volume)


@pytest.mark.timeout(600)
def test_libvirtd_dies_when_it_is_ready_and_in_the_pivot(
    swaps: Swaps,
    make_volume: MakeVolume,
    agent: AgentProcess,
    lab: Lab,
    rounds: int,
    seed: int,
) -> None:
    """The agent is dead as well, and finds what has become of it.

    libvirt 9.0 may not know any more what QEMU has, or that the guest runs at all."""
    guest, chance = swaps.guest, random.Random(seed)
    volumes = [swaps.volume, make_volume()]
    deaths = [at_once, *[in_the_pivot(chance.uniform(0, 0.03)) for _ in range(2 * rounds)]]
    for number, dies in enumerate(deaths):
        [to] = [volume for volume in volumes if volume is not swaps.volume]
        with Writer(guest, swaps.disk) as writer:
            new, accepted = swaps.ask(to, bandwidth_bytes_per_second=MIB)
            far(swaps, accepted, 1)
            agent.kill()
            limit_copy(swaps, 0)
            wait_until(lambda: is_ready(swaps), "the copy is ready", seconds=60)
            dies(swaps, lab)
            lab.libvirtd.start()
            agent.start()
            rests = wait_until(partial(comes_to_rest, swaps, accepted), "it rests", seconds=60)
        writer.assert_on(to)
        is_lost = guest.state == "shut off"
        print(f"{number}: {rests.state}, waiting for {rests.waiting_for}, lost: {is_lost}")
        if is_lost:
            os.kill(lab.libvirtd.guest_pids()[guest.name], SIGKILL)
            wait_until(
                lambda: guest.name not in lab.libvirtd.guest_pids(), "its QEMU is gone", seconds=10
            )
        elif not rests.closed:
            guest.destroy()
        if guest.state == "shut off":
            guest.start()
            guest.wait_ready()
        answer = swaps.orchestrator.finish(accepted)
        assert guest.domain.isPersistent() == 1
        if is_lost and answer.error is not None:  # its definition was not yet changed
            assert answer.error.code == "copy-failed"
        else:
            swaps.ended(new, to, answer)
            writer.assert_on(to)


def comes_to_rest(swaps: Swaps, accepted: Answer) -> Answer | None:
    """It has ended, or waits for what does not come by itself."""
    assert accepted.operation_id is not None
    answer = swaps.orchestrator.client.get_operation(accepted.operation_id)
    return answer if answer.closed or "started anew" in str(answer.waiting_for) else None


def at_once(_: Swaps, lab: Lab) -> None:
    lab.libvirtd.kill()


def in_the_pivot(seconds: float) -> Callable[[Swaps, Lab], None]:
    """So long after it was asked for."""

    def dies(swaps: Swaps, lab: Lab) -> None:
        domain, disk = swaps.guest.domain, copied_disk(swaps)

        def pivot() -> None:
            with suppress(libvirt.libvirtError):  # nobody is left to answer
                domain.blockJobAbort(disk, libvirt.VIR_DOMAIN_BLOCK_JOB_ABORT_PIVOT)

        asked = threading.Thread(target=pivot)
        asked.start()
        asked.join(seconds)
        lab.libvirtd.kill()
        asked.join()

    return dies


def is_ready(swaps: Swaps) -> bool:
    facts = parse_domain(swaps.guest.domain.XMLDesc(0))
    return any(disk.is_copied for disk in facts.disks)


def test_cancelled_it_is_as_if_nothing_had_been(swaps: Swaps, make_volume: MakeVolume) -> None:
    new = make_volume()
    _, accepted = swaps.ask(new, bandwidth_bytes_per_second=MIB)
    far(swaps, accepted, 1)
    busy = swaps.orchestrator.client.detach(
        swaps.wanted["attachment_id"], swaps.wanted["instance_id"]
    )
    assert busy.error is not None
    assert (busy.state, busy.error.code) == ("refused", "busy")
    assert accepted.operation_id is not None
    swaps.orchestrator.client.cancel_operation(accepted.operation_id)
    assert code(swaps.orchestrator.finish(accepted)) == "cancelled"
    new.assert_unused()
    swaps.stays()


def test_a_larger_volume_and_one_that_is_too_small(swaps: Swaps, make_volume: MakeVolume) -> None:
    larger, smaller = make_volume(size_mib=96), make_volume(size_mib=32)
    answer = swaps.to(larger)
    assert any("not-grown" in warning for warning in answer.warnings)
    assert swaps.guest.wait_for_disk(swaps.first["volume_id"]).size_bytes == 64 * MIB
    new = wish(swaps.guest, smaller)
    told = swaps.orchestrator.client.swap(swaps.wanted["attachment_id"], new)
    assert told.error is not None
    assert (told.state, told.error.code) == ("refused", "invalid")
    del new["size_bytes"]
    found = swaps.orchestrator.client.swap(swaps.wanted["attachment_id"], new)
    assert code(swaps.orchestrator.finish(found)) == "connect-failed"
    swaps.stays()


def test_a_disk_that_is_only_read_goes_over_as_well(
    orchestrator: Orchestrator, guests: list[Guest], make_volume: MakeVolume
) -> None:
    guest, old, new = guests[0], make_volume(), make_volume()
    Path(old.path).write_bytes(block_of("read-me"))
    wanted = wish(guest, old, access_mode="ro")
    orchestrator.attached(wanted)
    disk = guest.wait_for_disk(old.volume_id).name
    told = orchestrator.client.swap(wanted["attachment_id"], wish(guest, new))
    assert told.error is not None
    assert (told.state, told.error.code) == ("refused", "invalid")
    moved = wish(guest, new, access_mode="ro")
    answer = orchestrator.swap(wanted, moved)
    assert answer.state == "done", answer.error
    for xml in halves(guest):
        (found,) = [one for one in parse_domain(xml).disks if one.alias]
        assert (found.source, found.read_only) == (new.path, True)
    assert guest.read(disk) == "read-me"
    with pytest.raises(GuestRefused):
        guest.write(disk, "not-me")
    assert new.read() == block_of("read-me")
    orchestrator.detached(moved)


@pytest.fixture
def small_place(lab: Lab) -> Iterator[Path]:
    """A file system that is full after 8 MiB."""
    place = lab.directory / "small"
    place.mkdir()
    with ExitStack() as mounted:
        command = ["mount", "-t", "tmpfs", "-o", "size=8m", "small", str(place)]
        subprocess.run(command, check=True)
        mounted.callback(subprocess.run, ["umount", str(place)], check=True)
        yield place
    place.rmdir()


def test_a_volume_that_cannot_be_written_ends_it(swaps: Swaps, small_place: Path) -> None:
    for offset_mib in range(64):
        swaps.guest.write(swaps.disk, "much", offset_mib=offset_mib)
    with LoopVolume(small_place, "00000000-0000-4000-8000-0000000f0011") as full:
        answer = swaps.orchestrator.finish(swaps.ask(full)[1])
        assert code(answer) == "copy-failed"
        full.assert_unused()
    swaps.stays()


def test_a_guest_that_stops_while_it_is_copied(
    orchestrator: Orchestrator, lab: Lab, make_volume: MakeVolume
) -> None:
    guest, old, new = lab.guest(), make_volume(), make_volume()
    wanted = wish(guest, old, disk={"bus": "scsi"})
    orchestrator.attached(wanted)
    accepted = orchestrator.client.swap(
        wanted["attachment_id"], wish(guest, new), bandwidth_bytes_per_second=MIB
    )
    orchestrator.wait_for_state(accepted, "waiting")
    guest.destroy()
    orchestrator.finish(accepted)
    new.assert_unused()
    (defined,) = [d for xml in halves(guest) for d in parse_domain(xml).disks if d.alias]
    assert defined.source == old.path
    orchestrator.detached(wanted)
    guest.undefine()
