"""SIGKILL at every write of the journal, and at any moment: the next start ends what was begun."""

import random
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from oslo_config import cfg

from agent.bus.client import AgentClient
from agent.model.outcome import Answer
from tests.functional.conftest import MakeVolume
from tests.functional.orchestrator import Orchestrator, assert_no_disk, disks_of, wish
from tests.lab import dying_agent
from tests.lab.agent_process import AgentProcess
from tests.lab.guest import Guest, block_of
from tests.lab.lab import Lab
from tests.lab.loop_volume import LoopVolume
from tests.lab.patience import LabError, wait_until

pytestmark = pytest.mark.real


class Mortal:
    """An agent that can be told at which write to die."""

    def __init__(self, agent: AgentProcess, client: AgentClient) -> None:
        self.agent = agent
        self.orchestrator = Orchestrator(client)

    def call(self, command: Callable[[], Answer], number: int, when: str) -> tuple[Answer, bool]:
        """The end of a command in which the agent dies at that write, and is started again.

        False: the operation had fewer writes, and the agent did not die."""
        dying_agent.order(self.agent.state_path, number, when)
        with ThreadPoolExecutor(1) as caller:
            # It asks again as long as nobody answers, as every caller must.
            called = caller.submit(lambda: self.orchestrator.finish(command()))
            wait_until(
                lambda: called.done() or not self.agent.is_running(),
                f"the agent dies {when} write {number}, or has no such write",
                seconds=60,
            )
            has_died = dying_agent.has_died(self.agent.state_path)
            if has_died:
                self.agent.wait()
                self.agent.start()
            return called.result(), has_died


@pytest.fixture(scope="module")
def module_mortal(lab: Lab) -> Iterator[Mortal]:
    program = [sys.executable, str(Path(dying_agent.__file__))]
    agent = lab.agent("mortal", program=program)
    agent.wait_connected()
    with AgentClient(cfg.CONF, agent.host, url=lab.broker.url) as client:
        yield Mortal(agent, client)
    agent.close()


@pytest.fixture
def mortal(module_mortal: Mortal, guests: list[Guest]) -> Iterator[Mortal]:
    yield module_mortal
    dying_agent.call_off(module_mortal.agent.state_path)
    if not module_mortal.agent.is_running():
        module_mortal.agent.start()
    try:
        module_mortal.orchestrator.assert_idle()
        assert_no_disk(guests)
    finally:
        module_mortal.orchestrator.leave_nothing()


@pytest.fixture
def neighbour(mortal: Mortal, guests: list[Guest], volume: LoopVolume) -> Iterator[Guest]:
    """Shares the volume all the time, and never loses it."""
    guest = guests[3]
    wanted = wish(guest, volume, multiattach=True)
    mortal.orchestrator.attached(wanted)
    yield guest
    mortal.orchestrator.detached(wanted)


@pytest.mark.timeout(600)
@pytest.mark.parametrize("when", ["before", "after"])
def test_killed_at_every_write_an_attach_and_a_detach_come_to_their_end(
    mortal: Mortal, guests: list[Guest], volume: LoopVolume, neighbour: Guest, when: str
) -> None:
    guest, orchestrator = guests[0], mortal.orchestrator
    number, steps, deaths = 0, {}, {"attach": 0, "detach": 0}
    while number == max(deaths.values()):
        number += 1
        wanted = wish(guest, volume, multiattach=True, disk={"bus": ("virtio", "scsi")[number % 2]})

        answer, has_died = mortal.call(
            lambda wanted=wanted: orchestrator.client.attach(wanted), number, when
        )
        deaths["attach"] += has_died
        assert answer.state == "done", f"killed {when} write {number}: {answer}"
        assert len(disks_of(guest, wanted)) == 2, f"killed {when} write {number}"
        seen = guest.wait_for_disk(volume.volume_id).name
        guest.write(seen, f"round-{number}")
        assert neighbour_reads(neighbour, volume) == f"round-{number}"

        steps[answer.verb] = len(answer.steps)
        answer, has_died = mortal.call(
            lambda wanted=wanted: orchestrator.ask_to_detach(wanted), number, when
        )
        deaths["detach"] += has_died
        assert answer.state == "done", f"killed {when} write {number}: {answer}"
        assert answer.result is not None
        assert answer.result["disconnected"] is False, "the neighbour uses it"
        assert disks_of(guest, wanted) == [], f"killed {when} write {number}"
        assert neighbour_reads(neighbour, volume) == f"round-{number}"
        assert len(orchestrator.client.list_attachments()) == 1
        steps[answer.verb] = len(answer.steps)
    # accepted, each step's intent, closed
    assert deaths["attach"] >= steps["attach"] + 2
    assert deaths["detach"] >= steps["detach"] + 2


@pytest.mark.timeout(600)
def test_killed_at_any_moment_nothing_is_lost_and_nothing_is_left(
    mortal: Mortal,
    guests: list[Guest],
    make_volume: MakeVolume,
    rounds: int,
    seed: int,
) -> None:
    chance = random.Random(seed)
    orchestrator = mortal.orchestrator
    volumes = [make_volume() for _ in range(2)]
    for _ in range(5 * rounds):
        wishes = [
            wish(guest, volume, multiattach=True) for guest in guests[:3] for volume in volumes
        ]
        for command in (orchestrator.client.attach, orchestrator.ask_to_detach):
            accepted = [command(wanted) for wanted in wishes]
            # Nothing to wait for: the moment is the point.
            with pytest.raises(LabError):
                mortal.agent.wait(seconds=chance.uniform(0, 0.6))
            mortal.agent.kill()
            mortal.agent.start()
            for answer in accepted:
                assert orchestrator.finish(answer).state == "done"


def neighbour_reads(neighbour: Guest, volume: LoopVolume) -> str:
    return neighbour.read(neighbour.wait_for_disk(volume.volume_id).name)


@pytest.mark.timeout(600)
def test_killed_at_every_write_a_swap_comes_to_its_end(
    mortal: Mortal, guests: list[Guest], make_volume: MakeVolume
) -> None:
    """Before one write and after the next: also those around the pivot."""
    guest, orchestrator = guests[0], mortal.orchestrator
    volumes = [make_volume(size_mib=8), make_volume(size_mib=8)]
    wanted = first = wish(guest, volumes[0])
    orchestrator.attached(wanted)
    disk = guest.wait_for_disk(volumes[0].volume_id).name
    number, has_died = 0, True
    while has_died:
        number += 1
        new = wish(guest, volumes[number % 2])
        guest.write(disk, f"before-{number}", offset_mib=number % 8)
        answer, has_died = mortal.call(
            lambda old=wanted, new=new: orchestrator.client.swap(old["attachment_id"], new),
            number,
            ("after", "before")[number % 2],
        )
        assert answer.state == "done", f"killed at write {number}: {answer}"
        assert volumes[number % 2].read(number % 8) == block_of(f"before-{number}")
        guest.write(disk, f"round-{number}")
        assert volumes[number % 2].read() == block_of(f"round-{number}")
        volumes[1 - number % 2].assert_unused()
        assert guest.domain.isPersistent() == 1
        wanted = new
    assert number > len(answer.steps)
    orchestrator.detached(wanted)
    guest.wait_for_no_disk(first["volume_id"])
