"""What the dispatcher lets through to the endpoints, and with which mark."""

from importlib import import_module
from typing import Any

import pytest

from agent.bus.endpoints import Commands
from agent.bus.servers import Dispatcher
from agent.bus.wire import COMMANDS_TOPIC
from tests.desk import RecordingDesk, new_id

oslo_messaging: Any = import_module("oslo_messaging")  # after agent.bus: see there


class Delivered:
    """kombu's message, as far as it tells where it came from."""

    def __init__(self, exchange: str, key: str) -> None:
        self.delivery_info = {"exchange": exchange, "routing_key": key}


class Message(dict[str, Any]):
    """oslo.messaging's, around kombu's."""

    def __init__(self, delivered: Delivered, **fields: Any) -> None:
        super().__init__(fields)
        self._raw_message = delivered


class Age:
    def __init__(self, seconds: float) -> None:
        self._seconds = seconds

    def elapsed(self) -> float:
        return self._seconds


class Incoming:
    """oslo.messaging's incoming message: what the dispatcher is handed."""

    def __init__(
        self,
        *,
        exchange: str = "attachment_agent",
        key: str = "attachment-agent.here",
        age_seconds: float = 0.0,
        client_timeout: object = None,
        ctxt: dict[str, Any] | None = None,
        **fields: Any,
    ) -> None:
        request = {"method": "attach", "args": {"request": {"request_id": new_id()}}}
        self.message = Message(Delivered(exchange, key), **(request | fields))
        self.ctxt = ctxt or {}
        self.client_timeout = client_timeout
        self.stopwatch = Age(age_seconds)


@pytest.fixture
def desk() -> RecordingDesk:
    return RecordingDesk()


@pytest.fixture
def dispatcher(desk: RecordingDesk) -> Dispatcher:
    return Dispatcher(Commands(desk), COMMANDS_TOPIC, "here")


@pytest.mark.parametrize(
    ("exchange", "key", "is_addressed"),
    [
        ("attachment_agent", "attachment-agent.here", True),
        ("", "attachment-agent.here", True),  # published to the queue itself
        ("attachment_agent", "attachment-agent", False),
        ("attachment_agent", "attachment-agent.there", False),
        ("attachment-agent_fanout", "attachment-agent", False),
        ("attachment-agent_fanout", "attachment-agent.here", False),
    ],
)
def test_the_queue_addresses_and_the_caller_does_not(
    dispatcher: Dispatcher, desk: RecordingDesk, exchange: str, key: str, is_addressed: bool
) -> None:
    for claim in (True, False):
        lie = {"attachment_agent_addressed": claim}
        dispatcher.dispatch(Incoming(exchange=exchange, key=key, ctxt=lie))
        assert desk.commands[-1][2] is is_addressed


@pytest.mark.parametrize("version", ["1.0", None])
def test_our_version_is_served(
    dispatcher: Dispatcher, desk: RecordingDesk, version: str | None
) -> None:
    given = {} if version is None else {"version": version}
    assert dispatcher.dispatch(Incoming(**given))["state"] == "accepted"


@pytest.mark.parametrize("version", ["1.1", "2.0", "0.9", "1", "1.0.0", "one", "", None, 1.0, []])
def test_another_version_is_not(
    dispatcher: Dispatcher, desk: RecordingDesk, version: object
) -> None:
    with pytest.raises(oslo_messaging.ExpectedException) as caught:
        dispatcher.dispatch(Incoming(version=version))
    kind, _, traceback = caught.value.exc_info
    assert kind is oslo_messaging.UnsupportedVersion
    assert traceback is None
    assert desk.commands == []


@pytest.mark.parametrize("age_seconds", [3.9, 4.1])
def test_who_has_given_up_is_not_served(
    dispatcher: Dispatcher, desk: RecordingDesk, age_seconds: float
) -> None:
    """He asks again: served twice, a crowd of waiters would hold all threads for ever."""
    dispatcher.dispatch(Incoming(age_seconds=age_seconds, client_timeout=4))
    assert len(desk.commands) == (1 if age_seconds < 4 else 0)


@pytest.mark.parametrize("client_timeout", [0, -1, 1, 10**400, "4", [], {}, True, 1e300])
def test_a_nonsensical_patience_is_none(
    dispatcher: Dispatcher, desk: RecordingDesk, client_timeout: object
) -> None:
    incoming = Incoming(age_seconds=1e6, client_timeout=client_timeout)
    assert dispatcher.dispatch(incoming)["state"] == "accepted"
    assert incoming.client_timeout is None
