"""Broker and libvirtd go away and come back while operations run: nothing accepted is lost."""

import uuid
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from agent.bus.client import Unreachable
from agent.model.moment import rfc3339
from agent.model.outcome import Answer
from tests.functional.conftest import MakeVolume
from tests.functional.orchestrator import OPERATION_SECONDS, Orchestrator, Wish, disks_of, wish
from tests.lab.guest import Guest
from tests.lab.lab import Lab
from tests.lab.loop_volume import LoopVolume
from tests.lab.patience import wait_until

pytestmark = pytest.mark.real

VOLUMES = 3


def broker_restart(lab: Lab) -> None:
    lab.broker.restart()


def broker_kill(lab: Lab) -> None:
    lab.broker.kill()
    lab.broker.start()


def libvirtd_restart(lab: Lab) -> None:
    lab.libvirtd.restart()


def libvirtd_kill(lab: Lab) -> None:
    lab.libvirtd.kill()
    lab.libvirtd.start()


@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    "outage",
    [broker_restart, broker_kill, libvirtd_restart, libvirtd_kill],
    ids=lambda f: f.__name__,
)
def test_what_was_accepted_is_done(
    orchestrator: Orchestrator,
    lab: Lab,
    guests: list[Guest],
    make_volume: MakeVolume,
    outage: Callable[[Lab], None],
) -> None:
    volumes = [make_volume() for _ in range(VOLUMES)]
    wishes = [wish(guest, volume, multiattach=True) for guest in guests for volume in volumes]
    for verb, halves in (("attach", 2), ("detach", 0)):
        requests = [request(verb, wanted) for wanted in wishes]
        for answer in during(lambda: outage(lab), orchestrator, verb, requests):
            assert orchestrator.finish(answer, seconds=2 * OPERATION_SECONDS).state == "done"
        known = {
            row["operation_id"]: row["attachment_id"]
            for row in orchestrator.client.list_operations(verb=verb)
        }
        for wanted, sent in zip(wishes, requests, strict=True):
            assert known[sent["request_id"]] == wanted["attachment_id"]
            assert list(known.values()).count(wanted["attachment_id"]) == 1
            [guest] = [guest for guest in guests if guest.uuid == wanted["instance_id"]]
            assert len(disks_of(guest, wanted)) == halves


def request(verb: str, wanted: Wish) -> dict[str, Any]:
    """As it may be sent again and again: the same payload under the same id."""
    what = {"attachment_id": wanted["attachment_id"], "instance_id": wanted["instance_id"]}
    return {
        "request_id": str(uuid.uuid4()),
        "not_after": rfc3339(datetime.now(UTC) + timedelta(hours=1)),
        **({"attachment": wanted} if verb == "attach" else what),
    }


def during(
    outage: Callable[[], None],
    orchestrator: Orchestrator,
    verb: str,
    requests: list[dict[str, Any]],
) -> list[Answer]:
    """Half is sent and one of it accepted when the outage begins; the others come in it."""

    def send(request: dict[str, Any]) -> Answer:
        return until_accepted(lambda: orchestrator.client.command(verb, request))

    with ThreadPoolExecutor(len(requests) + 1) as callers:
        sent = [callers.submit(send, request) for request in requests[::2]]
        wait(sent, return_when=FIRST_COMPLETED)
        outage_over = callers.submit(outage)
        sent += [callers.submit(send, request) for request in requests[1::2]]
        outage_over.result()
        return [called.result() for called in sent]


def until_accepted(command: Callable[[], Answer]) -> Answer:
    """Who gets no answer sends the same request again, as every caller must."""

    def send() -> Answer | None:
        try:
            return command()
        except Unreachable:
            return None

    answer = wait_until(send, "somebody accepts it", seconds=120, pause_seconds=0.5)
    assert answer.state != "refused", answer
    return answer


def test_accepted_while_libvirtd_is_away_it_waits_and_says_for_what(
    orchestrator: Orchestrator, lab: Lab, guests: list[Guest], volume: LoopVolume
) -> None:
    lab.libvirtd.kill()
    try:
        wanted = wish(guests[0], volume)
        waiting = orchestrator.wait_for_state(orchestrator.client.attach(wanted), "waiting")
        assert waiting.waiting_for is not None
        assert waiting.waiting_for.startswith("libvirt")
        assert orchestrator.client.describe()["unavailable"]
    finally:
        lab.libvirtd.start()
    assert orchestrator.finish(waiting).state == "done"
    orchestrator.detached(wanted)


def test_while_libvirtd_is_away_a_detach_waits_and_nothing_is_disconnected(
    orchestrator: Orchestrator, lab: Lab, guests: list[Guest], volume: LoopVolume
) -> None:
    """Unknown is not gone: the guest may have the disk."""
    wanted = wish(guests[0], volume)
    orchestrator.attached(wanted)
    name = guests[0].wait_for_disk(volume.volume_id).name
    lab.libvirtd.kill()
    try:
        waiting = orchestrator.wait_for_state(orchestrator.ask_to_detach(wanted), "waiting")
        guests[0].write(name, "still-here")
        assert {step.state for step in waiting.steps[1:]} == {"planned"}
    finally:
        lab.libvirtd.start()
    assert orchestrator.finish(waiting).state == "done"
