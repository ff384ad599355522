"""One agent's topics as calls: found, tried again, and their silence explained."""

import logging
import threading
import time
from typing import Any

import oslo_messaging

from agent.bus.transport import TROUBLES, declared_otherwise, rpc_transport
from agent.bus.wire import COMMANDS_TOPIC, CONTROL_TOPIC, EXCHANGE
from agent.model.contract import ASKED_VERSION, CHANGING
from agent.model.outcome import Answer

LOG = logging.getLogger(__name__)

FIRST_TRY = 1 / 3
"""Of a caller's patience: after that a call without an answer is sent once more."""

SLOW = frozenset(
    {
        "wait_operation",
        "describe",
        "get_connector",
        "get_instance",
        "plan",
        "audit",
        "import_attachments",
    }
)
"""What the agent may have to ask libvirt or storage tools for, or holds on purpose."""

LONG = frozenset({"audit", "import_attachments"})
LONG_SECONDS = 300.0
"""Of them, what looks at everything: by how much there is. An agent that works at it says so."""

MONITOR_SECONDS = (3, 20)
"""An agent that works at a call says so twice in this time; one that was killed does not. It is the
first try's part of the caller's patience, but no less and no more than these."""

FIRST_SECONDS = 1.0
"""How long the first contact waits for the agent itself."""
CLOSE_SECONDS = 0.2
RETRY_SECONDS = 0.5

BROKER_TRIES = 1
"""Reconnects within one send; above it the call's own time counts."""


class ClientError(Exception):
    """What a call of the client ends with, other than an answer."""


class Refused(ClientError):
    """The agent has no answer to a question. ``code`` and ``detail`` as in docs/wire."""

    def __init__(self, code: str, retriable: bool, detail: str) -> None:
        super().__init__(f"{code}: {detail}")
        self.code = code
        self.retriable = retriable
        self.detail = detail


class Unreachable(ClientError):
    """No answer came: the broker is away, or no agent of that name listens. Says which.

    ``request``: the command that the agent may have accepted all the same, as it went over the
    wire (secrets included): ``command(verb, request)`` sends the same again, and ``get_operation``
    knows it by its ``request_id``. None: it was not sent, or it was a question."""

    def __init__(self, detail: str, *, in_doubt: bool = False) -> None:
        super().__init__(detail)
        self.in_doubt = in_doubt
        self.request: dict[str, Any] | None = None


class Caller:
    """Calls to the agent of ``host``; a try that gets no answer is followed by another.

    Nothing is connected before the first call.  Raises Invalid for a url that cannot be used.
    """

    def __init__(self, conf: Any, host: str, url: str | None, timeout_seconds: float) -> None:
        self._host = host
        self._timeout_seconds = timeout_seconds
        least, most = MONITOR_SECONDS
        self._first_seconds = timeout_seconds * FIRST_TRY
        self._monitor_seconds = min(max(least, self._first_seconds), most)
        self._transport = rpc_transport(conf, url)
        self._rpc = oslo_messaging.get_rpc_client(
            self._transport,
            oslo_messaging.Target(exchange=EXCHANGE, server=host, version=ASKED_VERSION),
            # Returned at once by the broker where that host never listened.
            transport_options=oslo_messaging.TransportOptions(at_least_once=True),
            retry=BROKER_TRIES,
        )
        self._connecting = threading.Lock()
        self._connector: threading.Thread | None = None
        self._connected = threading.Event()
        self._refusal: Exception | None = None
        self._closed = threading.Event()

    def close(self) -> None:
        """Returns soon; an idle connection to the broker may take seconds to end behind it."""
        self._closed.set()
        closer = threading.Thread(target=self._transport.cleanup, daemon=True)
        closer.start()
        closer.join(CLOSE_SECONDS)

    def call(
        self, topic: str, method: str, *, within_seconds: float | None = None, **arguments: Any
    ) -> dict[str, Any]:
        """What the agent answered.  Raises Unreachable, Refused.

        One whose host has more to do than it can is late, and each call that is sent again is one
        more for it. So that this does not feed itself (thirteen callers of tests/nested did) each
        try waits twice as long as the one before."""
        began = time.monotonic()
        deadline = began + (within_seconds or self._timeout_seconds)
        self._connect(deadline)
        held_seconds = arguments.get("timeout_seconds", 0.0)
        try_seconds = self._monitor_seconds if method in SLOW else self._first_seconds
        trouble: Unreachable | None = None
        while True:
            context = self._context(topic, method, held_seconds, try_seconds)
            try:
                answer = context.call({}, method, **arguments)
                if answer is None:  # it took the call when it was too late for it
                    raise oslo_messaging.MessagingTimeout
                return dict(answer)
            except oslo_messaging.MessageUndeliverable:
                if trouble is None:
                    raise self._nobody() from None
                # It was there, and may have taken an earlier try; its queue comes back with it.
                trouble = self._silence(topic, method, time.monotonic() - began)
                self._closed.wait(RETRY_SECONDS)
            except oslo_messaging.RemoteError as error:
                raise self._failed(method, error) from None
            except oslo_messaging.MessagingTimeout:
                LOG.info("%s got no answer from %s", method, self._host)
                trouble = self._silence(topic, method, time.monotonic() - began)
                try_seconds = min(2 * try_seconds, max(try_seconds, self._timeout_seconds))
            except TROUBLES as error:
                LOG.info("%s did not reach the broker: %s", method, error)
                trouble = _no_broker(error, _doubt(topic, method), in_doubt=True)
                self._closed.wait(RETRY_SECONDS)
            if time.monotonic() >= deadline:
                raise trouble

    def _context(self, topic: str, method: str, held_seconds: float, try_seconds: float) -> Any:
        """How long one try waits. Where an answer is due at once, silence means that it is lost;
        what may take longer is heard of meanwhile (oslo.messaging's call monitor)."""
        if method in SLOW:
            return self._rpc.prepare(
                topic=topic,
                timeout=held_seconds + self._patience_seconds(method),
                call_monitor_timeout=round(try_seconds),
            )
        return self._rpc.prepare(topic=topic, timeout=try_seconds)

    def _patience_seconds(self, method: str) -> float:
        return max(self._timeout_seconds, LONG_SECONDS if method in LONG else 0.0)

    def _connect(self, deadline: float) -> None:
        """Wait until the broker was there once.

        oslo.messaging's first call blocks without end while it is not; so it is made by a thread
        of its own, and it alone hangs."""
        if self._connected.is_set():
            return
        with self._connecting:
            if self._connector is None or not self._connector.is_alive():
                self._connector = threading.Thread(
                    target=self._first_call, name=f"connect {self._host}", daemon=True
                )
                self._connector.start()
            connector = self._connector
        connector.join(max(0.0, deadline - time.monotonic()))
        if not self._connected.is_set():
            raise _no_broker(self._refusal, "; nothing was sent")

    def _first_call(self) -> None:
        try:
            self._rpc.prepare(topic=CONTROL_TOPIC, timeout=FIRST_SECONDS).call({}, "ping")
        except (oslo_messaging.MessagingTimeout, oslo_messaging.MessageUndeliverable):
            pass  # the broker took it: all that was asked
        except TROUBLES as error:
            LOG.info("no broker: %s", error)
            self._refusal = error
            return
        self._connected.set()

    def _nobody(self) -> Unreachable:
        return Unreachable(
            f"no agent has ever listened as {self._host} on this broker: check the name (`host` in "
            "the agent's configuration) and the virtual host; nothing was sent"
        )

    def _silence(self, topic: str, method: str, waited_seconds: float) -> Unreachable:
        return Unreachable(
            f"the agent of {self._host} did not answer {method} within "
            f"{waited_seconds:.0f} s: check that attachment-agent runs there and "
            f"reaches this broker{_doubt(topic, method)}",
            in_doubt=True,
        )

    def _failed(self, method: str, error: Any) -> Refused:
        LOG.info("%s on %s: %s", method, self._host, error.exc_type)
        if error.exc_type not in ("NoSuchMethod", "UnsupportedVersion"):
            return Refused(
                "internal",
                False,
                f"{method} met a defect of the agent of {self._host}; its log tells more",
            )
        return Refused(
            "unsupported",
            False,
            f"the agent of {self._host} does not know {method} in version {ASKED_VERSION} of the "
            "wire (describe tells what it knows); nothing was done",
        )


def _no_broker(error: Exception | None, state: str, *, in_doubt: bool = False) -> Unreachable:
    otherwise = None if error is None else declared_otherwise(error)
    if otherwise is not None:
        return Unreachable(f"the broker refuses us: {otherwise}{state}", in_doubt=in_doubt)
    return Unreachable(
        "the broker does not answer, or refuses us: check that RabbitMQ runs, and transport_url"
        f" (address, user, password, virtual host, TLS){state}",
        in_doubt=in_doubt,
    )


def _doubt(topic: str, method: str) -> str:
    """What is not known after a call without an answer."""
    if topic == COMMANDS_TOPIC:
        return (
            ". Whether the request was accepted is unknown: get_operation tells, or the same "
            "request sent again"
        )
    return f". Whether {method} was done is unknown: ask it again" if method in CHANGING else ""


def no_refusal(answer: dict[str, Any]) -> dict[str, Any]:
    """Raises Refused where the answer is the error; that of an operation has a state beside it.

    A newer agent may tell more in either than we know."""
    error = answer.get("error")
    if error is None or "state" in answer:
        return answer
    raise Refused(error["code"], error["retriable"], error["detail"])


def operation_of(answer: dict[str, Any]) -> Answer:
    """A newer agent may tell more than we know.  Raises Refused."""
    return Answer.model_validate(no_refusal(answer), extra="ignore")
