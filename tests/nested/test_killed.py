"""The agent is killed at every write of its journal, and goes on when systemd starts it again."""

from collections.abc import Iterator

import pytest

from tests.functional.orchestrator import Orchestrator
from tests.lab import dying_agent
from tests.lab.guest import Guest
from tests.nested.inside.agent import STATE_PATH, Agent
from tests.nested.inside.storage import Storage
from tests.nested.inside.wishes import Volume, wish

BEFORE_ITS_COMMIT, ONCE_IT_IS_DURABLE = "before", "after"
LONG = 180.0


@pytest.fixture(scope="module")
def mortal(agent: Agent) -> Iterator[None]:
    with agent.mortal():
        yield


@pytest.mark.timeout(1800)
@pytest.mark.usefixtures("single_path", "mortal")
@pytest.mark.parametrize(
    "when", [pytest.param(BEFORE_ITS_COMMIT, marks=pytest.mark.exhaustive), ONCE_IT_IS_DURABLE]
)
def test_on_iscsi(
    orchestrator: Orchestrator, guests: list[Guest], storage: Storage, when: str
) -> None:
    target, backing = storage.lun(2)
    dies_at_every_write(orchestrator, guests[0], backing, target.connection_info(2), when)


@pytest.mark.timeout(1800)
@pytest.mark.usefixtures("mortal")
@pytest.mark.parametrize(
    "when", [BEFORE_ITS_COMMIT, pytest.param(ONCE_IT_IS_DURABLE, marks=pytest.mark.exhaustive)]
)
def test_on_nvme(
    orchestrator: Orchestrator, guests: list[Guest], storage: Storage, when: str
) -> None:
    subsystem, namespace = storage.subsystem(), storage.namespace()
    subsystem.map(1, namespace)
    dies_at_every_write(orchestrator, guests[0], namespace, subsystem.connection_info(1), when)


def dies_at_every_write(
    orchestrator: Orchestrator, guest: Guest, volume: Volume, info: dict[str, object], when: str
) -> None:
    number, deaths, steps = 0, {"attach": 0, "detach": 0}, {}
    while number == max(deaths.values()):
        number += 1
        wanted = wish(guest, volume, info)
        for ask in (orchestrator.client.attach, orchestrator.ask_to_detach):
            dying_agent.order(STATE_PATH, number, when)
            answer = orchestrator.finish(ask(wanted), seconds=LONG)
            deaths[answer.verb] += dying_agent.has_died(STATE_PATH)
            assert answer.state == "done", f"killed {when} write {number}: {answer}"
            steps[answer.verb] = len(answer.steps)
            if answer.verb == "attach":
                assert guest.wait_for_disk(volume.volume_id)
        assert answer.result is not None
        assert answer.result["disconnected"] is True, f"killed {when} write {number}"
        guest.wait_for_no_disk(volume.volume_id)
    print(f"{deaths['attach']} deaths in attach, {deaths['detach']} in detach")
    # accepted, each step's intent, closed
    assert all(deaths[verb] >= steps[verb] + 2 for verb in deaths), (deaths, steps)
