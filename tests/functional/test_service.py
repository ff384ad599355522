"""The agent as a service: it starts whatever is missing, stops when told, and keeps secrets."""

import os
import re
import signal
import stat
import uuid
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from oslo_config import cfg

from agent.bus.client import AgentClient
from tests.functional.orchestrator import Orchestrator, wish
from tests.lab.agent_process import AgentProcess
from tests.lab.guest import Guest
from tests.lab.lab import Lab
from tests.lab.loop_volume import LoopVolume
from tests.lab.patience import LabError, wait_until
from tests.lab.stopped import stopped

pytestmark = pytest.mark.real

MIB = 1024 * 1024

IDLE_MIB = 120
"""What an idle agent may have resident."""


@pytest.fixture
def another(lab: Lab) -> Iterator[AgentProcess]:
    """An agent of this test's own, not yet started."""
    agent = lab.agent(f"another-{uuid.uuid4().hex[:8]}", start=False)
    yield agent
    agent.close()


def test_it_starts_with_libvirt_and_broker_away_and_says_so(
    lab: Lab, another: AgentProcess, guests: list[Guest], volume: LoopVolume
) -> None:
    lab.libvirtd.stop()
    lab.broker.stop()
    try:
        another.start()
        status = another.statuses[0]
        assert status.startswith("STATUS=")
        assert f"not connected to {lab.libvirtd.uri}" in status
        assert "no broker for" in status
    finally:
        lab.libvirtd.start()
        lab.broker.start()
    another.wait_connected()
    with AgentClient(cfg.CONF, another.host, url=lab.broker.url) as client:
        orchestrator = Orchestrator(client)
        wanted = wish(guests[0], volume)
        orchestrator.attached(wanted)
        orchestrator.detached(wanted)
        orchestrator.assert_idle()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("is_away", [False, True], ids=["healthy", "all-away"])
def test_it_stops_when_told(
    lab: Lab, another: AgentProcess, number: signal.Signals, is_away: bool
) -> None:
    if is_away:
        nothing = str(another.directory / "nothing")
        another.configure(
            {
                "DEFAULT": {"transport_url": "rabbit://guest:guest@127.0.0.1:1//"},
                "libvirt": {"uri": f"qemu+unix:///system?socket={nothing}"},
            }
        )
    another.start()
    another.send(number)
    assert another.wait(seconds=20) == 0
    assert "Traceback" not in another.last_words()


def test_it_tells_where_its_threads_are_and_goes_on(
    agent: AgentProcess, orchestrator: Orchestrator
) -> None:
    for _ in range(20):  # between calls, whose threads come and go
        agent.send(signal.SIGUSR1)
        orchestrator.client.ping()
    wait_until(
        lambda: "thread alarm:\n" in agent.output_file.read_text(), "it has told", seconds=20
    )
    assert agent.is_running()


def test_systemd_need_not_kill_it_where_all_hangs(
    lab: Lab, another: AgentProcess, guests: list[Guest], volume: LoopVolume
) -> None:
    """In the middle of an attach neither libvirtd nor the broker does anything any more."""
    unit = (Path(__file__).parents[2] / "etc/systemd/attachment-agent.service").read_text()
    [limit] = re.findall(r"^TimeoutStopSec=(\d+)$", unit, re.M)
    another.start()
    another.wait_connected()
    with ExitStack() as hanging, AgentClient(cfg.CONF, another.host, url=lab.broker.url) as client:
        hanging.enter_context(stopped(lab.libvirtd.pid))
        client.attach(wish(guests[0], volume))
        hanging.enter_context(stopped(lab.broker.pid))
        assert another.stop(seconds=float(limit)) == 0
    assert "steps still run" in another.last_words()


def test_stopped_in_the_middle_it_goes_on_when_it_is_started(
    orchestrator: Orchestrator, agent: AgentProcess, guests: list[Guest], volume: LoopVolume
) -> None:
    wishes = [wish(guest, volume, multiattach=True) for guest in guests]
    accepted = [orchestrator.client.attach(wanted) for wanted in wishes]
    assert agent.stop() == 0
    agent.start()
    for answer in accepted:
        assert orchestrator.finish(answer).state == "done"
    for wanted in wishes:
        orchestrator.detached(wanted)


def test_a_second_agent_on_the_same_journal_is_refused(
    agent: AgentProcess, another: AgentProcess
) -> None:
    another.configure({"DEFAULT": {"state_path": agent.state_path}})
    with pytest.raises(LabError, match=r"exit code 75.*(\n.*)*stop it first"):
        another.start()
    assert "Traceback" not in another.last_words()
    assert agent.is_running()


def test_a_wrong_configuration_is_named(another: AgentProcess) -> None:
    another.configure({"local": {"allowed_paths": "volumes"}})
    with pytest.raises(LabError, match=r"exit code 78.*(\n.*)*volumes is not an absolute path"):
        another.start()
    assert "Traceback" not in another.last_words()


def test_no_secret_is_in_the_log_or_on_the_wire(
    orchestrator: Orchestrator, agent: AgentProcess, guests: list[Guest], volume: LoopVolume
) -> None:
    info = volume.connection_info()
    secrets = {"auth_password": "chap-secret-1", "vendor_secret_key": "vendor-secret-2"}
    wanted = {
        **wish(guests[0], volume),
        "connection_info": {**info, "data": {**info["data"], **secrets}},
    }
    answer = orchestrator.attach(wanted)
    assert answer.state == "done"
    told = [
        answer.model_dump_json(),
        repr(orchestrator.client.list_attachments()),
        repr(orchestrator.client.audit()),
        repr(orchestrator.client.list_operations()),
        *(guests[0].domain.XMLDesc(flags) for flags in (0, 2)),
    ]
    refused = orchestrator.attach({**wish(guests[1], volume), "passphrase": "chap-secret-1"})
    told.append(refused.model_dump_json())
    orchestrator.detached(wanted)
    told += [file.read_text(errors="replace") for file in (agent.log_file, agent.output_file)]
    for secret in secrets.values():
        assert not any(secret in text for text in told)


def test_what_ended_leaves_no_secret_in_the_journal(
    orchestrator: Orchestrator, agent: AgentProcess, guests: list[Guest], volume: LoopVolume
) -> None:
    info = volume.connection_info()
    secret = "chap-secret-3"
    data = {**info["data"], "auth_password": secret}
    wanted = {**wish(guests[0], volume), "connection_info": {**info, "data": data}}
    orchestrator.attached(wanted)
    assert any(secret.encode() in file.read_bytes() for file in journal_files(agent))
    orchestrator.detached(wanted)
    agent.restart()
    assert not any(secret.encode() in file.read_bytes() for file in journal_files(agent))


def test_only_root_reads_the_journal(agent: AgentProcess) -> None:
    for file in journal_files(agent):
        assert stat.S_IMODE(file.stat().st_mode) == 0o600, file


def test_idle_it_is_small(another: AgentProcess) -> None:
    another.start()
    another.wait_connected()
    status = Path(f"/proc/{another.pid}/status").read_text()
    resident = re.search(r"VmRSS:\s+(\d+) kB", status)
    assert resident is not None
    assert int(resident[1]) * 1024 < IDLE_MIB * MIB


def journal_files(agent: AgentProcess) -> list[Path]:
    found = [Path(agent.state_path, name) for name in os.listdir(agent.state_path)]
    return [file for file in found if file.name.startswith("journal.")]
