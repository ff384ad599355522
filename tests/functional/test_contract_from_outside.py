"""The contract, tried by somebody who has read nothing but the contract.

Plain oslo.messaging with the one option that docs/wire.rst asks for; nothing of the agent's own
code. Every name, every field with something wrong in it, every refusal that can be had on one
host without storage, and the shape of everything that is answered.
"""

import itertools
import json
import re
import subprocess
import threading
import uuid
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from importlib import import_module
from typing import Any

import pytest
from oslo_config import cfg

from tests.functional.conftest import BARE, MakeVolume
from tests.lab.agent_process import AgentProcess
from tests.lab.guest import Guest
from tests.lab.lab import Lab
from tests.lab.loop_volume import LoopVolume
from tests.lab.patience import wait_until

oslo_messaging: Any = import_module("oslo_messaging")

pytestmark = pytest.mark.real

HOST = "outside"
SECRET = "canary-5d1f"
LONG = 60.0

COMMANDS = (
    *("attach", "attach_batch", "detach", "swap", "extend", "set_iotune", "connect_instance"),
    *("disconnect_instance", "prepare_migration", "migrate", "cancel_migration"),
)
QUESTIONS = (
    *("ping", "describe", "get_connector", "get_instance", "get_operation", "list_operations"),
    *("list_attachments", "cancel_operation", "abandon_operation", "plan", "audit", "list_locks"),
    *("list_quarantine", "release_quarantine", "import_attachments"),
)
CODES = frozenset(
    {
        *("invalid", "unsupported", "busy", "queue-full", "stale", "expired", "wrong-host"),
        *("request-id-reused", "unknown-attachment", "unknown-instance", "unknown-operation"),
        *("no-free-address", "sharing-conflict", "connect-failed", "auth-failed", "lun-missing"),
        *("read-only-device", "not-all-paths", "wrong-device", "not-encrypted", "plug-refused"),
        *("copy-failed", "migration-failed", "too-late", "deadline", "internal", "cancelled"),
    }
)
STATES = frozenset(
    {
        *("refused", "accepted", "running", "waiting", "done", "undone", "cancelled", "expired"),
        "unsettled",
    }
)
ANSWER = frozenset(
    {
        *("operation_id", "verb", "state", "waiting_for", "progress", "result", "warnings"),
        *("error", "steps", "created_at", "updated_at"),
    }
)
NEVER = re.compile(
    rf"Traceback|\bagent\.(?!bus\.client)[a-z]|pydantic|Error\(|<class|object at 0x|{SECRET}"
)
RFC3339 = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z")

Json = dict[str, Any]


class Outside:
    """An orchestrator that has oslo.messaging and the contract."""

    def __init__(self, url: str) -> None:
        url = f"{url}?amqp_durable_queues=true"
        self._transport = oslo_messaging.get_rpc_transport(cfg.CONF, url)
        target = oslo_messaging.Target(exchange="attachment_agent", version="1.0")
        options = oslo_messaging.TransportOptions(at_least_once=True)
        self._client = oslo_messaging.get_rpc_client(
            self._transport, target, timeout=LONG, transport_options=options
        )
        self.heard: list[tuple[str, str, Json]] = []
        self._mouth = oslo_messaging.get_notification_transport(cfg.CONF, url)
        self._listener = oslo_messaging.get_notification_listener(
            self._mouth,
            [
                oslo_messaging.Target(
                    exchange="attachment_agent", topic="attachment_agent_notifications"
                )
            ],
            [self],
        )
        self._listener.start(override_pool_size=1)  # several threads would change the order

    def info(
        self, ctxt: Any, publisher_id: str, event_type: str, payload: Any, metadata: Any
    ) -> None:
        self.heard.append((publisher_id, event_type, payload))

    def close(self) -> None:
        self._listener.stop()
        self._listener.wait()
        self._mouth.cleanup()
        self._transport.cleanup()

    def call(self, topic: str, method: str, *, to: Json | None = None, **arguments: Any) -> Any:
        """``to``: what else the target says; else this host's own server."""
        where = {"topic": topic, "server": HOST, **(to or {})}
        answer = self._client.prepare(**where).call({}, method, **arguments)
        assert not NEVER.search(json.dumps(answer)), answer
        return answer

    def command(self, verb: str, *, to: Json | None = None, **arguments: Any) -> Json:
        """An answer, and in every part as the contract has it."""
        answer: Json = self.call("attachment-agent", verb, to=to, **arguments)
        assert_answer(answer)
        assert answer["verb"] == verb
        return answer

    def refused(self, verb: str, code: str, *, to: Json | None = None, **arguments: Any) -> str:
        """The detail."""
        answer = self.command(verb, to=to, **arguments)
        assert answer["state"] == "refused", answer
        assert answer["error"]["code"] == code, answer
        return str(answer["error"]["detail"])

    def ask(self, question: str, **arguments: Any) -> Json:
        answer: Json = self.call("attachment-agent-control", question, **arguments)
        return answer

    def no_answer(self, question: str, code: str, **arguments: Any) -> None:
        answer = self.ask(question, **arguments)
        assert set(answer) == {"error"}, answer
        assert_error(answer["error"])
        assert answer["error"]["code"] == code, answer

    def wait(self, operation_id: str, timeout_seconds: float = 30.0) -> Json:
        answer: Json = self.call(
            "attachment-agent-wait",
            "wait_operation",
            operation_id=operation_id,
            timeout_seconds=timeout_seconds,
        )
        assert_answer(answer)
        return answer

    def carried_out(self, verb: str, state: str = "done", **request: Any) -> Json:
        """What became of it."""
        accepted = self.command(verb, request=request)
        assert accepted["state"] != "refused", accepted
        answer = self.wait(accepted["operation_id"])
        assert answer["state"] == state, f"{answer}"
        return answer


def assert_answer(answer: Json) -> None:
    assert set(answer) >= ANSWER
    assert answer["state"] in STATES
    assert isinstance(answer["warnings"], list)
    assert all({"name", "state"} <= set(step) for step in answer["steps"])
    if answer["error"] is not None:
        assert_error(answer["error"])
    if answer["state"] == "refused":
        assert answer["error"] is not None
    else:
        assert RFC3339.fullmatch(answer["created_at"])
        assert RFC3339.fullmatch(answer["updated_at"])
    assert (answer["result"] is not None) == (answer["state"] == "done")


def assert_error(error: Json) -> None:
    assert set(error) >= {"code", "retriable", "detail"}
    assert error["code"] in CODES
    assert error["code"] != "internal", error
    assert isinstance(error["retriable"], bool)
    assert len(error["detail"]) > 10


def soon(seconds: float = 600.0) -> str:
    return (datetime.now(UTC) + timedelta(seconds=seconds)).strftime("%Y-%m-%dT%H:%M:%SZ")


def envelope(**other: Any) -> Json:
    return {"request_id": str(uuid.uuid4()), "not_after": soon(), **other}


def attachment(guest: Guest, volume: LoopVolume, **other: Any) -> Json:
    return {
        "attachment_id": str(uuid.uuid4()),
        "instance_id": guest.uuid,
        "volume_id": volume.volume_id,
        "connection_info": {
            "driver_volume_type": "local",
            "data": {"device_path": volume.path, "vendor_key": SECRET},
        },
        "disk": {"bus": "scsi"},
        **other,
    }


def named(wanted: Json, **other: Any) -> Json:
    """What a detach says of it."""
    ids = {name: wanted[name] for name in ("attachment_id", "instance_id")}
    return envelope(**ids, **other)


@pytest.fixture(scope="module")
def real_agent(lab: Lab) -> Iterator[AgentProcess]:
    agent = lab.agent(HOST)
    agent.wait_connected()
    yield agent
    agent.close()


@pytest.fixture(scope="module")
def outside(lab: Lab, real_agent: AgentProcess) -> Iterator[Outside]:
    outside = Outside(lab.broker.url)
    yield outside
    outside.close()


@pytest.fixture(scope="module")
def pair(lab: Lab) -> Iterator[list[Guest]]:
    """Running; they let go of virtio-scsi disks by themselves, and of virtio-blk ones never."""
    guests = [lab.guest(shape=BARE) for _ in range(2)]
    yield guests
    for guest in guests:
        guest.destroy()
        guest.undefine()


@pytest.fixture
def guest(pair: list[Guest]) -> Guest:
    return pair[0]


@pytest.fixture(autouse=True)
def nothing_is_left(outside: Outside) -> Iterator[None]:
    yield
    assert outside.ask("list_operations", filters={"open": True}) == {"operations": []}
    assert outside.ask("list_attachments", filters={}) == {"attachments": []}
    assert outside.ask("list_quarantine") == {"quarantine": []}
    assert outside.ask("list_locks") == {"locks": []}
    assert outside.ask("audit")["findings"] == []


# names


@pytest.mark.parametrize("verb", COMMANDS)
@pytest.mark.parametrize(
    "arguments", [{}, {"request": {}}, {"request": [1]}, {"request": {}, "more": 1}, {"wish": {}}]
)
def test_every_command_answers_whatever_it_is_sent(
    outside: Outside, verb: str, arguments: Json
) -> None:
    answer = outside.command(verb, **arguments)
    assert answer["state"] == "refused"
    assert answer["error"]["code"] in ("invalid", "unsupported")
    assert answer["error"]["retriable"] is False


@pytest.mark.parametrize("verb", COMMANDS)
def test_a_command_is_here_or_says_that_it_is_not(outside: Outside, verb: str) -> None:
    here = outside.ask("describe")["verbs"]
    wanted = "invalid" if verb in here else "unsupported"
    outside.refused(verb, wanted, request=envelope())
    outside.refused(verb, "wrong-host", request=envelope(host="another"))
    outside.refused(verb, "invalid", request=envelope(host=5))
    planned = outside.ask("plan", verb=verb, request={})
    assert planned["error"]["code"] == wanted


@pytest.mark.parametrize("question", QUESTIONS)
@pytest.mark.parametrize("arguments", [{}, {"nonsense": 1}, {"operation_id": 7, "filters": []}])
def test_every_question_answers_whatever_it_is_asked(
    outside: Outside, question: str, arguments: Json
) -> None:
    answer = outside.ask(question, **arguments)
    if "error" in answer:
        assert_error(answer["error"])
        assert answer["error"]["code"] in ("invalid", "unsupported")
    else:
        assert arguments == {}, "it took what the contract does not name"


@pytest.mark.parametrize("topic", ["attachment-agent", "attachment-agent-control"])
@pytest.mark.parametrize(
    ("to", "method", "kind"),
    [
        ({}, "no_such_thing", "NoSuchMethod"),
        ({}, "_command", "NoSuchMethod"),
        ({}, "__init__", "NoSuchMethod"),
        ({"version": "2.0"}, "ping", "UnsupportedVersion"),
        ({"version": "1.1"}, "ping", "UnsupportedVersion"),
        ({"namespace": "else"}, "ping", "UnsupportedVersion"),
    ],
)
def test_only_what_is_unknown_is_an_exception(
    outside: Outside, topic: str, to: Json, method: str, kind: str
) -> None:
    with pytest.raises(oslo_messaging.RemoteError) as caught:
        outside.call(topic, method, to=to)
    assert caught.value.exc_type == kind
    assert "Traceback" not in f"{caught.value.traceback}"


def test_a_host_that_never_was_is_told_at_once(outside: Outside) -> None:
    with pytest.raises(oslo_messaging.MessageUndeliverable):
        outside.call("attachment-agent-control", "ping", to={"server": "nobody"})


def test_oslo_messagings_default_is_refused_by_the_broker(lab: Lab, real_agent: Any) -> None:
    """What docs/wire.rst says of a caller without amqp_durable_queues."""
    transport = oslo_messaging.get_rpc_transport(cfg.CONF, lab.broker.url)
    target = oslo_messaging.Target(exchange="attachment_agent", topic="attachment-agent-control")
    client = oslo_messaging.get_rpc_client(transport, target).prepare(server=HOST, timeout=LONG)
    with pytest.raises(oslo_messaging.MessageDeliveryFailure, match="arg 'durable'"):
        client.call({}, "ping")
    transport.cleanup()


def test_what_was_not_meant_for_this_host_is_not_done(
    outside: Outside, guest: Guest, volume: LoopVolume
) -> None:
    anybody: Json = {"server": None}
    outside.refused("detach", "wrong-host", to=anybody, request=named(attachment(guest, volume)))
    for question in ("cancel_operation", "abandon_operation", "release_quarantine"):
        answer = outside.call("attachment-agent-control", question, to=anybody)
        assert answer["error"]["code"] == "wrong-host"
    assert "host" in outside.call("attachment-agent-control", "ping", to=anybody)
    here = named(attachment(guest, volume), host=HOST)
    outside.refused("detach", "unknown-attachment", to=anybody, request=here)


# the envelope, and the fields of an attachment

DAY = 86400.0

WRONG_ENVELOPES: list[Any] = [
    ({"request_id": None}, "invalid"),
    ({"request_id": 7}, "invalid"),
    ({"request_id": "ABCDEF01-2345-4789-8ABC-DEF012345678"}, "invalid"),
    ({"request_id": "{00000000-0000-4000-8000-000000000000}"}, "invalid"),
    ({"not_after": None}, "invalid"),
    ({"not_after": 4102444800}, "invalid"),
    ({"not_after": "tomorrow"}, "invalid"),
    ({"not_after": "2099-01-01"}, "invalid"),
    ({"not_after": "2099-01-01T00:00:00"}, "invalid"),
    ({"not_after": "2099-01-01 00:00:00Z"}, "invalid"),
    ({"not_after": "20990101T000000Z"}, "invalid"),
    ({"not_after": "2099-01-01T00:00:00+02:00"}, "invalid"),
    ({"not_after": "2099-01-01T00:00:00Z"}, "invalid"),
    pytest.param({"not_after": soon(31 * DAY)}, "invalid", id="in a month-invalid"),
    pytest.param({"not_after": soon(-1)}, "expired", id="a second ago-expired"),
    ({"deadline_seconds": 0}, "invalid"),
    ({"deadline_seconds": "5"}, "invalid"),
    ({"deadline_seconds": True}, "invalid"),
    ({"deadline_seconds": 2**70}, "invalid"),
    ({"host": ["x"]}, "invalid"),
    ({"host": "h" * 10_000}, "wrong-host"),
    ({"unknown": 1}, "invalid"),
    ({"requestId": "x"}, "invalid"),
]


@pytest.mark.parametrize(("wrong", "code"), WRONG_ENVELOPES, ids=lambda part: str(part)[:50])
def test_a_wrong_envelope_is_refused(
    outside: Outside, guest: Guest, volume: LoopVolume, wrong: Json, code: str
) -> None:
    request = {**envelope(), "attachment": attachment(guest, volume), **wrong}
    detail = outside.refused("attach", code, request=request)
    assert len(detail) < 1000
    if code == "invalid":
        assert next(iter(wrong)) in detail


WRONG_FIELDS: list[tuple[str, Any]] = [
    *(("attachment_id", value) for value in (None, 7, "", "a b", "x" * 65, "ä")),
    *(("instance_id", value) for value in (None, "x", "ABCDEF01-2345-4789-8ABC-DEF012345678")),
    *(("volume_id", value) for value in (None, "", "x" * 37, "a/b")),
    *(("generation", value) for value in (-1, "1", 1.0, True, 2**64)),
    *(("multiattach", value) for value in ("true", 1)),
    *(("shared_targets", value) for value in ("no", 0)),
    *(("service_uuid", value) for value in (7, [])),
    *(("require_all_paths", value) for value in ("true", None)),
    *(("access_mode", value) for value in ("r", "RW", None)),
    *(("size_bytes", value) for value in (0, "1", 1.5, True)),
    *(("identity", value) for value in ({}, {"wwn": ""}, {"wwn": 7}, {"wwid": "x"}, "x")),
    ("encryption", {"format": "luks"}),
    ("encryption", {"format": "plain", "passphrase": SECRET}),
    ("encryption", {"format": "luks", "passphrase": SECRET, "secret_file": "/x"}),
    *(("connection_info", value) for value in (None, {}, "x", {"driver_volume_type": "local"})),
    ("connection_info", {"driver_volume_type": "local", "device_path": "/dev/loop0"}),
    ("connection_info", {"driver_volume_type": "no-such", "data": {}}),
    ("connection_info", {"driver_volume_type": "local", "data": {"device_path": "relative"}}),
    (
        "connection_info",
        {
            "driver_volume_type": "iscsi",
            "data": {
                "target_portal": "127.0.0.1:3260",
                "target_iqn": "iqn.2010-10.org.example:x",
                "target_lun": "1",
                "auth_password": SECRET,
            },
        },
    ),
    ("colour", "green"),
    *(("disk", value) for value in (None, "vda", {"colour": 1})),
    *(("disk", {"bus": value}) for value in ("ide", None, 1)),
    *(("disk", {"target_dev": value}) for value in ("hda", "sda", "vda1", "", 1)),
    *(("disk", {"type": value}) for value in ("floppy", "lun")),
    *(("disk", {"cache": value}) for value in ("", "all")),
    *(("disk", {"io": value}) for value in ("fast", 1)),
    ("disk", {"io": "native", "cache": "writeback"}),
    *(("disk", {"discard": value}) for value in ("yes", True)),
    *(("disk", {"iothread": value}) for value in (0, "1")),
    *(("disk", {"queues": value}) for value in (0, "1", 10**6)),
    *(("disk", {"block_size": value}) for value in ({"logical": 7}, {"x": 1}, 512)),
    *(("disk", {"boot_order": value}) for value in (0, "1", -1)),
    ("disk", {"error_policy": "shrug"}),
    *(("disk", {"reservations": value}) for value in ("managed", "yes")),
    *(("disk", {"iotune": value}) for value in ({"x": 1}, {"read_iops_sec": "1"}, 7)),
    ("disk", {"iotune": {"total_bytes_sec": 1, "read_bytes_sec": 1}}),
]


@pytest.mark.parametrize(("name", "value"), WRONG_FIELDS, ids=lambda part: str(part)[:60])
def test_a_wrong_field_is_refused_by_its_name(
    outside: Outside, guest: Guest, volume: LoopVolume, name: str, value: Any
) -> None:
    wanted = {**attachment(guest, volume), name: value}
    detail = outside.refused("attach", "invalid", request=envelope(attachment=wanted))
    assert name in detail


def test_the_flat_form_is_refused_with_a_hint(
    outside: Outside, guest: Guest, volume: LoopVolume
) -> None:
    flat = {"driver_volume_type": "local", "device_path": volume.path, "qos_specs": None}
    wanted = {**attachment(guest, volume), "connection_info": flat}
    detail = outside.refused("attach", "invalid", request=envelope(attachment=wanted))
    assert "from_cinder" in detail


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("attachment_id", value) for value in (None, 7, "a b")),
        *(("instance_id", value) for value in (None, "x")),
        *(("generation", value) for value in (-1, "1", True)),
        ("attachment", {"attachment_id": "other"}),
        ("colour", "green"),
    ],
)
def test_a_wrong_detach_is_refused_by_its_name(
    outside: Outside, guest: Guest, volume: LoopVolume, name: str, value: Any
) -> None:
    request = {**named(attachment(guest, volume)), name: value}
    assert name in outside.refused("detach", "invalid", request=request)


# one attachment's life


def test_the_life_of_an_attachment(outside: Outside, guest: Guest, volume: LoopVolume) -> None:
    wanted = attachment(guest, volume, generation=3, size_bytes=volume.size_bytes)
    request = envelope(attachment=wanted)
    before = outside.ask("get_instance", instance_id=guest.uuid)
    planned = outside.ask("plan", verb="attach", request=request)
    assert planned["refusal"] is None
    assert planned["steps"]
    assert "<disk" in planned["disk_xml"]
    assert outside.ask("get_instance", instance_id=guest.uuid) == before

    done = outside.carried_out("attach", **request)
    assert done["operation_id"] == request["request_id"]
    result = done["result"]
    assert set(result["device"]) >= {"path", "identity", "size_bytes"}
    assert result["device"]["size_bytes"] == volume.size_bytes
    disk = result["disk"]
    assert set(disk) >= {"target_dev", "alias", "serial", "address", "live", "persistent"}
    assert (disk["live"], disk["persistent"]) == (True, True)
    assert (disk["alias"], disk["serial"]) == (f"ua-{wanted['attachment_id']}", volume.volume_id)

    assert outside.command("attach", request=request) == done
    other = {**request, "deadline_seconds": 77}
    outside.refused("attach", "request-id-reused", request=other)
    outside.refused("detach", "request-id-reused", request={**named(wanted), **_id(request)})

    assert_listed(outside, wanted, done)
    for generation in (2, None):
        late = {**wanted, "generation": generation}
        outside.refused("attach", "stale", request=envelope(attachment=late))
        outside.refused("detach", "stale", request=named(wanted, generation=generation))

    assert outside.ask("plan", verb="detach", request=named(wanted, generation=3))["steps"]
    gone = outside.carried_out("detach", **named(wanted, generation=3))["result"]
    assert gone == {"disconnected": True, "awaiting_unmap": False, "instance_present": True}
    outside.refused("attach", "stale", request=envelope(attachment=wanted))
    again = outside.carried_out("detach", **named(wanted, generation=3))["result"]
    assert again["disconnected"] is True
    assert outside.command("attach", request=request) == done, "a replay does nothing"
    assert outside.ask("get_instance", instance_id=guest.uuid)["disks"] == before["disks"]


def _id(request: Json) -> Json:
    return {"request_id": request["request_id"]}


def assert_listed(outside: Outside, wanted: Json, done: Json) -> None:
    """Every listed field of one value filters, by itself and with all others."""
    ids = {name: wanted[name] for name in ("attachment_id", "instance_id", "volume_id")}
    [row] = outside.ask("list_attachments", filters=ids)["attachments"]
    assert row.items() >= {**ids, "generation": 3, "multiattach": False}.items()
    plain = {name: value for name, value in row.items() if isinstance(value, str | int | bool)}
    for filters in (*({name: value} for name, value in plain.items()), plain):
        assert outside.ask("list_attachments", filters=filters)["attachments"] == [row], filters
    assert outside.ask("list_attachments", filters={"generation": 4})["attachments"] == []
    outside.no_answer("list_attachments", "invalid", filters={"colour": "green"})

    for filters in (
        {"operation_id": done["operation_id"]},
        {**ids, "state": "done", "verb": "attach", "open": False},
    ):
        [row] = outside.ask("list_operations", filters=filters)["operations"]
        assert row.items() >= done.items()
    assert outside.ask("list_operations", filters={**ids, "open": True})["operations"] == []
    outside.no_answer("list_operations", "invalid", filters={"state": "happy"})
    assert outside.ask("get_operation", operation_id=done["operation_id"]) == done
    assert outside.wait(done["operation_id"], 0) == done

    seen = outside.ask("get_instance", instance_id=wanted["instance_id"])
    assert set(seen) >= {"present", "state", "persistent", "job", "disks"}
    assert (seen["present"], seen["state"], seen["persistent"]) == (True, "running", True)
    [disk] = [disk for disk in seen["disks"] if disk["attachment_id"] == wanted["attachment_id"]]
    assert disk["alias"] == f"ua-{wanted['attachment_id']}"
    [audited] = outside.ask("audit")["attachments"]
    assert audited.items() >= ids.items()


def test_its_notifications(outside: Outside, guest: Guest, volume: LoopVolume) -> None:
    begun = len(outside.heard)
    wanted = attachment(guest, volume)
    outside.carried_out("attach", **envelope(attachment=wanted))
    last = outside.carried_out("detach", **named(wanted))

    def mine() -> list[tuple[str, str, Json]]:
        return [
            letter
            for letter in outside.heard[begun:]
            if letter[2]["attachment_ids"] == [wanted["attachment_id"]]
        ]

    wait_until(lambda: mine() and mine()[-1][1] == "attachment.detach.end", "told", seconds=LONG)
    told = mine()
    assert {publisher for publisher, _, _ in told} == {f"attachment-agent.{HOST}"}
    events = [event for _, event, _ in told]
    assert [event for event in events if not event.endswith(".waiting")] == [
        f"attachment.{verb}.{what}" for verb in ("attach", "detach") for what in ("start", "end")
    ]
    letters = [letter for _, _, letter in told]
    assert len({letter["event_id"] for letter in letters}) == len(letters)
    assert all(a["sequence"] < b["sequence"] for a, b in itertools.pairwise(letters))
    for letter in letters:
        assert_answer(letter)
        assert (letter["version"], letter["host"]) == ("1.0", HOST)
        assert (letter["instance_id"], letter["volume_ids"]) == (guest.uuid, [volume.volume_id])
        assert RFC3339.fullmatch(letter["at"])
        assert not NEVER.search(json.dumps(letter))
    assert letters[-1].items() >= last.items()


# refusals and failures


def undone(outside: Outside, code: str, wanted: Json) -> None:
    """Refused or undone, as the contract leaves it; nothing stays."""
    accepted = outside.command("attach", request=envelope(attachment=wanted))
    answer = accepted
    if accepted["state"] != "refused":
        answer = outside.wait(accepted["operation_id"])
    assert answer["state"] in ("refused", "undone"), answer
    assert answer["error"]["code"] == code, answer


def test_what_is_unknown_is_said(outside: Outside, guest: Guest, volume: LoopVolume) -> None:
    nobody = str(uuid.uuid4())
    for question in ("get_operation", "cancel_operation", "abandon_operation"):
        outside.no_answer(question, "unknown-operation", operation_id=nobody)
    answer = outside.call("attachment-agent-wait", "wait_operation", operation_id=nobody)
    assert answer["error"]["code"] == "unknown-operation"
    outside.refused("detach", "unknown-attachment", request=named(attachment(guest, volume)))
    undone(outside, "unknown-instance", {**attachment(guest, volume), "instance_id": nobody})
    absent = outside.ask("get_instance", instance_id=nobody)
    assert absent.items() >= {"present": False, "state": None, "persistent": None}.items()
    assert (absent["job"], absent["disks"]) == (None, [])
    assert outside.ask("release_quarantine", volume_id="nothing")["released"] is False


@pytest.mark.parametrize("seconds", [-1, 31, "5", None, True, [1]])
def test_a_wait_that_cannot_be_is_refused(outside: Outside, seconds: Any) -> None:
    answer = outside.call(
        "attachment-agent-wait",
        "wait_operation",
        operation_id=str(uuid.uuid4()),
        timeout_seconds=seconds,
    )
    assert answer["error"]["code"] == "invalid"


def test_a_detach_of_what_it_never_saw_is_done_with_the_whole(
    outside: Outside, guest: Guest, volume: LoopVolume
) -> None:
    """Its own generation counts, where it gives one."""
    wanted = attachment(guest, volume, generation=1)
    outside.refused("detach", "invalid", request=named(wanted, generation=0, attachment=wanted))
    outside.carried_out("detach", **named(wanted, attachment=wanted))
    outside.refused("attach", "stale", request=envelope(attachment=wanted))
    outside.carried_out("detach", **named(wanted, generation=3, attachment=wanted))
    for generation in (2, 3):
        late = {**wanted, "generation": generation}
        outside.refused("attach", "stale", request=envelope(attachment=late))


def test_what_excludes_each_other_is_refused(
    outside: Outside, pair: list[Guest], make_volume: MakeVolume
) -> None:
    volume, second = make_volume(), make_volume()
    mine = attachment(pair[0], volume, disk={"bus": "scsi", "target_dev": "sdc"})
    outside.carried_out("attach", **envelope(attachment=mine))
    undone(outside, "sharing-conflict", attachment(pair[1], volume))
    undone(outside, "sharing-conflict", attachment(pair[1], volume, multiattach=True))
    undone(outside, "sharing-conflict", attachment(pair[0], volume))
    undone(
        outside,
        "no-free-address",
        attachment(pair[0], second, disk={"bus": "scsi", "target_dev": "sdc"}),
    )
    outside.refused(
        "attach",
        "invalid",
        request=envelope(attachment={**mine, "volume_id": second.volume_id}),
    )
    outside.carried_out("detach", **named(mine))


def test_two_share_a_volume_and_the_last_disconnects(
    outside: Outside, pair: list[Guest], volume: LoopVolume
) -> None:
    both = [attachment(guest, volume, multiattach=True) for guest in pair]
    for wanted in both:
        outside.carried_out("attach", **envelope(attachment=wanted))
    gone = [outside.carried_out("detach", **named(wanted))["result"] for wanted in both]
    assert [result["disconnected"] for result in gone] == [False, True]


def test_another_device_is_quarantined(outside: Outside, guest: Guest, volume: LoopVolume) -> None:
    wanted = attachment(guest, volume, size_bytes=volume.size_bytes + 512)
    undone(outside, "wrong-device", wanted)
    [row] = outside.ask("list_quarantine")["quarantine"]
    assert row["volume_id"] == volume.volume_id
    assert RFC3339.fullmatch(row["at"])
    assert set(row["device"]) == {"path", "identity", "size_bytes"}
    undone(outside, "wrong-device", attachment(guest, volume))
    released = outside.ask("release_quarantine", volume_id=volume.volume_id)
    assert released == {"volume_id": volume.volume_id, "released": True}


@pytest.mark.parametrize("path", ["/etc/passwd", "/dev/there-is-none", "/dev/null"])
def test_a_path_that_is_no_volume_is_refused(
    outside: Outside, guest: Guest, volume: LoopVolume, path: str
) -> None:
    other = {"driver_volume_type": "local", "data": {"device_path": path}}
    wanted = attachment(guest, volume, connection_info=other)
    assert path in outside.refused("attach", "invalid", request=envelope(attachment=wanted))


def test_a_device_that_cannot_be_written_is_attached_for_reading_only(
    outside: Outside, guest: Guest, volume: LoopVolume
) -> None:
    subprocess.run(["blockdev", "--setro", volume.path], check=True)
    try:
        undone(outside, "read-only-device", attachment(guest, volume))
        wanted = attachment(guest, volume, access_mode="ro")
        outside.carried_out("attach", **envelope(attachment=wanted))
        outside.carried_out("detach", **named(wanted))
    finally:  # the loop device keeps it, whatever its next file
        subprocess.run(["blockdev", "--setrw", volume.path], check=True)


def test_a_guest_that_keeps_its_disk(outside: Outside, guest: Guest, volume: LoopVolume) -> None:
    wanted = attachment(guest, volume, disk={"bus": "virtio"})
    outside.carried_out("attach", **envelope(attachment=wanted))
    request = named(wanted)
    accepted = outside.command("detach", request=request)
    operation_id = accepted["operation_id"]

    def is_waiting() -> bool:
        return bool(outside.ask("get_operation", operation_id=operation_id)["state"] == "waiting")

    wait_until(is_waiting, "it waits for the guest", seconds=LONG)
    waiting = outside.wait(operation_id, 0)
    assert waiting["waiting_for"]
    assert outside.command("detach", request=request)["operation_id"] == operation_id
    outside.refused("attach", "busy", request=envelope(attachment=wanted))
    outside.refused("detach", "busy", request=named(wanted))
    undone(outside, "busy", attachment(guest, volume))
    outside.no_answer("cancel_operation", "too-late", operation_id=operation_id)

    ends: list[Json] = []
    waiter = threading.Thread(target=lambda: ends.append(outside.wait(operation_id)), daemon=True)
    waiter.start()
    guest.reset()
    waiter.join(LONG)
    assert [end["state"] for end in ends] == ["done"]


EVERY: list[tuple[str, Callable[[Json], bool]]] = [
    ("ping", lambda answer: answer["host"] == HOST),
    ("describe", lambda answer: set(answer["verbs"]) <= set(COMMANDS) and answer["wire"] == "1.0"),
    ("get_connector", lambda answer: isinstance(answer["connector"], dict)),
    ("audit", lambda answer: set(answer) >= {"attachments", "findings"}),
]


@pytest.mark.parametrize(("question", "is_so"), EVERY, ids=[name for name, _ in EVERY])
def test_what_is_asked_of_a_host(
    outside: Outside, question: str, is_so: Callable[[Json], bool]
) -> None:
    assert is_so(outside.ask(question))
