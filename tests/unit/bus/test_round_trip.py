"""Client and servers over kombu's queues in memory: real serialisation, no broker.

What only a broker does (durability, unknown hosts, restarts) is in tests/functional/test_bus.py.
"""

import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from importlib import import_module
from typing import Any

import pytest
from oslo_config import cfg

from agent.bus.client import AgentClient, Refused, Unreachable
from agent.bus.peers import BusPeers
from agent.bus.servers import Servers
from agent.bus.transport import rpc_transport
from agent.bus.wire import COMMANDS_TOPIC, CONTROL_TOPIC, EXCHANGE, WAIT_TOPIC
from agent.errors import Invalid
from agent.model.attachment import Attachment
from agent.model.contract import QUESTIONS
from agent.model.migration_request import (
    LEASE_SECONDS,
    CancelMigrationRequest,
    MigrateRequest,
    PrepareMigrationRequest,
)
from agent.model.request import AttachRequest, DetachRequest
from agent.ports import Prepared, Readiness, Sighting
from agent.steps.migrate import MoveInstance
from tests.desk import RecordingDesk, new_id
from tests.samples import INSTANCES, VOLUMES, attachment_payload

oslo_messaging: Any = import_module("oslo_messaging")  # after agent.bus: see there

URL = "kombu+memory:///"
HOST = "hypervisor-1"


@pytest.fixture(scope="module")
def served() -> Iterator[RecordingDesk]:
    desk = RecordingDesk()
    servers = Servers(cfg.CONF, desk, HOST, url=URL)
    servers.start()
    yield desk
    servers.stop(5)


@pytest.fixture(scope="module")
def client(served: RecordingDesk) -> Iterator[AgentClient]:
    with AgentClient(cfg.CONF, HOST, url=URL, timeout_seconds=60) as client:
        client.ping()
        yield client


@pytest.fixture(scope="module")
def raw(served: RecordingDesk) -> Iterator[Any]:
    """oslo.messaging's own client."""
    transport = rpc_transport(cfg.CONF, URL)
    target = oslo_messaging.Target(exchange=EXCHANGE, server=HOST, version="1.0")
    yield oslo_messaging.get_rpc_client(transport, target, timeout=60)
    transport.cleanup()


@pytest.fixture
def desk(served: RecordingDesk) -> RecordingDesk:
    served.commands.clear()
    served.queries.clear()
    served.answers.clear()
    return served


class Answers:
    """Of an RPC client that gets one after the other, or meets it."""

    def __init__(self, *answers: dict[str, Any] | Exception) -> None:
        self._answers = list(answers)

    def prepare(self, **how: Any) -> "Answers":
        return self

    def call(self, context: Any, method: str, **arguments: Any) -> dict[str, Any]:
        answer = self._answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer


class TestNobody:
    """The broker has no queue of that host."""

    def test_from_the_first_nothing_was_sent(
        self, client: AgentClient, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        gone = oslo_messaging.MessageUndeliverable(None, None, None, None)
        monkeypatch.setattr(client._caller, "_rpc", Answers(gone))
        with pytest.raises(Unreachable, match="nothing was sent") as nobody:
            client.attach(attachment_payload())
        assert nobody.value.request is None

    def test_what_may_have_been_accepted_is_at_hand(self, monkeypatch: pytest.MonkeyPatch) -> None:
        silence = oslo_messaging.MessagingTimeout()
        done = {"operation_id": new_id(), "verb": "attach", "state": "done"}
        with AgentClient(cfg.CONF, HOST, url=URL, timeout_seconds=0) as client:
            client._caller._connected.set()
            monkeypatch.setattr(client._caller, "_rpc", Answers(silence, silence, done))
            with pytest.raises(Unreachable, match="is unknown") as silent:
                client.attach(attachment_payload())
            request = silent.value.request
            assert request is not None
            assert request["attachment"] == attachment_payload()
            with pytest.raises(Unreachable) as question:
                client.list_locks()
            assert question.value.request is None
            assert client.command("attach", request).state == "done"

    def test_after_a_try_without_an_answer_nobody_knows_and_it_is_sent_again(
        self, client: AgentClient, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        silence = oslo_messaging.MessagingTimeout()
        gone = oslo_messaging.MessageUndeliverable(None, None, None, None)
        done = {"operation_id": new_id(), "verb": "attach", "state": "done"}
        monkeypatch.setattr(client._caller, "_rpc", Answers(silence, gone, done))
        assert client.attach(attachment_payload()).state == "done"


def test_attach_sends_a_request_that_the_agent_parses(
    client: AgentClient, desk: RecordingDesk
) -> None:
    answer = client.attach(attachment_payload(), deadline_seconds=60)
    ((verb, arguments, addressed),) = desk.commands
    assert (verb, addressed, set(arguments)) == ("attach", True, {"request"})
    request = AttachRequest.parse(arguments["request"])
    assert request.deadline_seconds == 60
    assert request.not_after > datetime.now(UTC)
    assert answer.operation_id == request.request_id
    assert answer.state == "accepted"


def test_a_misspelt_wish_is_not_forgotten(client: AgentClient, desk: RecordingDesk) -> None:
    misspelt: dict[str, Any] = {"generaton": 5, "deadline": 300}
    with pytest.raises(TypeError, match="detach takes no deadline, generaton"):
        client.detach("att-1", INSTANCES[0], **misspelt)
    assert desk.commands == []


def test_the_envelope_goes_as_it_was_given(client: AgentClient, desk: RecordingDesk) -> None:
    """``not_after`` also as somebody keeps it who wrote the request down."""
    given = {"request_id": new_id(), "not_after": "2099-01-01T00:00:00.000Z", "host": HOST}
    client.attach(attachment_payload(), **given)  # type: ignore[arg-type]
    request: Any = desk.commands[0][1]["request"]
    assert {name: request[name] for name in given} == given


def test_a_parsed_attachment_is_sent_with_its_secrets(
    client: AgentClient, desk: RecordingDesk
) -> None:
    encryption = {"format": "luks", "passphrase": "not-a-passphrase"}
    client.attach(Attachment.parse(attachment_payload(encryption=encryption)))
    request: Any = desk.commands[0][1]["request"]
    assert request["attachment"] == attachment_payload(encryption=encryption)


def test_detach_sends_a_request_that_the_agent_parses(
    client: AgentClient, desk: RecordingDesk
) -> None:
    until = datetime(2099, 1, 1, tzinfo=UTC)
    given = new_id()
    client.detach("att-1", INSTANCES[0], generation=3, request_id=given, not_after=until)
    client.detach("att-1", INSTANCES[0], attachment=attachment_payload())
    first, second = (DetachRequest.parse(arguments["request"]) for _, arguments, _ in desk.commands)
    assert (first.request_id, first.not_after, first.generation) == (given, until, 3)
    assert first.attachment is None
    assert second.attachment is not None
    assert second.generation is None


def test_a_migration_is_prepared_and_cancelled_by_what_the_agent_parses(
    client: AgentClient, desk: RecordingDesk
) -> None:
    coming = [{**attachment_payload(), "replaces": "old-1"}]
    client.prepare_migration("mig-1", INSTANCES[0], coming, source_host="hypervisor-2")
    client.cancel_migration("mig-1")
    there = {"host": "hypervisor-2", "libvirt_uri": "qemu+tls://hypervisor-2/system"}
    client.migrate("mig-1", INSTANCES[0], there, {"att-1": "<disk/>"}, options={"tls": True})
    (_, first, _), (_, second, _), (_, third, _) = desk.commands
    goes = MigrateRequest.parse(third["request"])
    assert (goes.destination.host, goes.options.tls) == ("hypervisor-2", True)
    prepare = PrepareMigrationRequest.parse(first["request"])
    assert prepare.lease_seconds == LEASE_SECONDS
    assert prepare.source is not None
    assert prepare.source.host == "hypervisor-2"
    assert CancelMigrationRequest.parse(second["request"]).migration_id == "mig-1"


class TestPeers:
    """Another agent, asked as an orchestrator would."""

    @pytest.fixture
    def peers(self) -> Iterator[BusPeers]:
        """A connection to kombu's queues in memory costs processor time until it is closed."""
        peers = BusPeers(cfg.CONF, URL)
        yield peers
        peers.close()

    def test_an_instance_that_is_there(self, peers: BusPeers, desk: RecordingDesk) -> None:
        desk.answers["get_instance"] = {"present": True, "state": "running", "job": "migration"}
        found = peers.look(HOST, INSTANCES[0])
        assert found == Sighting(state="running", job="migration")

    def test_a_host_is_asked_again_over_the_same_connection(
        self, peers: BusPeers, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """And it is closed when it has not been used for long, and another one is asked."""
        lines: list[str] = []

        class Line:
            def __init__(self, _conf: Any, host: str, *_how: object) -> None:
                self._host = host
                lines.append(f"opened {host}")

            def call(self, *_what: object, **_arguments: object) -> dict[str, Any]:
                return {"present": False}

            def close(self) -> None:
                lines.append(f"closed {self._host}")

        monkeypatch.setattr("agent.bus.peers.Caller", Line)
        for host in ("one", "one", "two"):
            peers.look(host, INSTANCES[0])
        assert lines == ["opened one", "opened two"]
        monkeypatch.setattr("agent.bus.peers.IDLE_SECONDS", -1.0)
        peers.look("two", INSTANCES[0])
        assert lines == ["opened one", "opened two", "closed one"]
        peers.close()
        assert lines[3:] == ["closed two"]

    def test_an_instance_that_is_not(self, peers: BusPeers, desk: RecordingDesk) -> None:
        desk.answers["get_instance"] = {"present": False, "state": None, "job": None}
        assert peers.look(HOST, INSTANCES[0]) == Sighting(state=None)

    def test_what_it_can_and_has_prepared(self, peers: BusPeers, desk: RecordingDesk) -> None:
        """An older agent has no leases, and does not say so. What is being given back is not ready,
        whatever its lease says."""
        lease = {"replaces": "att-1", "migration_id": "mig-1"}
        about = {"volume_id": VOLUMES[0], "multiattach": True, "access_mode": "ro"}
        kept = {"lease": lease, "promised": True, "device": {"size_bytes": 1 << 30}, **about}
        withdrawn = {**kept, "lease": {**lease, "replaces": "att-2"}, "promised": False}
        desk.answers["describe"] = {"verbs": ["migrate"], "libvirt": "9.0.0"}
        desk.answers["get_instance"] = {"present": False, "state": None, "job": None}
        desk.answers["list_attachments"] = {"attachments": [kept, withdrawn, {"lease": None}, {}]}
        assert peers.readiness(HOST, INSTANCES[0]) == Readiness(
            frozenset({"migrate"}),
            (9, 0, 0),
            Sighting(state=None),
            {"att-1": Prepared("mig-1", 1 << 30, VOLUMES[0], True, "ro")},
        )

    def test_while_its_libvirt_is_away_it_is_not_ready(
        self, peers: BusPeers, desk: RecordingDesk
    ) -> None:
        desk.answers["describe"] = {"verbs": ["migrate"], "libvirt": None}
        desk.answers["get_instance"] = {"present": False, "state": None, "job": None}
        desk.answers["list_attachments"] = {"attachments": []}
        assert peers.readiness(HOST, INSTANCES[0]) is None

    @pytest.mark.parametrize(
        ("verb", "state", "step", "is_given_up"),
        [
            ("migrate", "undone", "reverted", True),
            ("migrate", "undone", "planned", False),
            ("migrate", "cancelled", "planned", True),
            ("migrate", "waiting", "intended", False),
            ("migrate", "done", "done", False),
            ("cancel_migration", "done", "planned", True),
        ],
    )
    def test_whether_it_has_given_up(
        self,
        peers: BusPeers,
        desk: RecordingDesk,
        verb: str,
        state: str,
        step: str,
        *,
        is_given_up: bool,
    ) -> None:
        steps = [{"name": MoveInstance.name, "state": step}]
        row = {"verb": verb, "state": state, "steps": steps}
        desk.answers["list_operations"] = {"operations": [row]}
        assert peers.has_given_up(HOST, INSTANCES[0], "mig-1") is is_given_up
        desk.answers["list_operations"] = {"operations": []}
        desk.queries.clear()
        assert peers.has_given_up(HOST, INSTANCES[0], "mig-1") is False
        asked = [query.get("filters") for _, query in desk.queries]
        assert {"verb": "cancel_migration", "migration_id": "mig-1", "state": "done"} in asked

    def test_a_refusal_is_no_answer(self, peers: BusPeers, desk: RecordingDesk) -> None:
        error = {"code": "internal", "retriable": True, "detail": "libvirt does not answer"}
        refusal = {"error": error}
        desk.answers = dict.fromkeys(("get_instance", "describe", "list_operations"), refusal)
        assert peers.look(HOST, INSTANCES[0]) is None
        assert peers.readiness(HOST, INSTANCES[0]) is None
        assert peers.has_given_up(HOST, INSTANCES[0], "mig-1") is None


def test_every_question_of_the_port_has_its_method(
    client: AgentClient, desk: RecordingDesk
) -> None:
    operation = {"operation_id": new_id(), "verb": "attach", "state": "done"}
    rows = {"list_locks": "locks", "list_quarantine": "quarantine"}
    rows |= {"list_operations": "operations", "list_attachments": "attachments"}
    desk.answers = {name: {key: [{"row": 1}]} for name, key in rows.items()}
    desk.answers |= dict.fromkeys(
        ("get_operation", "cancel_operation", "abandon_operation"), operation
    )
    desk.answers["get_connector"] = {"connector": {"initiator": "iqn.example"}}
    arguments: dict[str, tuple[Any, ...]] = {
        "get_instance": (INSTANCES[0],),
        "get_operation": (operation["operation_id"],),
        "cancel_operation": (operation["operation_id"],),
        "abandon_operation": (operation["operation_id"],),
        "release_quarantine": ("volume-1",),
        "import_attachments": ([{"attachment": attachment_payload()}],),
        "plan": ("attach", {"attachment": attachment_payload()}),
    }
    for name in QUESTIONS:
        answer = getattr(client, name)(*arguments.get(name, ()))
        if name in rows:
            assert answer == [{"row": 1}]
        elif name.endswith("_operation"):
            assert answer.state == "done"
        elif name == "get_connector":
            assert answer == {"initiator": "iqn.example"}
        else:
            assert answer == {"asked": name}
    asked = [name for name, _ in desk.queries]
    assert asked == list(QUESTIONS)


def test_all_operations_come_page_by_page(
    client: AgentClient, desk: RecordingDesk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agent.bus.questions.OPERATIONS_AT_ONCE", 2)
    rows = [{"operation_id": f"{number}"} for number in range(5)]

    def page(name: str, arguments: Any) -> dict[str, Any]:
        ends = int(arguments.get("before", 5))
        return {"operations": rows[max(0, ends - arguments["limit"]) : ends]}

    monkeypatch.setattr(desk, "query", page)
    assert client.list_operations() == rows
    gone = {"error": {"code": "unknown-operation", "retriable": False, "detail": "gone"}}
    forgotten = [gone]

    def forgets_one(name: str, arguments: Any) -> dict[str, Any]:
        return forgotten.pop() if forgotten and "before" in arguments else page(name, arguments)

    monkeypatch.setattr(desk, "query", forgets_one)
    assert client.list_operations() == rows, "begun anew"
    assert client.list_operations(limit=1) == rows[-1:]
    assert client.list_operations(before="4") == rows[:4]


def test_filters_go_as_one_argument(client: AgentClient, desk: RecordingDesk) -> None:
    desk.answers["list_operations"] = {"operations": []}
    client.list_operations(limit=7, open=True, verb="attach")
    assert desk.queries[-1] == (
        "list_operations",
        {"filters": {"open": True, "verb": "attach"}, "limit": 7},
    )


def test_what_has_no_answer_is_refused(client: AgentClient, desk: RecordingDesk) -> None:
    error = {"code": "unknown-operation", "retriable": False, "detail": "no such operation"}
    desk.answers["get_operation"] = {"error": error}
    with pytest.raises(Refused) as caught:
        client.get_operation(new_id())
    told = caught.value
    assert {"code": told.code, "retriable": told.retriable, "detail": told.detail} == error


def test_a_refusal_may_grow(client: AgentClient, desk: RecordingDesk) -> None:
    error = {"code": "unknown-operation", "retriable": False, "detail": "none", "advice": "look"}
    desk.answers["get_operation"] = {"error": error, "host": "hypervisor-1"}
    with pytest.raises(Refused, match="unknown-operation: none"):
        client.get_operation(new_id())


def test_an_operations_own_error_is_no_refusal(client: AgentClient, desk: RecordingDesk) -> None:
    error = {"code": "busy", "retriable": True, "detail": "wait"}
    desk.answers["get_operation"] = {
        "operation_id": new_id(),
        "verb": "attach",
        "state": "undone",
        "error": error,
    }
    answer = client.get_operation(new_id())
    assert answer.error is not None
    assert answer.error.code == "busy"


def test_an_answer_may_grow(client: AgentClient, desk: RecordingDesk) -> None:
    desk.answers["get_operation"] = {
        "operation_id": new_id(),
        "verb": "attach",
        "state": "running",
        "progress": {"done": 1, "total": 2, "unit": "bytes", "mood": "good"},
        "colour": "green",
    }
    assert client.get_operation(new_id()).state == "running"


def test_a_verb_that_the_agent_does_not_know_is_unsupported(client: AgentClient) -> None:
    with pytest.raises(Refused, match="does not know teleport") as caught:
        client.command("teleport", {})
    assert caught.value.code == "unsupported"


def test_wait_returns_when_the_operation_is_closed(
    client: AgentClient, desk: RecordingDesk
) -> None:
    operation_id = new_id()
    closer = threading.Timer(0.2, desk.close, [operation_id])
    begun = time.monotonic()
    closer.start()
    answer = client.wait(operation_id, timeout_seconds=60)
    closer.join()
    assert answer.state == "done"
    assert time.monotonic() - begun < 30, "it stayed after the end"


def test_wait_returns_the_state_at_its_timeout(client: AgentClient) -> None:
    answer = client.wait(new_id(), timeout_seconds=0.1)
    assert answer.state == "running"


@pytest.mark.parametrize("topic", [COMMANDS_TOPIC, CONTROL_TOPIC, WAIT_TOPIC])
@pytest.mark.parametrize(
    ("method", "kwargs"),
    [
        ("_command", {}),
        ("__init__", {}),
        ("target", {}),
        ("nothing", {}),
        ("ping", {"namespace": "x"}),
        ("ping", {"version": "1.1"}),
        ("ping", {"version": "2.0"}),
    ],
)
def test_only_an_unknown_method_or_version_is_an_exception(
    raw: Any, topic: str, method: str, kwargs: dict[str, str]
) -> None:
    with pytest.raises(oslo_messaging.RemoteError) as caught:
        raw.prepare(topic=topic, **kwargs).call({}, method)
    assert caught.value.exc_type in ("NoSuchMethod", "UnsupportedVersion")
    assert "File " not in f"{caught.value}"


@pytest.mark.parametrize("arguments", [{}, {"verb": 1}, {"request": [1]}, {"request": {}, "x": 2}])
def test_any_keywords_are_answered_by_value(
    raw: Any, desk: RecordingDesk, arguments: dict[str, Any]
) -> None:
    answer = raw.prepare(topic=COMMANDS_TOPIC).call({}, "attach", **arguments)
    assert answer["state"] == "accepted"
    assert desk.commands[-1][1] == arguments


@pytest.mark.parametrize(
    "url",
    ["rabbit", "nosuch://user:hunter2@broker/", "http://x", "rabbit://user:hunter2@broker:port/"],
)
def test_a_url_that_cannot_be_used_is_invalid_and_not_shown(url: str) -> None:
    with pytest.raises(Invalid, match="transport_url") as caught:
        AgentClient(cfg.CONF, "host", url=url)
    assert "hunter2" not in f"{caught.value}"
