"""The agent is killed on real storage, and goes on when systemd has started it again."""

import random
import time

import pytest

from tests.functional.orchestrator import Orchestrator
from tests.lab.guest import Guest
from tests.nested.inside.agent import Agent
from tests.nested.inside.storage import Storage
from tests.nested.inside.wishes import wish

KILLS = 1
"""An operation; with --rounds N so many times N."""


@pytest.mark.usefixtures("single_path")
def test_on_iscsi(
    orchestrator: Orchestrator,
    guests: list[Guest],
    storage: Storage,
    agent: Agent,
    rounds: int,
) -> None:
    target, backing = storage.lun(2)
    info = target.connection_info(2)
    comes_and_goes(orchestrator, guests[0], backing, info, agent, KILLS * rounds)


def test_on_nvme(
    orchestrator: Orchestrator,
    guests: list[Guest],
    storage: Storage,
    agent: Agent,
    rounds: int,
) -> None:
    subsystem, namespace = storage.subsystem(), storage.namespace()
    subsystem.map(1, namespace)
    info = subsystem.connection_info(1)
    comes_and_goes(orchestrator, guests[0], namespace, info, agent, KILLS * rounds)


def comes_and_goes(
    orchestrator: Orchestrator,
    guest: Guest,
    volume: object,
    info: dict[str, object],
    agent: Agent,
    kills: int,
) -> None:
    """Killed at moments spread over each operation."""
    chance = random.Random(4711)
    for _ in range(kills):
        wanted = wish(guest, volume, info)  # type: ignore[arg-type]
        accepted = orchestrator.client.attach(wanted)
        time.sleep(chance.uniform(0, 3))  # the moment of the kill, not a wait
        agent.kill()
        attached = orchestrator.finish(accepted, seconds=180)
        assert attached.state == "done", attached
        assert guest.wait_for_disk(wanted["volume_id"])
        leaving = orchestrator.ask_to_detach(wanted)
        time.sleep(chance.uniform(0, 2))
        agent.kill()
        detached = orchestrator.finish(leaving, seconds=180)
        assert detached.state == "done", detached
        assert detached.result is not None
        assert detached.result["disconnected"] is True
