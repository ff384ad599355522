"""Outside: tests are relayed into the nested hypervisor. Inside: what they need of it."""

import os
from collections.abc import Iterator
from typing import Any

import pytest
from oslo_config import cfg

from agent.bus.client import AgentClient
from tests.functional.orchestrator import Orchestrator
from tests.lab.guest import Guest
from tests.lab.patience import PATIENCE
from tests.nested.inside.agent import Agent
from tests.nested.inside.guests import booted_guest
from tests.nested.inside.iscsi import Firewall, log_out_of_everything
from tests.nested.inside.leftovers import assert_clean, run
from tests.nested.inside.nfs import unmount_everything
from tests.nested.inside.nvme import disconnect_everything
from tests.nested.inside.storage import Storage

EXHAUSTIVE_ROUNDS = 3

IS_INSIDE = os.environ.get("ATTACHMENT_AGENT_NESTED") == "1"

if not IS_INSIDE:
    from tests.nested.outside.machine import Machine
    from tests.nested.outside.relay import Relay

    @pytest.fixture
    def machine(request: pytest.FixtureRequest) -> Iterator[Machine]:
        """For a test that is marked ``outside``: each begins with the same clean one."""
        relay: Any = request.config.pluginmanager.getplugin("nested-relay")
        with relay.clean_machine(request.node.name) as found:
            yield found


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("nested")
    group.addoption(
        "--keep",
        nargs="?",
        const="kept",
        metavar="NAME",
        help="take the hypervisor NAME that an earlier run has kept, or a new one, and keep it",
    )
    group.addoption(
        "--debian",
        choices=("bookworm", "trixie"),
        default="bookworm",
        help="which Debian the hypervisor is",
    )
    group.addoption(
        "--storm",
        nargs="?",
        type=int,
        const=20,
        metavar="ROUNDS",
        help="test_storm.py alone, with 16 and 16 volumes, in so many rounds (20)",
    )


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "outside: drives the nested hypervisor from outside")
    if not IS_INSIDE:
        config.pluginmanager.register(Relay(config), "nested-relay")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if left_out := [item for item in items if is_left_out(config, item)]:
        items[:] = [item for item in items if item not in left_out]
        config.hook.pytest_deselected(items=left_out)
    for item in items:
        if "tests/nested/" in item.nodeid:
            item.add_marker(pytest.mark.real)
            if not IS_INSIDE:  # it waits for the machine, and for the tests before it
                item.add_marker(pytest.mark.timeout(0), append=False)
    items.sort(key=turn)


def turn(item: pytest.Item) -> tuple[bool, bool]:
    """Who resets the machine must not do so under those that run in it; and to configure the agent
    anew and start it takes half a minute in an emulated one."""
    is_outside = item.get_closest_marker("outside") is not None
    return is_outside, "multipath" in getattr(item, "fixturenames", ())


def is_left_out(config: pytest.Config, item: pytest.Item) -> bool:
    if config.getoption("--storm"):
        return item.path.name != "test_storm.py"
    is_exhaustive = item.get_closest_marker("exhaustive") is not None
    return is_exhaustive and config.getoption("--rounds") < EXHAUSTIVE_ROUNDS


@pytest.fixture(scope="session")
def agent() -> Agent:
    return Agent()


@pytest.fixture(scope="class")
def single_path(agent: Agent) -> None:
    """multipathd would take every LUN: here it is stopped."""
    run("systemctl", "stop", "multipathd.service", "multipathd.socket")
    agent.configure()


@pytest.fixture(scope="class")
def multipath(agent: Agent) -> None:
    run("systemctl", "start", "multipathd.service")
    agent.configure(use_multipath="true")


@pytest.fixture(scope="session")
def guests() -> list[Guest]:
    """Two that have booted."""
    return [booted_guest(number) for number in (1, 2)]


@pytest.fixture(scope="session")
def client() -> Iterator[AgentClient]:
    cfg.CONF([], project="attachment-agent")
    url = "rabbit://guest:guest@127.0.0.1//"
    with AgentClient(cfg.CONF, "hypervisor", url=url, timeout_seconds=60 * PATIENCE) as client:
        yield client


@pytest.fixture
def orchestrator(client: AgentClient, storage: Storage) -> Iterator[Orchestrator]:
    """It leaves before the storage goes."""
    orchestrator = Orchestrator(client)
    yield orchestrator
    try:
        orchestrator.assert_idle()
    finally:
        orchestrator.leave_nothing()


@pytest.fixture
def storage() -> Iterator[Storage]:
    """Nothing of it is left on the host; what is left fails this test and no other."""
    storage = Storage()
    yield storage
    try:
        assert_clean()
    finally:
        log_out_of_everything()
        disconnect_everything()
        unmount_everything()
        storage.close()


@pytest.fixture
def firewall() -> Iterator[Firewall]:
    firewall = Firewall()
    yield firewall
    firewall.close()
