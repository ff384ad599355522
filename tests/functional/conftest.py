"""One lab for all themes: a broker, a libvirtd, four booted guests, an agent as its own process.

Every test that uses the agent must leave it, the guests and the volumes as it found them.
"""

import random
from collections.abc import Callable, Iterator

import pytest
from oslo_config import cfg

from agent.bus.client import AgentClient
from tests.functional.orchestrator import Orchestrator, assert_no_disk
from tests.lab.agent_process import AgentProcess
from tests.lab.guest import Guest, Shape
from tests.lab.lab import Lab
from tests.lab.loop_volume import LoopVolume
from tests.lab.patience import PATIENCE

BARE = Shape(has_system=False, spare_ports=4, memory_mib=32)
"""Starts at once; lets go of virtio-scsi disks by itself, and of virtio-blk ones never."""

MakeVolume = Callable[..., LoopVolume]

ANSWER_SECONDS = 10.0 * PATIENCE
"""An agent that is started meanwhile has so long for its answer. Not where it is killed again and
again: whoever has lost his answer waits for a third of it before he asks anew."""


@pytest.fixture(scope="package")
def lab() -> Iterator[Lab]:
    cfg.CONF([], project="attachment-agent")
    with Lab() as lab:
        lab.begin_broker()
        yield lab


@pytest.fixture(scope="package")
def guests(lab: Lab) -> list[Guest]:
    return lab.guests(4)


@pytest.fixture(scope="package")
def shared_agent(lab: Lab) -> AgentProcess:
    agent = lab.agent()
    agent.wait_connected()
    return agent


@pytest.fixture(scope="package")
def shared_client(lab: Lab) -> Iterator[AgentClient]:
    with AgentClient(cfg.CONF, "lab-host", url=lab.broker.url) as client:
        yield client


@pytest.fixture
def agent(shared_agent: AgentProcess) -> AgentProcess:
    """Running, whatever the test before has done to it."""
    if not shared_agent.is_running():
        shared_agent.start()
    return shared_agent


@pytest.fixture
def orchestrator(
    agent: AgentProcess, shared_client: AgentClient, guests: list[Guest]
) -> Iterator[Orchestrator]:
    orchestrator = Orchestrator(shared_client)
    yield orchestrator
    try:
        orchestrator.assert_idle()
        assert_no_disk(guests)
    finally:
        orchestrator.leave_nothing()


@pytest.fixture
def make_volume(lab: Lab) -> Iterator[MakeVolume]:
    made: list[LoopVolume] = []

    def make(**wanted: int | str) -> LoopVolume:
        made.append(lab.volume(**wanted))
        return made[-1]

    yield make
    for volume in made:
        volume.assert_unused()
        volume.close()


@pytest.fixture
def volume(make_volume: MakeVolume) -> LoopVolume:
    return make_volume()


@pytest.fixture
def seed(request: pytest.FixtureRequest) -> int:
    """Shown when the test fails: --seed repeats it."""
    given = request.config.getoption("--seed")
    seed = random.randrange(1 << 32) if given is None else int(given)
    print(f"--seed {seed}")
    return seed
