"""A guest that does not let go: it delays nobody, and whenever it does let go we notice."""

from collections.abc import Callable, Iterator
from importlib import import_module
from typing import Any

import pytest
from oslo_config import cfg

from agent.bus.client import Refused
from agent.bus.transport import notification_transport
from agent.bus.wire import EXCHANGE, NOTIFICATIONS_TOPIC
from agent.model.outcome import Answer
from tests.functional.conftest import BARE
from tests.functional.orchestrator import Orchestrator, Wish, assert_no_disk, disks_of, wish
from tests.lab.agent_process import AgentProcess
from tests.lab.guest import Guest
from tests.lab.lab import Lab
from tests.lab.loop_volume import LoopVolume
from tests.lab.patience import wait_until

oslo_messaging: Any = import_module("oslo_messaging")  # after agent.bus: see there

pytestmark = pytest.mark.real


class Listener:
    """An orchestrator's ear for notifications."""

    def __init__(self, lab: Lab) -> None:
        self._heard: list[tuple[str, dict[str, Any]]] = []
        self._transport = notification_transport(cfg.CONF, lab.broker.url)
        topic = oslo_messaging.Target(exchange=EXCHANGE, topic=NOTIFICATIONS_TOPIC)
        self._server = oslo_messaging.get_notification_listener(self._transport, [topic], [self])
        self._server.start()

    def info(self, _ctxt: Any, _publisher: str, event: str, payload: Any, _metadata: Any) -> None:
        self._heard.append((event, payload))

    def about(self, operation: Answer) -> dict[str, dict[str, Any]]:
        """Its notifications in the order in which they were written, by event."""
        found = [
            (payload["sequence"], event, payload)
            for event, payload in self._heard
            if payload["operation_id"] == operation.operation_id
        ]
        return {event: payload for _, event, payload in sorted(found, key=lambda one: one[0])}

    def wait_for(self, operation: Answer, event: str) -> dict[str, Any]:
        return wait_until(lambda: self.about(operation).get(event), f"{event} is told", seconds=30)

    def wait_for_fact(self, event: str, attachment_id: str) -> dict[str, Any]:
        """What no operation did."""

        def heard() -> dict[str, Any] | None:
            for name, payload in tuple(self._heard):
                if name == event and payload["attachment_ids"] == [attachment_id]:
                    return dict(payload)
            return None

        return wait_until(heard, f"{event} is told", seconds=30)

    def close(self) -> None:
        self._server.stop()
        self._server.wait()
        self._transport.cleanup()


@pytest.fixture
def listener(lab: Lab) -> Iterator[Listener]:
    listener = Listener(lab)
    yield listener
    listener.close()


@pytest.fixture
def stubborn(orchestrator: Orchestrator, lab: Lab) -> Iterator[Guest]:
    """Without a system in it nobody answers the request to release a virtio-blk disk."""
    guest = lab.guest(shape=BARE)
    yield guest
    assert_no_disk([guest])
    guest.destroy()
    guest.undefine()


@pytest.fixture
def parked(orchestrator: Orchestrator, stubborn: Guest, volume: LoopVolume) -> tuple[Wish, Answer]:
    """An attachment, and its detach that waits for the guest."""
    wanted = wish(stubborn, volume, multiattach=True)
    orchestrator.attached(wanted)
    accepted = orchestrator.ask_to_detach(wanted)
    return wanted, orchestrator.wait_for_state(accepted, "waiting")


def test_others_are_served_and_its_volume_stays(
    orchestrator: Orchestrator,
    guests: list[Guest],
    stubborn: Guest,
    volume: LoopVolume,
    parked: tuple[Wish, Answer],
) -> None:
    wanted, waiting = parked
    assert waiting.waiting_for is not None
    assert "release vda" in waiting.waiting_for
    shared = wish(guests[0], volume, multiattach=True)
    orchestrator.attached(shared)
    name = guests[0].wait_for_disk(volume.volume_id).name
    guests[0].write(name, "served")
    assert orchestrator.detached(shared)["disconnected"] is False, "the stubborn guest has it"

    assert len(disks_of(stubborn, wanted)) == 2, "the definition forgot it before the guest"
    assert len(volume.users()) == 1
    assert orchestrator.client.list_locks() == []
    stubborn.reset()
    assert orchestrator.finish(waiting).state == "done"


def test_the_volume_cannot_come_back_to_that_instance_meanwhile(
    orchestrator: Orchestrator, stubborn: Guest, volume: LoopVolume, parked: tuple[Wish, Answer]
) -> None:
    wanted, waiting = parked
    for again in (wanted, wish(stubborn, volume, multiattach=True)):
        refused = orchestrator.client.attach(again)
        assert refused.state == "refused"
        assert refused.error is not None
        assert refused.error.code == "busy"
        assert refused.error.retriable
        assert str(waiting.operation_id) in refused.error.detail
        assert "release vda" in refused.error.detail
    stubborn.reset()
    assert orchestrator.finish(waiting).state == "done"
    orchestrator.attached(wanted)
    stubborn.destroy()
    orchestrator.detached(wanted)
    stubborn.start()


def test_what_the_guest_was_asked_cannot_be_cancelled(
    orchestrator: Orchestrator, stubborn: Guest, parked: tuple[Wish, Answer]
) -> None:
    _, waiting = parked
    with pytest.raises(Refused) as refused:
        orchestrator.client.cancel_operation(str(waiting.operation_id))
    assert refused.value.code == "too-late"
    stubborn.reset()
    assert orchestrator.finish(waiting).state == "done"


@pytest.mark.parametrize("end", [Guest.reset, Guest.destroy], ids=["reset", "shutdown"])
def test_when_it_lets_go_the_disk_leaves_and_the_caller_is_told(
    orchestrator: Orchestrator,
    agent: AgentProcess,
    listener: Listener,
    stubborn: Guest,
    volume: LoopVolume,
    parked: tuple[Wish, Answer],
    end: Callable[[Guest], None],
) -> None:
    """After the agent was killed and started again: what it waits for is on disk."""
    wanted, waiting = parked
    agent.kill()
    agent.start()
    again = orchestrator.wait_for_state(waiting, "waiting")
    assert again.waiting_for == waiting.waiting_for
    assert listener.wait_for(waiting, "attachment.detach.waiting")["state"] == "waiting"

    end(stubborn)
    done = orchestrator.finish(waiting)
    assert done.state == "done"
    assert done.result is not None
    assert done.result["disconnected"] is True
    assert disks_of(stubborn, wanted) == []
    volume.assert_unused()
    told = listener.wait_for(waiting, "attachment.detach.end")
    assert told["result"] == done.result
    assert told["attachment_ids"] == [wanted["attachment_id"]]
    assert told["volume_ids"] == [volume.volume_id]
    assert list(listener.about(waiting)) == [
        f"attachment.detach.{event}" for event in ("start", "waiting", "end")
    ]


def test_it_lets_go_while_the_agent_is_away(
    orchestrator: Orchestrator,
    agent: AgentProcess,
    stubborn: Guest,
    volume: LoopVolume,
    parked: tuple[Wish, Answer],
) -> None:
    _, waiting = parked
    agent.kill()
    stubborn.reset()
    volume.assert_unused()
    agent.start()
    assert orchestrator.finish(waiting).state == "done"


def test_started_again_with_the_disk_it_is_asked_again(
    orchestrator: Orchestrator,
    agent: AgentProcess,
    stubborn: Guest,
    volume: LoopVolume,
    parked: tuple[Wish, Answer],
) -> None:
    """Off and on while nobody looked: the definition still had the disk."""
    wanted, waiting = parked
    agent.kill()
    stubborn.destroy()
    stubborn.start()
    assert len(disks_of(stubborn, wanted)) == 2
    agent.start()
    assert len(volume.users()) == 1

    def is_done_after_a_reset() -> bool:
        stubborn.reset()  # helps only once the guest has been asked
        return orchestrator.client.wait(str(waiting.operation_id), 2).state == "done"

    wait_until(is_done_after_a_reset, "it was asked, and has let go", seconds=60)
