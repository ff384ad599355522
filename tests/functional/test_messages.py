"""Duplicate, reordered, expired and malformed messages: a clear answer, and no second effect."""

import json
import random
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from copy import deepcopy
from datetime import UTC, datetime, timedelta
from importlib import import_module
from typing import Any

import pytest
from oslo_config import cfg

from agent.bus.client import Refused
from agent.bus.transport import rpc_transport
from agent.bus.wire import COMMANDS_TOPIC, CONTROL_TOPIC, EXCHANGE, WAIT_TOPIC
from agent.errors import ERRORS
from agent.model.contract import QUESTIONS, WIRE_VERSION
from agent.model.moment import rfc3339
from tests.functional.orchestrator import Orchestrator, Wish, disks_of, wish
from tests.lab.agent_process import AgentProcess
from tests.lab.guest import Guest
from tests.lab.lab import Lab
from tests.lab.loop_volume import LoopVolume

oslo_messaging: Any = import_module("oslo_messaging")  # after agent.bus: see there

pytestmark = pytest.mark.real

MALFORMED = 1000


class Bus:
    """Whatever a program with a login can send, on any topic of the agent."""

    def __init__(self, lab: Lab, host: str) -> None:
        self._transport = rpc_transport(cfg.CONF, lab.broker.url)
        target = oslo_messaging.Target(exchange=EXCHANGE, server=host, version=WIRE_VERSION)
        self._client = oslo_messaging.get_rpc_client(self._transport, target, timeout=60)

    def call(self, topic: str, method: str, **arguments: Any) -> Any:
        return self._client.prepare(topic=topic).call({}, method, **arguments)

    def cast(self, topic: str, method: str, **arguments: Any) -> None:
        """Stays in the queue for as long as nobody takes it."""
        self._client.prepare(topic=topic).cast({}, method, **arguments)

    def close(self) -> None:
        self._transport.cleanup()


@pytest.fixture(scope="module")
def bus(lab: Lab) -> Iterator[Bus]:
    bus = Bus(lab, "lab-host")
    yield bus
    bus.close()


def request(wanted: Wish, *, valid_seconds: float = 600) -> dict[str, Any]:
    return {
        "request_id": str(uuid.uuid4()),
        "not_after": rfc3339(datetime.now(UTC) + timedelta(seconds=valid_seconds)),
        "attachment": wanted,
    }


# --- duplicate ----------------------------------------------------------------------


def test_a_request_sent_twenty_times_is_one_operation(
    orchestrator: Orchestrator, guests: list[Guest], volume: LoopVolume
) -> None:
    wanted = wish(guests[0], volume)
    whole = request(wanted)
    with ThreadPoolExecutor(20) as callers:
        answers = list(
            callers.map(lambda _: orchestrator.client.command("attach", whole), range(20))
        )
    assert {answer.operation_id for answer in answers} == {whole["request_id"]}
    assert all(answer.state != "refused" for answer in answers)
    done = orchestrator.finish(answers[0])
    assert done.state == "done"
    assert orchestrator.client.command("attach", whole) == done
    operations = orchestrator.client.list_operations(attachment_id=wanted["attachment_id"])
    assert len(operations) == 1
    assert len(disks_of(guests[0], wanted)) == 2
    orchestrator.detached(wanted)
    # An old duplicate must not bring the disk back.
    assert orchestrator.client.command("attach", whole) == done
    assert disks_of(guests[0], wanted) == []


def test_an_id_with_another_payload_is_refused(
    orchestrator: Orchestrator, guests: list[Guest], volume: LoopVolume
) -> None:
    wanted = wish(guests[0], volume)
    whole = request(wanted)
    orchestrator.finish(orchestrator.client.command("attach", whole))
    other = orchestrator.client.command("attach", {**whole, "deadline_seconds": 5})
    assert other.state == "refused"
    assert other.error is not None
    assert other.error.code == "request-id-reused"
    orchestrator.detached(wanted)


# --- reordered ----------------------------------------------------------------------


def test_an_attach_that_a_newer_detach_has_overtaken_is_stale(
    orchestrator: Orchestrator, guests: list[Guest], volume: LoopVolume
) -> None:
    wanted = wish(guests[0], volume, generation=1)
    orchestrator.detached(wanted, generation=2, attachment=wanted)
    late = orchestrator.client.attach(wanted)
    assert late.state == "refused"
    assert late.error is not None
    assert late.error.code == "stale"
    assert disks_of(guests[0], wanted) == []


def test_after_its_detach_only_a_newer_generation_is_attached(
    orchestrator: Orchestrator, guests: list[Guest], volume: LoopVolume
) -> None:
    wanted = wish(guests[0], volume, generation=1)
    orchestrator.attached(wanted)
    orchestrator.detached(wanted, generation=1)
    for generation, state in ((1, "refused"), (2, "done")):
        wanted = {**wanted, "generation": generation}
        answer = orchestrator.attach(wanted)
        assert answer.state == state
    late = orchestrator.detach(wanted, generation=1)
    assert late.error is not None
    assert late.error.code == "stale"
    without = orchestrator.detach(wanted)
    assert without.error is not None
    assert without.error.code == "stale"
    assert len(disks_of(guests[0], wanted)) == 2
    orchestrator.detached(wanted, generation=2)


# --- expired ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("valid_seconds", "code"), [(-1, "expired"), (40 * 86400, "invalid")], ids=["past", "far"]
)
def test_a_time_that_cannot_be_is_refused(
    orchestrator: Orchestrator,
    guests: list[Guest],
    volume: LoopVolume,
    valid_seconds: float,
    code: str,
) -> None:
    wanted = wish(guests[0], volume)
    answer = orchestrator.client.command("attach", request(wanted, valid_seconds=valid_seconds))
    assert answer.state == "refused"
    assert answer.error is not None
    assert answer.error.code == code
    assert disks_of(guests[0], wanted) == []


def test_a_message_that_lay_in_the_queue_too_long_does_nothing(
    orchestrator: Orchestrator,
    agent: AgentProcess,
    bus: Bus,
    guests: list[Guest],
    volume: LoopVolume,
) -> None:
    expiring, valid = wish(guests[0], volume), wish(guests[1], volume)
    agent.stop()
    late = request(expiring, valid_seconds=0.2)
    bus.cast(COMMANDS_TOPIC, "attach", request=late)
    bus.cast(COMMANDS_TOPIC, "attach", request=request(valid))
    agent.start()  # takes longer than that

    while not orchestrator.client.list_attachments(attachment_id=valid["attachment_id"]):
        [operation] = orchestrator.client.list_operations(open=True) or [None]
        if operation is not None:
            orchestrator.client.wait(operation["operation_id"], 30)
    with pytest.raises(Refused) as unknown:
        orchestrator.client.get_operation(late["request_id"])
    assert unknown.value.code == "unknown-operation"
    assert disks_of(guests[0], expiring) == []
    orchestrator.detached(valid)


# --- malformed ----------------------------------------------------------------------

JUNK = ({"a": 1}, ["x"], 1.5e300, "\x00", "\ud800", 2**80, {"a": {"b": [[[{}]]]}})
"""Of no field's type: as JSON all of it can be sent."""


REQUIRED = frozenset(
    {
        *("request_id", "not_after", "attachment", "attachment_id", "instance_id", "volume_id"),
        *("connection_info", "driver_volume_type", "data"),
    }
)


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Of every value in it, but those below connection_info.data: vendors' keys are kept."""
    yield path
    if isinstance(value, dict) and path[-1:] != ("data",):
        for name in value:
            yield from places(value[name], (*path, name))


def spoiled(whole: dict[str, Any], chance: random.Random) -> Any:
    """The request with one thing wrong."""
    broken = deepcopy(whole)
    path = chance.choice(list(places(broken)))
    if not path:
        return chance.choice((None, 7, "text", ["x"], {}, {"request_id": broken["request_id"]}))
    *above, name = path
    inside = broken
    for step in above:
        inside = inside[step]
    kind = chance.choice(("junk", "unknown", "missing"))
    if kind == "missing" and name in REQUIRED:
        del inside[name]
    elif kind == "unknown":
        inside[f"un{name}"] = inside[name]
    elif isinstance(inside[name], dict):
        inside[name] = chance.choice(("text", 17, ["x"], True))
    else:
        inside[name] = chance.choice(JUNK)
    return broken


@pytest.mark.timeout(600)
def test_a_thousand_malformed_messages_have_a_clear_answer_each(
    orchestrator: Orchestrator,
    agent: AgentProcess,
    bus: Bus,
    guests: list[Guest],
    volume: LoopVolume,
    rounds: int,
    seed: int,
) -> None:
    chance = random.Random(seed)
    pid, known = agent.pid, len(orchestrator.client.list_operations())
    attach = request(
        wish(
            guests[0],
            volume,
            multiattach=True,
            access_mode="rw",
            generation=3,
            disk={"bus": "scsi", "block_size": {"logical": 512}, "iotune": {"read_iops_sec": 9}},
            identity={"serial": "x"},
        )
    )
    detach = {**attach, "attachment_id": attach["attachment"]["attachment_id"]}
    detach["instance_id"] = guests[0].uuid

    def message() -> tuple[str, str, dict[str, Any]]:
        kind = chance.random()
        if kind < 0.45:
            return COMMANDS_TOPIC, "attach", {"request": spoiled(attach, chance)}
        if kind < 0.7:
            return COMMANDS_TOPIC, "detach", {"request": spoiled(detach, chance)}
        if kind < 0.8:
            names = chance.choice(({}, {"request": attach, "more": 1}, {"requests": attach}))
            return COMMANDS_TOPIC, chance.choice(("attach", "detach")), names
        if kind < 0.9:
            return WAIT_TOPIC, "wait_operation", {"operation_id": chance.choice(JUNK)}
        return CONTROL_TOPIC, chance.choice(list(QUESTIONS)), {"nonsense": chance.choice(JUNK)}

    messages = [message() for _ in range(rounds * MALFORMED)]
    with ThreadPoolExecutor(8) as callers:
        answers = list(callers.map(lambda sent: bus.call(sent[0], sent[1], **sent[2]), messages))
    for sent, answer in zip(messages, answers, strict=True):
        assert_clear(sent, answer)
    assert agent.pid == pid
    assert agent.is_running()
    assert orchestrator.client.ping()["host"] == "lab-host"
    assert len(orchestrator.client.list_operations()) == known


def assert_clear(sent: tuple[str, str, dict[str, Any]], answer: dict[str, Any]) -> None:
    assert answer.get("state", "refused") == "refused", f"{sent} was {answer}"
    error = answer["error"]
    assert error["code"] in ERRORS, sent
    assert error["code"] != "internal", f"{sent} was {answer}"
    assert len(error["detail"]) > 10, sent
    for word in ("Traceback", "Error(", "pydantic", "object at 0x", "NoneType", "<class"):
        assert word not in json.dumps(answer), sent
