"""The agent is killed at every write of its journal, and goes on when systemd starts it again.

With fewer than three ``--rounds`` at every twelfth of them, others with each run.
"""

from collections.abc import Iterator
from itertools import count, cycle
from random import Random

import pytest

from tests.functional.orchestrator import Orchestrator
from tests.lab import dying_agent
from tests.lab.guest import Guest
from tests.nested.conftest import EXHAUSTIVE_ROUNDS
from tests.nested.inside.agent import STATE_PATH, Agent
from tests.nested.inside.storage import Storage
from tests.nested.inside.wishes import Volume, wish

EVERY, FIRST = 12, 4
"""Every twelfth write, from one of the first four on: each verb has more than those."""

DEATH_SECONDS = 900
"""An end, no measure: the agent dies, systemd starts it again, and it recovers."""

TURNS = pytest.mark.parametrize(
    "turns",
    [
        pytest.param(("before", "after"), id="before-first"),
        pytest.param(("after", "before"), id="after-first", marks=pytest.mark.exhaustive),
    ],
)
"""It dies before one write's commit, and once the next is durable; or the other way round."""


@pytest.fixture(scope="module")
def mortal(agent: Agent) -> Iterator[None]:
    with agent.mortal():
        yield


@pytest.fixture
def numbers(request: pytest.FixtureRequest, rounds: int) -> Iterator[int]:
    """Of writes, counted from 1."""
    if rounds >= EXHAUSTIVE_ROUNDS:
        return count(1)
    return count(Random(request.config.getoption("--seed")).randint(1, FIRST), EVERY)


@pytest.mark.timeout(3600)
@pytest.mark.usefixtures("single_path", "mortal")
@TURNS
def test_on_iscsi(
    orchestrator: Orchestrator,
    guests: list[Guest],
    storage: Storage,
    numbers: Iterator[int],
    turns: tuple[str, str],
) -> None:
    target, backing = storage.lun(2)
    info = target.connection_info(2)
    dies_at_writes(orchestrator, guests[0], backing, info, numbers, turns)


@pytest.mark.exhaustive
@pytest.mark.timeout(3600)
@pytest.mark.usefixtures("mortal")
@TURNS
def test_on_nvme(
    orchestrator: Orchestrator,
    guests: list[Guest],
    storage: Storage,
    numbers: Iterator[int],
    turns: tuple[str, str],
) -> None:
    subsystem, namespace = storage.subsystem(), storage.namespace()
    subsystem.map(1, namespace)
    info = subsystem.connection_info(1)
    dies_at_writes(orchestrator, guests[0], namespace, info, numbers, turns)


def dies_at_writes(
    orchestrator: Orchestrator,
    guest: Guest,
    volume: Volume,
    info: dict[str, object],
    numbers: Iterator[int],
    turns: tuple[str, str],
) -> None:
    """Until neither attach nor detach has so many."""
    deaths, steps = list[tuple[str, int]](), {}
    for number, when in zip(numbers, cycle(turns), strict=False):
        wanted = wish(guest, volume, info)
        died = 0
        for ask in (orchestrator.client.attach, orchestrator.ask_to_detach):
            dying_agent.order(STATE_PATH, number, when)
            answer = orchestrator.finish(ask(wanted), seconds=DEATH_SECONDS)
            if dying_agent.has_died(STATE_PATH):
                deaths.append((answer.verb, number))
                died += 1
            assert answer.state == "done", f"killed {when} write {number}: {answer}"
            steps[answer.verb] = len(answer.steps)
            if answer.verb == "attach":
                assert guest.wait_for_disk(volume.volume_id)
        assert answer.result is not None
        assert answer.result["disconnected"] is True, f"killed {when} write {number}"
        guest.wait_for_no_disk(volume.volume_id)
        if not died:
            break
    print(f"{len(deaths)} deaths")
    for verb in ("attach", "detach"):
        last = max(number for killed, number in deaths if killed == verb)
        assert last + EVERY > steps[verb] + 2, "accepted, each step's intent, closed"
