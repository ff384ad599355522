"""The agent on brokers as they are run in earnest: TLS with a virtual host and a user of their own,
and quorum queues."""

import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from oslo_config import cfg

from agent.bus.client import AgentClient, Unreachable
from agent.bus.transport import notification_transport, rpc_transport
from agent.bus.wire import COMMANDS_TOPIC, CONTROL_TOPIC, EXCHANGE, NOTIFICATIONS_TOPIC, WAIT_TOPIC
from agent.model.moment import rfc3339
from tests.functional.conftest import BARE
from tests.functional.orchestrator import Orchestrator, wish
from tests.lab.agent_process import AgentProcess
from tests.lab.broker import Broker
from tests.lab.certificates import Authority, Certificate
from tests.lab.guest import Guest
from tests.lab.lab import Lab
from tests.lab.loop_volume import LoopVolume
from tests.lab.patience import wait_until

# After agent.bus: see there.
oslo_messaging: Any = import_module("oslo_messaging")
kombu: Any = import_module("kombu")

pytestmark = pytest.mark.real

LONG = 60.0


@pytest.fixture
def guest(lab: Lab) -> Iterator[Guest]:
    guest = lab.guest(shape=BARE)
    yield guest
    guest.destroy()
    guest.undefine()


@contextmanager
def agent_on(lab: Lab, broker: Broker, rabbit: dict[str, object]) -> Iterator[AgentProcess]:
    agent = lab.agent(
        f"of-its-own-{uuid.uuid4().hex[:8]}",
        options={
            "DEFAULT": {"transport_url": broker.url},
            "oslo_messaging_rabbit": rabbit,
        },
    )
    try:
        yield agent
    finally:
        agent.close()


def with_options(url: str, rabbit: dict[str, object]) -> str:
    """[oslo_messaging_rabbit] of this url alone."""
    return f"{url}?{'&'.join(f'{name}={value}' for name, value in rabbit.items())}"


def attach_and_detach(client: AgentClient, guest: Guest, volume: LoopVolume) -> None:
    orchestrator = Orchestrator(client)
    wanted = wish(guest, volume, disk={"bus": "scsi"})
    assert orchestrator.attached(wanted)["device"]["path"]
    assert orchestrator.detached(wanted)["disconnected"] is True
    orchestrator.assert_idle()


# TLS


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="module")
def tls_broker(authority: Authority, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    directory = tmp_path_factory.mktemp("broker")
    with Broker(directory, certificate=authority.sign("broker")) as broker:
        yield broker


def shown(mine: Certificate) -> dict[str, object]:
    return {
        "ssl": "true",
        "ssl_ca_file": mine.authority,
        "ssl_cert_file": mine.file,
        "ssl_key_file": mine.key,
    }


def test_it_attaches_over_tls_also_after_a_restart_of_the_broker(
    lab: Lab, authority: Authority, tls_broker: Broker, guest: Guest, volume: LoopVolume
) -> None:
    url = with_options(tls_broker.url, shown(authority.sign("orchestrator")))
    with agent_on(lab, tls_broker, shown(authority.sign("agent"))) as agent:
        agent.wait_connected()
        with AgentClient(cfg.CONF, agent.host, url=url, timeout_seconds=LONG) as client:
            attach_and_detach(client, guest, volume)
            tls_broker.restart()
            attach_and_detach(client, guest, volume)


def test_who_is_not_trusted_is_told_to_look_at_tls(
    authority: Authority, tls_broker: Broker, tmp_path: Path
) -> None:
    """Each side proves who it is, or nothing is sent."""
    trusted = shown(authority.sign("caller"))
    stranger = shown(Authority(tmp_path).sign("stranger"))
    for wrong in (
        {"ssl": "true", "ssl_ca_file": trusted["ssl_ca_file"]},
        {**stranger, "ssl_ca_file": trusted["ssl_ca_file"]},
        {**trusted, "ssl_ca_file": stranger["ssl_ca_file"]},
        {"ssl": "false"},
    ):
        url = with_options(tls_broker.url, wrong)
        with (
            AgentClient(cfg.CONF, "nobody", url=url, timeout_seconds=3) as client,
            pytest.raises(Unreachable, match=r"TLS\); nothing was sent") as caught,
        ):
            client.ping()
        assert "not-a-password" not in f"{caught.value}"


def test_an_agent_that_does_not_trust_the_broker_says_that_it_has_none(
    lab: Lab, authority: Authority, tls_broker: Broker, tmp_path: Path
) -> None:
    mine = shown(authority.sign("agent"))
    stranger = Authority(tmp_path)
    with agent_on(lab, tls_broker, {**mine, "ssl_ca_file": stranger.file}) as agent:
        assert "no broker for" in agent.statuses[0]
        wait_until(
            lambda: "CERTIFICATE_VERIFY_FAILED" in agent.log_file.read_text(),
            "its log says why",
            seconds=LONG,
        )
        assert "not-a-password" not in agent.last_words()


# quorum queues

QUORUM: dict[str, object] = {"rabbit_quorum_queue": "true"}


@pytest.fixture(scope="module")
def quorum_broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    with Broker(tmp_path_factory.mktemp("broker")) as broker:
        yield broker


class Listener:
    """An orchestrator's, which must name the kind of the queue that it shares with the agents."""

    def __init__(self, url: str) -> None:
        self.heard: list[tuple[str, str]] = []
        self._transport = notification_transport(cfg.CONF, with_options(url, QUORUM))
        target = oslo_messaging.Target(exchange=EXCHANGE, topic=NOTIFICATIONS_TOPIC)
        self._server = oslo_messaging.get_notification_listener(self._transport, [target], [self])
        self._server.start()

    def info(
        self, ctxt: Any, publisher_id: str, event_type: str, payload: Any, metadata: Any
    ) -> None:
        self.heard.append((payload["operation_id"], event_type))

    def close(self) -> None:
        self._server.stop()
        self._server.wait()
        self._transport.cleanup()


def assert_quorum(broker: Broker, queue: str) -> None:
    """RabbitMQ refuses whoever declares it as another kind."""
    with kombu.Connection(broker.url.replace("rabbit:", "amqp:")) as connection:
        arguments = {"x-queue-type": "quorum"}
        connection.channel().queue_declare(
            queue, durable=True, auto_delete=False, arguments=arguments
        )


def test_quorum_queues_keep_a_command_for_an_agent_that_is_away(
    lab: Lab, quorum_broker: Broker, guest: Guest, volume: LoopVolume
) -> None:
    """The client need not know of them."""
    url = quorum_broker.url
    with (
        agent_on(lab, quorum_broker, QUORUM) as agent,
        AgentClient(cfg.CONF, agent.host, url=url, timeout_seconds=LONG) as client,
    ):
        agent.wait_connected()
        attach_and_detach(client, guest, volume)
        for queue in (
            *(f"{topic}.{agent.host}" for topic in (COMMANDS_TOPIC, CONTROL_TOPIC, WAIT_TOPIC)),
            f"{NOTIFICATIONS_TOPIC}.info",
        ):
            assert_quorum(quorum_broker, queue)

        agent.stop()
        wanted = wish(guest, volume, disk={"bus": "scsi"})
        operation_id = cast_attach(url, agent.host, wanted)
        quorum_broker.restart()
        listener = Listener(url)
        agent.start()
        agent.wait_connected()
        end = (operation_id, "attachment.attach.end")
        wait_until(lambda: end in listener.heard, "it is attached", seconds=LONG)
        Orchestrator(client).detached(wanted)
        listener.close()


def cast_attach(url: str, host: str, wanted: dict[str, Any]) -> str:
    """Its id; it lies in the queue as long as nobody takes it."""
    request = {
        "request_id": str(uuid.uuid4()),
        "not_after": rfc3339(datetime.now(UTC) + timedelta(minutes=10)),
        "attachment": wanted,
    }
    transport = rpc_transport(cfg.CONF, url)
    target = oslo_messaging.Target(exchange=EXCHANGE, topic=COMMANDS_TOPIC, server=host)
    oslo_messaging.get_rpc_client(transport, target).cast({}, "attach", request=request)
    transport.cleanup()
    return str(request["request_id"])
