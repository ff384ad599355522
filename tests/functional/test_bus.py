"""The bus on a real RabbitMQ: who is addressed, what survives a stop, a restart and a flood."""

import itertools
import json
import shlex
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from importlib import import_module
from pathlib import Path
from typing import Any, TypeVar

import pytest
from oslo_config import cfg

from agent.bus.caller import MONITOR_SECONDS
from agent.bus.client import AgentClient, Unreachable
from agent.bus.publisher import Publisher
from agent.bus.servers import Servers
from agent.bus.transport import notification_transport, rpc_transport
from agent.bus.wire import (
    COMMANDS_TOPIC,
    CONTROL_TOPIC,
    EXCHANGE,
    NOTIFICATIONS_TOPIC,
    WAIT_TOPIC,
)
from agent.errors import Internal
from agent.model.request import AttachRequest, DetachRequest
from tests.desk import RecordingDesk, new_id
from tests.lab.broker import Broker
from tests.lab.lab import Lab
from tests.lab.patience import PATIENCE, wait_until
from tests.lab.stopped import stopped
from tests.samples import INSTANCES

# After agent.bus: see there.
oslo_messaging: Any = import_module("oslo_messaging")
kombu: Any = import_module("kombu")
amqp: Any = import_module("amqp")

pytestmark = pytest.mark.real

T = TypeVar("T")

REPOSITORY = Path(__file__).parents[2]

ENOUGH = 60.0
"""For wait_until, which has its own patience."""

LONG = ENOUGH * PATIENCE
"""Where an event is waited for: an end, not a measure."""


@pytest.fixture(scope="module")
def broker() -> Iterator[Broker]:
    with Lab() as lab:
        yield lab.broker


@pytest.fixture
def host() -> str:
    return f"hypervisor-{new_id()}"


@contextmanager
def serving(broker: Broker, host: str, desk: RecordingDesk) -> Iterator[Servers]:
    servers = Servers(cfg.CONF, desk, host, url=broker.url)
    servers.start()
    try:
        wait_until(servers.connected, "servers connect", seconds=ENOUGH)
        yield servers
    finally:
        desk.go.set()
        servers.stop(LONG)


@pytest.fixture
def desk(broker: Broker, host: str) -> Iterator[RecordingDesk]:
    desk = RecordingDesk()
    with serving(broker, host, desk):
        yield desk


@pytest.fixture
def client(broker: Broker, host: str) -> Iterator[AgentClient]:
    with AgentClient(cfg.CONF, host, url=broker.url, timeout_seconds=10 * PATIENCE) as client:
        yield client


@pytest.fixture
def raw(broker: Broker, host: str) -> Iterator[Any]:
    """oslo.messaging's own client, on the commands' topic."""
    transport = rpc_transport(cfg.CONF, broker.url)
    target = oslo_messaging.Target(exchange=EXCHANGE, topic=COMMANDS_TOPIC, version="1.0")
    yield oslo_messaging.get_rpc_client(transport, target, timeout=LONG)
    transport.cleanup()


class Channel:
    """Plain AMQP: what any program with a login can do."""

    def __init__(self, broker: Broker) -> None:
        self._connection = kombu.Connection(broker.url.replace("rabbit:", "amqp:"))
        self._channel = self._connection.channel()

    def close(self) -> None:
        self._connection.release()

    def publish(self, queue_key: str, body: bytes, content_type: str = "application/json") -> None:
        message = amqp.Message(body, content_type=content_type, content_encoding="utf-8")
        self._channel.basic_publish(message, exchange=EXCHANGE, routing_key=queue_key)

    def waiting(self, queue: str) -> int:
        """Messages in it that nobody has taken."""
        return int(self._channel.queue_declare(queue, passive=True).message_count)


@pytest.fixture
def channel(broker: Broker) -> Iterator[Channel]:
    channel = Channel(broker)
    yield channel
    channel.close()


def request(**fields: Any) -> dict[str, Any]:
    return {"request_id": new_id(), **fields}


def in_threads(count: int, job: Callable[[int], T]) -> list[T]:
    """What each said.  Raises what one of them raised."""
    with ThreadPoolExecutor(count) as threads:
        return [said.result(LONG) for said in [threads.submit(job, n) for n in range(count)]]


# who is addressed


def test_only_the_hosts_own_queue_addresses_it(desk: RecordingDesk, host: str, raw: Any) -> None:
    lie = {"attachment_agent_addressed": True}
    raw.prepare(server=host).call({}, "attach", request=request())
    raw.prepare(server=host).call(
        {"attachment_agent_addressed": False}, "attach", request=request()
    )
    raw.call(lie, "attach", request=request())  # the bare topic
    raw.prepare(fanout=True).cast(lie, "attach", request=request())
    desk.wait_for_commands(4, seconds=LONG)
    assert [addressed for _, _, addressed in desk.commands] == [True, True, False, False]


def test_the_fanout_does_not_address_whatever_its_key(
    desk: RecordingDesk, host: str, channel: Channel
) -> None:
    message = json.dumps({"method": "attach", "args": {"request": request()}})
    body = json.dumps({"oslo.version": "2.0", "oslo.message": message}).encode()
    channel._channel.basic_publish(
        amqp.Message(body, content_type="application/json", content_encoding="utf-8"),
        exchange=f"{COMMANDS_TOPIC}_fanout",
        routing_key=f"{COMMANDS_TOPIC}.{host}",
    )
    desk.wait_for_commands(1, seconds=LONG)
    assert desk.commands[0][2] is False


def test_a_host_that_never_was_is_unreachable_at_once_every_time(
    desk: RecordingDesk, client: AgentClient, broker: Broker
) -> None:
    client.ping()
    patience_seconds = 30.0 * PATIENCE
    with AgentClient(
        cfg.CONF, "nobody", url=broker.url, timeout_seconds=patience_seconds
    ) as nobody:
        begun = time.monotonic()
        for ask in (nobody.ping, nobody.ping, lambda: nobody.attach({}), nobody.audit):
            with pytest.raises(Unreachable, match="no agent has ever listened as nobody"):
                ask()
        assert time.monotonic() - begun < patience_seconds / 3
    assert desk.commands == []


# stop


def test_a_stop_loses_no_command(broker: Broker, host: str, client: AgentClient) -> None:
    """Everything sent around a stop is taken by this agent or by the next, and none by both."""
    first, second = RecordingDesk(), RecordingDesk()
    sent: list[str] = []
    enough = threading.Event()
    transport = rpc_transport(cfg.CONF, broker.url)
    target = oslo_messaging.Target(exchange=EXCHANGE, topic=COMMANDS_TOPIC, server=host)
    caster = oslo_messaging.get_rpc_client(transport, target)

    def flood() -> None:
        while not enough.is_set():
            asked = request()
            caster.cast({}, "attach", request=asked)
            sent.append(asked["request_id"])

    with serving(broker, host, first) as servers:
        sender = threading.Thread(target=flood, daemon=True)
        sender.start()
        first.wait_for_commands(100, seconds=LONG)
        servers.stop(LONG)
        assert not servers.connected()
    taken = len(first.commands)
    wait_until(lambda: len(sent) > taken + 100, "more were sent", seconds=ENOUGH)
    assert len(first.commands) == taken, "something came after the stop"
    enough.set()
    sender.join(LONG)
    with serving(broker, host, second):
        second.wait_for_commands(len(sent) - taken, seconds=LONG)
    assert sorted(first.request_ids + second.request_ids) == sorted(sent)
    transport.cleanup()


def test_a_stop_answers_what_was_taken(broker: Broker, host: str) -> None:
    desk = RecordingDesk()
    with (
        serving(broker, host, desk) as servers,
        # One that asks again is answered by nobody: the servers are stopped.
        AgentClient(cfg.CONF, host, url=broker.url, timeout_seconds=LONG) as client,
    ):
        client.ping()
        desk.go.clear()
        answers: list[Any] = []
        caller = threading.Thread(target=lambda: answers.append(client.attach({})), daemon=True)
        caller.start()
        desk.wait_for_commands(1, seconds=LONG)
        stopper = threading.Thread(target=servers.stop, args=(LONG,), daemon=True)
        stopper.start()
        stopper.join(0.5)
        assert stopper.is_alive(), "it did not wait for the answer"
        desk.go.set()
        stopper.join(LONG)
        caller.join(LONG)
    assert [answer.state for answer in answers] == ["accepted"]


def test_many_waiters_keep_no_command_and_no_question_waiting(
    desk: RecordingDesk, client: AgentClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """More than the wait topic has threads; those without one are served when one is free."""
    monkeypatch.setattr("agent.bus.client.WAIT_SLICE_SECONDS", LONG)  # none leaves meanwhile
    operations = [new_id() for _ in range(100)]
    client.ping()
    waiters = threading.Thread(
        target=in_threads,
        args=(100, lambda number: client.wait(operations[number], LONG)),
        daemon=True,
    )
    waiters.start()
    begun = time.monotonic()
    assert client.attach({}).state == "accepted"
    assert client.ping() == {"asked": "ping"}
    assert time.monotonic() - begun < LONG / 6
    for operation_id in operations:
        desk.close(operation_id)
    waiters.join(LONG)
    assert not waiters.is_alive()


# the broker goes and comes back


def test_servers_start_without_a_broker_and_serve_when_it_comes(
    broker: Broker, host: str, client: AgentClient
) -> None:
    desk = RecordingDesk()
    broker.stop()
    servers = Servers(cfg.CONF, desk, host, url=broker.url)
    begun = time.monotonic()
    servers.start()
    assert time.monotonic() - begun < LONG / 30
    try:
        assert not servers.connected()
        assert servers.turning()
        assert "no broker" in servers.describe()
        with AgentClient(cfg.CONF, host, url=broker.url, timeout_seconds=2) as hasty:
            with pytest.raises(Unreachable, match="broker does not answer"):
                hasty.ping()
            broker.start()
            wait_until(servers.connected, "servers connect", seconds=ENOUGH)
            wait_until(lambda: _reaches(hasty), "it answers", seconds=ENOUGH)
        assert "connected" in servers.describe()
    finally:
        servers.stop(LONG)


def _reaches(client: AgentClient) -> bool:
    try:
        client.ping()
    except Unreachable:
        return False
    return True


def test_an_exchange_that_somebody_made_otherwise_is_said(
    tmp_path: Path, host: str, caplog: pytest.LogCaptureFixture
) -> None:
    """oslo.messaging falls back to queues that a restart of the broker empties."""
    with Broker(tmp_path) as broker:
        with kombu.Connection(broker.url.replace("rabbit:", "amqp:")) as connection:
            connection.channel().exchange_declare(
                EXCHANGE, "topic", durable=False, auto_delete=False
            )
        with serving(broker, host, RecordingDesk()) as servers:
            assert "made without durability" in servers.describe()
            assert len(servers.warnings()) == 1
            assert "made without durability" in caplog.text
            with AgentClient(cfg.CONF, host, url=broker.url) as client:
                client.ping()
        broker.restart()
        with serving(broker, host, RecordingDesk()) as servers:
            assert servers.warnings() == []


def test_a_client_that_declares_otherwise_is_told_what_to_set(
    desk: RecordingDesk, broker: Broker, host: str
) -> None:
    url = f"{broker.url}?amqp_durable_queues=false"
    with (
        AgentClient(cfg.CONF, host, url=url) as client,
        pytest.raises(Unreachable, match=r"another durable: set .* amqp_durable_queues") as caught,
    ):
        client.ping()
    assert "nothing was sent" in f"{caught.value}"


def test_queues_of_another_type_are_said(desk: RecordingDesk, broker: Broker, host: str) -> None:
    servers = Servers(cfg.CONF, RecordingDesk(), host, url=f"{broker.url}?rabbit_quorum_queue=true")
    servers.start()
    try:
        wait_until(
            lambda: "set [oslo_messaging_rabbit] rabbit_quorum_queue" in servers.describe(),
            "it says what is wrong",
            seconds=ENOUGH,
        )
        assert servers.turning()
    finally:
        servers.stop(LONG)


def test_servers_notice_that_the_broker_is_away(broker: Broker, host: str) -> None:
    with serving(broker, host, RecordingDesk()) as servers:
        broker.stop()
        try:
            wait_until(lambda: not servers.connected(), "they notice", seconds=ENOUGH)
            assert servers.turning()
        finally:
            broker.start()


def test_stop_ends_with_a_broker_that_hangs(broker: Broker, host: str) -> None:
    with serving(broker, host, RecordingDesk()) as servers, stopped(broker.pid):
        begun = time.monotonic()
        servers.stop(2.0)
        assert time.monotonic() - begun < LONG / 6


def test_a_refused_login_is_said_and_does_not_end_us(broker: Broker, host: str) -> None:
    wrong = broker.url.replace("guest:guest", "guest:wrong")
    servers = Servers(cfg.CONF, RecordingDesk(), host, url=wrong)
    servers.start()
    try:
        with AgentClient(cfg.CONF, host, url=wrong, timeout_seconds=LONG) as client:
            begun = time.monotonic()
            with pytest.raises(Unreachable, match=r"refuses us: check .* transport_url") as caught:
                client.ping()
        assert time.monotonic() - begun < LONG / 3, "a refusal is no silence"
        assert "wrong" not in f"{caught.value}"
        assert servers.turning()
        assert not servers.connected()
    finally:
        servers.stop(LONG)


def test_calls_go_on_over_a_restart_of_the_broker(
    broker: Broker, host: str, desk: RecordingDesk, client: AgentClient
) -> None:
    """Each call is answered at last, and each command's repetitions carry one request_id."""
    client.ping()
    restarted = threading.Event()
    asked: list[list[str]] = [[] for _ in range(4)]

    def call(number: int) -> int:
        with AgentClient(cfg.CONF, host, url=broker.url, timeout_seconds=LONG) as caller:
            for count in itertools.count(1):
                is_last = restarted.is_set()
                given = new_id()
                asked[number].append(given)
                assert caller.attach({}, request_id=given).operation_id == given
                if is_last:
                    return count
        raise AssertionError

    restart = threading.Thread(target=lambda: (broker.restart(), restarted.set()), daemon=True)
    restart.start()
    in_threads(len(asked), call)
    restart.join(LONG)
    assert set(desk.request_ids) == {given for mine in asked for given in mine}


def test_wait_goes_on_when_the_agent_is_killed_and_started_again(broker: Broker, host: str) -> None:
    """The silence of a killed agent is noticed long before the call's own end."""
    operation_id = new_id()
    command = [sys.executable, "-m", "tests.desk", broker.url, host]
    with (
        AgentClient(cfg.CONF, host, url=broker.url, timeout_seconds=LONG) as client,
        subprocess.Popen(command) as agent,
    ):
        try:
            wait_until(lambda: _reaches(client), "it answers", seconds=ENOUGH)
            answers: list[Any] = []
            waiter = threading.Thread(
                target=lambda: answers.append(client.wait(operation_id, LONG)), daemon=True
            )
            waiter.start()
            waiter.join(MONITOR_SECONDS[1] / 2)
            assert waiter.is_alive()
        finally:
            agent.kill()
        heir = RecordingDesk()
        heir.close(operation_id)
        with serving(broker, host, heir):
            waiter.join(2 * MONITOR_SECONDS[1])
            assert [answer.state for answer in answers] == ["done"]


class Mute:
    """An agent that takes each call, and has neither an answer nor a word for its caller."""

    def __init__(self) -> None:
        self.heard: list[tuple[float, int | None]] = []
        """When, and how long its caller waits for a word."""
        self.over = threading.Event()

    def dispatch(self, incoming: Any) -> None:
        self.heard.append((time.monotonic(), incoming.client_timeout))
        self.over.wait(LONG)


class Late:
    """An agent that finds the first two calls too old, as an older one answers them."""

    def __init__(self) -> None:
        self.over = threading.Event()
        self.calls = 0

    def dispatch(self, incoming: Any) -> dict[str, Any] | None:
        self.calls += 1
        return None if self.calls < 3 else {"host": "late"}


@contextmanager
def dispatching(broker: Broker, host: str, topic: str, dispatcher: Mute | Late) -> Iterator[None]:
    transport = rpc_transport(cfg.CONF, broker.url)
    target = oslo_messaging.Target(exchange=EXCHANGE, topic=topic, server=host)
    server = oslo_messaging.rpc.server.RPCServer(transport, target, dispatcher)
    server.start(override_pool_size=8)
    try:
        yield
    finally:
        dispatcher.over.set()
        server.stop()
        server.wait()
        transport.cleanup()


class TestAnOverloadedAgent:
    """It is not buried under what is asked again: each try waits twice as long."""

    def test_is_asked_ever_more_seldom_what_it_holds(self, broker: Broker, host: str) -> None:
        mute = Mute()
        with (
            dispatching(broker, host, WAIT_TOPIC, mute),
            AgentClient(cfg.CONF, host, url=broker.url, timeout_seconds=7) as client,
        ):
            with suppress(Unreachable):
                client.ping()  # nobody is there for it; then the connection is
            begun = time.monotonic()
            with pytest.raises(Unreachable, match="did not answer wait_operation"):
                client.wait(new_id(), 8)
        assert [monitor_seconds for _, monitor_seconds in mute.heard] == [3, 6]
        again_at, _ = mute.heard[1]
        assert again_at - begun >= 3

    def test_is_asked_twice_what_it_answers_at_once(self, broker: Broker, host: str) -> None:
        mute = Mute()
        with (
            dispatching(broker, host, CONTROL_TOPIC, mute),
            AgentClient(cfg.CONF, host, url=broker.url, timeout_seconds=9) as client,
            pytest.raises(Unreachable, match="did not answer get_operation"),
        ):
            client.get_operation(new_id())  # 1 s for the contact, 3 and 6 for the tries
        assert len(mute.heard) == 3, "one of them is the first contact"

    def test_answers_what_it_took_too_late_when_it_is_asked_again(
        self, broker: Broker, host: str
    ) -> None:
        with (
            dispatching(broker, host, CONTROL_TOPIC, Late()),
            AgentClient(cfg.CONF, host, url=broker.url) as client,
        ):
            assert client.ping() == {"host": "late"}


# what is no call


def enveloped(message: object) -> bytes:
    return json.dumps({"oslo.version": "2.0", "oslo.message": json.dumps(message)}).encode()


def nested(levels: int) -> bytes:
    text = '{"method": "ping", "_context_x": ' + "[" * levels + "]" * levels + "}"
    return json.dumps({"oslo.version": "2.0", "oslo.message": text}).encode()


PING = {"method": "ping", "args": {}, "version": "1.0"}

MALFORMED = (
    b"\xff\xfe{",
    b"",
    b"null",
    b"7",
    b"[1, 2]",
    b'"text"',
    b'{"oslo.version": "2.0", "oslo.message": "{"}',
    b'{"oslo.version": 7, "oslo.message": "{}"}',
    b'{"oslo.version": "9.0", "oslo.message": "{}"}',
    b'{"oslo.version": "2.0", "oslo.message": "{\\"method\\": NaN}"}',
    enveloped([1]),
    enveloped({}),
    enveloped(PING | {"method": None}),
    enveloped(PING | {"method": {"a": 1}}),
    enveloped(PING | {"method": "no_such_method", "_timeout": 4}),
    enveloped(PING | {"method": "\ud800"}),
    enveloped(PING | {"args": [1]}),
    enveloped(PING | {"args": "text"}),
    enveloped(PING | {"args": {"x": "\ud800"}}),
    enveloped(PING | {"version": "one"}),
    enveloped(PING | {"version": 1}),
    enveloped(PING | {"version": [1]}),
    enveloped(PING | {"namespace": {}}),
    enveloped(PING | {"_unique_id": {}}),
    enveloped(PING | {"_msg_id": {}, "_reply_q": {}}),
    enveloped(PING | {"_msg_id": 5, "_reply_q": 5}),
    enveloped(PING | {"_timeout": 10**400}),
    enveloped(PING | {"_timeout": "soon"}),
    enveloped(PING | {"_context_self": 1}),
    enveloped(PING | {"_context_values": [1]}),
    nested(300),
    nested(900),
    nested(100_000),
)


@pytest.mark.parametrize("topic", [COMMANDS_TOPIC, CONTROL_TOPIC, WAIT_TOPIC])
def test_a_thousand_malformed_messages_leave_the_agent_at_work(
    desk: RecordingDesk, host: str, channel: Channel, client: AgentClient, topic: str, rounds: int
) -> None:
    client.ping()
    threads = threading.active_count()
    begun = time.monotonic()
    given = [new_id() for _ in range(10)]
    for number in range(1000 * rounds):
        channel.publish(f"{topic}.{host}", MALFORMED[number % len(MALFORMED)])
        if number % 100 == 0:
            client.attach({}, request_id=given[number // 100 % 10])
    wait_until(lambda: channel.waiting(f"{topic}.{host}") == 0, "they are taken", seconds=ENOUGH)
    assert time.monotonic() - begun < LONG / 2
    assert set(given) <= {asked for asked in desk.request_ids if asked}
    client.attach({})
    client.ping()
    client.wait(new_id(), 0.1)
    wait_until(lambda: threading.active_count() < threads + 100, "no threads pile", seconds=ENOUGH)


@pytest.mark.parametrize("arguments", [[1], "text", 7, None, {"request": 5}])
def test_a_call_with_wrong_arguments_is_answered(
    desk: RecordingDesk, host: str, raw: Any, arguments: object
) -> None:
    """``raw`` cannot send them, other programs can."""
    target = oslo_messaging.Target(exchange=EXCHANGE, topic=COMMANDS_TOPIC, server=host)
    message = {"method": "attach", "version": "1.0", "args": arguments}
    answer = raw.transport._send(target, {}, message, wait_for_reply=True, timeout=LONG)
    assert answer["state"] == "accepted", "the desk judges it"
    assert set(desk.commands[-1][1]) <= {"args", "request"}


def test_an_unknown_method_costs_no_thread(desk: RecordingDesk, host: str, raw: Any) -> None:
    """oslo.messaging would tell its caller for ever that we work at it."""
    call = raw.prepare(server=host, call_monitor_timeout=4).call
    call({}, "attach", request=request())
    before = threading.active_count()
    for _ in range(30):
        with pytest.raises(oslo_messaging.RemoteError):
            call({}, "no_such_method")
    wait_until(lambda: threading.active_count() < before + 30, "threads end", seconds=ENOUGH / 6)


# notifications


class ListedOutbox:
    """ports.Outbox in memory. ``forgetful``: posted fails once, like a journal that was killed."""

    def __init__(self, *, forgetful: bool = False) -> None:
        self._forgetful = forgetful
        self._letters: list[tuple[int, str, dict[str, Any]]] = []
        self._numbers = itertools.count(1)
        self._changed = threading.Condition()

    def write(self, count: int = 1) -> None:
        with self._changed:
            for sequence in itertools.islice(self._numbers, count):
                body = {"event_id": f"event-{sequence}", "sequence": sequence}
                self._letters.append((sequence, "attachment.attach.end", body))
            self._changed.notify_all()

    def letters(self, limit: int) -> Sequence[tuple[int, str, dict[str, Any]]]:
        with self._changed:
            return self._letters[:limit]

    def posted(self, up_to_sequence: int) -> None:
        if self._forgetful:
            self._forgetful = False
            raise Internal("the journal does not write")
        with self._changed:
            self._letters = [letter for letter in self._letters if letter[0] > up_to_sequence]
            self._changed.notify_all()

    def wait(self, timeout_seconds: float) -> None:
        with self._changed:
            self._changed.wait_for(lambda: bool(self._letters), timeout_seconds)

    def wait_empty(self) -> None:
        with self._changed:
            assert self._changed.wait_for(lambda: not self._letters, LONG), "letters stay"


@pytest.fixture
def outbox() -> ListedOutbox:
    return ListedOutbox()


@contextmanager
def publishing(broker: Broker, host: str, outbox: ListedOutbox) -> Iterator[Publisher]:
    publisher = Publisher(cfg.CONF, outbox, host, url=broker.url)
    publisher.start()
    try:
        yield publisher
    finally:
        publisher.stop(LONG)


class Listener:
    """An orchestrator's notification listener, as oslo.messaging has it.

    In one thread: several would change the order. It keeps what ``host`` says: at least once means
    that the broker may bring what an earlier listener has heard but not acknowledged before it
    left."""

    def __init__(self, broker: Broker, host: str) -> None:
        self._publisher_id = f"attachment-agent.{host}"
        self.heard: list[tuple[str, str, dict[str, Any], str]] = []
        self._transport = notification_transport(cfg.CONF, broker.url)
        self._server = oslo_messaging.get_notification_listener(
            self._transport,
            [oslo_messaging.Target(exchange=EXCHANGE, topic=NOTIFICATIONS_TOPIC)],
            [self],
        )
        self._server.start(override_pool_size=1)

    def info(
        self, ctxt: Any, publisher_id: str, event_type: str, payload: Any, metadata: Any
    ) -> None:
        if publisher_id == self._publisher_id:
            self.heard.append((publisher_id, event_type, payload, metadata["message_id"]))

    @property
    def sequences(self) -> list[int]:
        return [payload["sequence"] for _, _, payload, _ in self.heard]

    def wait_for(self, sequence: int) -> None:
        wait_until(lambda: sequence in self.sequences, f"notification {sequence}", seconds=ENOUGH)

    def close(self) -> None:
        self._server.stop()
        self._server.wait()
        self._transport.cleanup()


@pytest.fixture
def listener(broker: Broker, host: str) -> Iterator[Listener]:
    listener = Listener(broker, host)
    yield listener
    listener.close()


def test_a_listener_hears_who_what_and_which(
    broker: Broker, host: str, outbox: ListedOutbox, listener: Listener
) -> None:
    outbox.write()
    with publishing(broker, host, outbox):
        listener.wait_for(1)
    assert listener.heard == [
        (
            f"attachment-agent.{host}",
            "attachment.attach.end",
            {"event_id": "event-1", "sequence": 1},
            "event-1",
        )
    ]


def test_notifications_wait_in_the_broker_for_the_first_listener(
    broker: Broker, host: str, outbox: ListedOutbox
) -> None:
    outbox.write(3)
    with publishing(broker, host, outbox):
        outbox.wait_empty()
    broker.restart()
    listener = Listener(broker, host)
    listener.wait_for(3)
    listener.close()
    assert listener.sequences == [1, 2, 3]


def test_the_policy_of_the_docs_keeps_the_newest(
    broker: Broker, host: str, outbox: ListedOutbox
) -> None:
    told = (REPOSITORY / "docs/operate.rst").read_text().replace("\\\n", "")
    [command] = [line for line in told.splitlines() if "rabbitmqctl set_policy" in line]
    words = command.replace("--vhost attachments", "--vhost /").replace("100000", "3")
    broker.control(*shlex.split(words)[1:])
    outbox.write(5)
    with publishing(broker, host, outbox):
        outbox.wait_empty()
    listener = Listener(broker, host)
    listener.wait_for(5)
    listener.close()
    broker.control("clear_policy", "attachment-agent-notifications")
    assert listener.sequences == [3, 4, 5]


def test_who_has_much_to_send_turns(
    broker: Broker, host: str, outbox: ListedOutbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agent.bus.publisher.MISSED_SECONDS", 0.5)
    outbox.write(2000)
    with publishing(broker, host, outbox) as publisher:
        while outbox.letters(1):
            assert publisher.turning()


def test_order_and_at_least_once_over_restarts_of_the_broker(
    broker: Broker, host: str, outbox: ListedOutbox, listener: Listener
) -> None:
    count, restarts = 200, 2
    with publishing(broker, host, outbox) as publisher:
        for _ in range(restarts):
            outbox.write(count)
            broker.kill()
            outbox.write(count)
            assert publisher.turning()
            broker.start()
        outbox.wait_empty()
    listener.wait_for(2 * count * restarts)
    first_heard = list(dict.fromkeys(listener.sequences))
    assert first_heard == list(range(1, 2 * count * restarts + 1))


def test_killed_after_the_broker_confirmed_it_is_sent_again_as_the_same(
    broker: Broker, host: str, listener: Listener
) -> None:
    outbox = ListedOutbox(forgetful=True)
    outbox.write()
    with publishing(broker, host, outbox):
        outbox.wait_empty()
        wait_until(lambda: len(listener.heard) == 2, "it comes twice", seconds=ENOUGH)
    assert {message_id for *_, message_id in listener.heard} == {"event-1"}


def test_a_publisher_starts_without_a_broker_and_stops_without_one(
    broker: Broker, host: str, outbox: ListedOutbox
) -> None:
    broker.stop()
    begun = time.monotonic()
    try:
        with publishing(broker, host, outbox) as publisher:
            outbox.write()
            publisher._thread.join(1.0)
            assert publisher.turning()
        assert time.monotonic() - begun < LONG / 3
        assert len(outbox.letters(10)) == 1
    finally:
        broker.start()


def test_a_stop_sends_what_is_written(
    broker: Broker, host: str, outbox: ListedOutbox, listener: Listener
) -> None:
    with publishing(broker, host, outbox):
        outbox.write(50)
    listener.wait_for(50)
    assert len(outbox.letters(100)) == 0


# the examples of docs/wire.rst


def run_example(name: str, *arguments: str) -> str:
    example = Path(__file__).parents[2] / "docs" / "examples" / name
    ran = subprocess.run(
        [sys.executable, str(example), *arguments], capture_output=True, text=True, timeout=LONG
    )
    assert ran.returncode == 0, ran.stderr
    return ran.stdout


def test_the_python_example_of_the_documentation_runs(
    desk: RecordingDesk, broker: Broker, host: str
) -> None:
    desk.closes_all = True
    said = run_example("attach.py", broker.url, host, INSTANCES[0], "/dev/loop7")
    assert "attached:" in said
    assert "detached: done" in said
    # What got no answer in time is sent again under its id.
    asked = dict(zip(desk.request_ids, desk.commands, strict=True))
    attach, detach = (arguments["request"] for _, arguments, _ in asked.values())
    assert (
        AttachRequest.parse(attach).attachment.attachment_id
        == DetachRequest.parse(detach).attachment_id
    )


def test_the_amqp_example_of_the_documentation_runs(
    desk: RecordingDesk, broker: Broker, host: str
) -> None:
    said = run_example("raw_amqp.py", f"127.0.0.1:{broker.port}", host)
    assert json.loads(said) == {"asked": "ping"}
