"""A disk fails under a guest: the guest is told or paused, and the operator hears of it."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from agent.service.io_errors import IO_ERROR
from tests.functional.orchestrator import Orchestrator, wish
from tests.functional.test_stubborn import Listener
from tests.lab.agent_process import AgentProcess
from tests.lab.guest import Guest, GuestRefused
from tests.lab.lab import Lab
from tests.lab.loop_volume import LoopVolume
from tests.lab.patience import wait_until

pytestmark = pytest.mark.real


@pytest.fixture
def listener(lab: Lab) -> Iterator[Listener]:
    listener = Listener(lab)
    yield listener
    listener.close()


def io_errors(orchestrator: Orchestrator, attachment_id: str) -> dict[str, Any] | None:
    [row] = orchestrator.client.list_attachments(attachment_id=attachment_id)
    found: dict[str, Any] | None = row["io_errors"]
    return found


def test_each_guest_of_a_shared_disk_is_told_and_goes_on(
    orchestrator: Orchestrator, guests: list[Guest], volume: LoopVolume, listener: Listener
) -> None:
    """``report`` is the default of a shared disk: to pause every member stops the whole cluster."""
    wishes = [wish(guest, volume, multiattach=True) for guest in guests[:2]]
    for wanted in wishes:
        orchestrator.attached(wanted)
    name = guests[0].wait_for_disk(volume.volume_id).name
    guests[1].read(guests[1].wait_for_disk(volume.volume_id).name)  # its kernel has looked at it
    volume.fail()
    with pytest.raises(GuestRefused):
        guests[0].read(name)
    told = listener.wait_for_fact(IO_ERROR, wishes[0]["attachment_id"])
    assert (told["instance_id"], told["volume_ids"]) == (guests[0].uuid, [volume.volume_id])
    assert (told["action"], told["operation_id"]) == ("report", None)
    found = io_errors(orchestrator, wishes[0]["attachment_id"])
    assert found is not None
    assert found["errors"] >= told["errors"] >= 1
    assert io_errors(orchestrator, wishes[1]["attachment_id"]) is None
    assert guests[0].state == "running"
    volume.recover()
    assert guests[0].read(name) == ""
    for wanted in wishes:
        orchestrator.detached(wanted)


def test_a_guest_that_is_paused_while_no_agent_runs_is_told_by_the_next(
    orchestrator: Orchestrator,
    guests: list[Guest],
    volume: LoopVolume,
    listener: Listener,
    agent: AgentProcess,
) -> None:
    guest = guests[0]
    wanted = wish(guest, volume, multiattach=True, disk={"error_policy": "stop"})
    orchestrator.attached(wanted)
    name = guest.wait_for_disk(volume.volume_id).name
    agent.kill()
    volume.fail()
    with ThreadPoolExecutor(1) as reader:
        reading = reader.submit(guest.read, name)
        wait_until(lambda: guest.state == "paused", "QEMU pauses the guest", seconds=20)
        agent.start()
        told = listener.wait_for_fact(IO_ERROR, wanted["attachment_id"])
        assert (told["action"], told["errors"]) == ("stop", 1)
        [finding] = orchestrator.client.audit()["findings"]
        assert finding["kind"] == "paused-by-io-error"
        volume.recover()
        guest.resume()
        assert reading.result(timeout=20) == ""
    orchestrator.detached(wanted)


def test_a_guest_that_is_paused_for_it_is_said_to_be(
    orchestrator: Orchestrator, guests: list[Guest], volume: LoopVolume, listener: Listener
) -> None:
    guest = guests[0]
    wanted = wish(guest, volume, multiattach=True, disk={"error_policy": "stop"})
    orchestrator.attached(wanted)
    name = guest.wait_for_disk(volume.volume_id).name
    volume.fail()
    with ThreadPoolExecutor(1) as reader:
        reading = reader.submit(guest.read, name)
        wait_until(lambda: guest.state == "paused", "QEMU pauses the guest", seconds=20)
        assert listener.wait_for_fact(IO_ERROR, wanted["attachment_id"])["action"] == "stop"
        [finding] = orchestrator.client.audit()["findings"]
        assert finding["kind"] == "paused-by-io-error"
        volume.recover()
        guest.resume()
        assert reading.result(timeout=20) == "", "the read was not done again"
    assert orchestrator.client.audit()["findings"] == []
    orchestrator.detached(wanted)
