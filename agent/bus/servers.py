"""Three RPC servers, so that neither a flood of commands nor many waiters keep a question waiting.

    topic                      queue of this host                threads
    attachment-agent           attachment-agent.<host>           COMMAND_THREADS
    attachment-agent-control   attachment-agent-control.<host>   CONTROL_THREADS
    attachment-agent-wait      attachment-agent-wait.<host>      WAIT_THREADS: each caller holds one

oslo.messaging acknowledges a message when it is taken, before anybody looked at it. What is taken
is therefore always answered; a stop takes nothing more and leaves the rest in the queues, which
are durable. Only a crash between taking and accepting loses a message, and its caller gets no
answer and sends it again.

oslo.messaging connects when a server starts and does not return before; each server is started
(and stopped) by a thread of its own, so that nobody depends on the broker.
"""

import logging
import re
import threading
import time
from collections.abc import Callable
from functools import partial
from typing import Any

from oslo_messaging import (
    ExpectedException,
    NoSuchMethod,
    Target,
    UnsupportedVersion,
    get_rpc_client,
)
from oslo_messaging.rpc.dispatcher import ExplicitRPCAccessPolicy, RPCDispatcher
from oslo_messaging.rpc.server import RPCServer

from agent.bus.endpoints import ADDRESSED, Commands, Control, Wait
from agent.bus.transport import TROUBLES, declared_otherwise, rpc_transport
from agent.bus.wire import COMMANDS_TOPIC, CONTROL_TOPIC, EXCHANGE, WAIT_TOPIC
from agent.model.contract import WIRE_VERSION
from agent.ports import Desk

LOG = logging.getLogger(__name__)

COMMAND_THREADS = 16
CONTROL_THREADS = 32
WAIT_THREADS = 64

RETRY_SECONDS = 5.0

LONGEST_MONITOR_SECONDS = 3600
"""Of a caller's call_monitor_timeout; what is above is nonsense, and is not served."""


NOT_DURABLE = (
    f"exchange {EXCHANGE} on the broker was made without durability: requests that no agent has "
    "taken are lost when it restarts (docs/wire tells how to mend it)"
)


class Servers:
    """The agent's ears.  Raises Invalid where the configuration names no broker."""

    def __init__(self, conf: Any, desk: Desk, host: str, *, url: str | None = None) -> None:
        self._transport = rpc_transport(conf, url)
        self._lines = [
            _Line(self._transport, topic, host, endpoint, threads)
            for topic, endpoint, threads in (
                (COMMANDS_TOPIC, Commands(desk), COMMAND_THREADS),
                (CONTROL_TOPIC, Control(desk), CONTROL_THREADS),
                (WAIT_TOPIC, Wait(desk), WAIT_THREADS),
            )
        ]

    def start(self) -> None:
        """Returns at once; messages come as soon as the broker is there."""
        for line in self._lines:
            line.start()

    def stop(self, seconds: float) -> None:
        """No further message is taken, and what was taken is answered, within ``seconds``: the desk
        lets those go that wait for an operation.

        With the broker away there is nothing to stop: what hangs in its connection then ends with
        the process."""
        closing = [(line.connected(), line.close()) for line in self._lines]
        deadline = time.monotonic() + seconds
        for was_connected, thread in closing:
            if was_connected:
                thread.join(max(0.0, deadline - time.monotonic()))
        if any(thread.is_alive() for _, thread in closing):
            LOG.info("some callers still wait for their answer; they will ask again")
        else:
            self._transport.cleanup()

    def connected(self) -> bool:
        return all(line.connected() for line in self._lines)

    def describe(self) -> str:
        """For people: connected, or what is missing."""
        deaf = [line for line in self._lines if not line.connected()]
        if deaf:
            why = next((f" ({line.refusal})" for line in deaf if line.refusal), "")
            return f"no broker for {', '.join(line.topic for line in deaf)}{why}"
        return "; ".join(["connected to the broker", *self.warnings()])

    def warnings(self) -> list[str]:
        """For people: what is amiss while it works."""
        if all(line.durable() for line in self._lines if line.connected()):
            return []
        return [NOT_DURABLE]

    def turning(self) -> bool:
        """Our own threads live: says nothing of the broker. For the watchdog."""
        return all(line.turning() for line in self._lines)


class _Line:
    """One topic's server."""

    def __init__(self, transport: Any, topic: str, host: str, endpoint: Any, threads: int) -> None:
        self.topic = topic
        self.refusal: str | None = None
        """What the broker has otherwise than we need it; None: nothing that we know of."""
        self._threads = threads
        self._transport = transport
        self._target = Target(exchange=EXCHANGE, topic=topic, server=host)
        self._dispatcher = Dispatcher(endpoint, topic, host)
        self._closing = threading.Event()
        self._server: Any = None
        self._starter = threading.Thread(target=self._start, name=f"start {topic}", daemon=True)
        self._closer = threading.Thread(target=self._close, name=f"stop {topic}", daemon=True)

    def start(self) -> None:
        self._starter.start()

    def _start(self) -> None:
        while not self._closing.is_set():
            # A new one each time: oslo.messaging starts a server once, even when that failed.
            server = RPCServer(self._transport, self._target, self._dispatcher)
            try:
                server.start(override_pool_size=self._threads)
            except TROUBLES as error:
                self.refusal = declared_otherwise(error)
                why = self.refusal or error
                LOG.error("no requests on %s, the broker refuses us: %s", self.topic, why)
                self._closing.wait(RETRY_SECONDS)
            else:
                self._spare_the_connection(server)
                self._server = server
                LOG.info("requests are taken on %s", self.topic)
                if not self.durable():
                    LOG.error("on %s: %s", self.topic, NOT_DURABLE)
                return

    def _spare_the_connection(self, server: Any) -> None:
        """From a message whose context oslo.messaging fails at, which it has acknowledged before:
        it would close the connection and be deaf for a second, for each of them."""
        for consumer in _listener(server).conn.connection._consumers:
            consumer.callback = partial(self._take, consumer.callback)

    def _take(self, take: Callable[[Any], None], message: Any) -> None:
        try:
            take(message)
        except (TypeError, ValueError, RecursionError) as error:
            LOG.warning("dropped a message on %s that is no call: %s", self.topic, error)

    def connected(self) -> bool:
        if self._server is None or self._closing.is_set():
            return False
        connection = _listener(self._server).conn.connection
        return connection is not None and bool(connection.connection.connected)

    def durable(self) -> bool:
        """oslo.messaging falls back to a queue that is not, where somebody else made the exchange
        otherwise. The queue of the fanout never is."""
        return all(
            consumer.queue.durable
            for consumer in _listener(self._server).conn.connection._consumers
            if consumer.queue is not None and "_fanout" not in consumer.queue_name
        )

    def turning(self) -> bool:
        if self._server is None:
            return self._starter.is_alive()
        return bool(self._server.listener._listen_thread.is_alive())

    def close(self) -> threading.Thread:
        """The thread that does it: an absent broker holds it for ever."""
        if not self._closing.is_set():
            self._closing.set()
            self._closer.start()
        return self._closer

    def _close(self) -> None:
        self._starter.join()
        if self._server is None:
            return
        take = self._server.listener.on_incoming_callback
        self._nudge()
        self._server.stop()
        # The broker goes on sending until it is told, and oslo.messaging would acknowledge and
        # drop what comes. What came before the broker was told is still answered.
        listener = _listener(self._server)
        try:
            listener.conn.reset()
        except TROUBLES as error:
            LOG.info("the broker gives back what came on %s: %s", self.topic, error)
        while batch := listener.poll():
            take(batch)
        self._server.wait()

    def _nudge(self) -> None:
        """An idle server looks up from its queue only every 5 seconds, unless a message comes."""
        try:
            get_rpc_client(self._transport, self._target, retry=0).cast({}, "ping")
        except TROUBLES as error:
            LOG.debug("no message to ourselves on %s: %s", self.topic, error)


def _listener(server: Any) -> Any:
    """oslo.messaging has no public way to its connection."""
    return server.listener._poll_style_listener


class Dispatcher:
    """In front of oslo.messaging's: says whether a message was meant for this host alone, and
    lets nothing through that would make it fail.

    What is no call is ``invalid`` by value. Only an unknown method or version is an exception of
    oslo.messaging, and goes without a traceback."""

    def __init__(self, endpoint: Any, topic: str, host: str) -> None:
        self._inner = RPCDispatcher([endpoint], None, ExplicitRPCAccessPolicy)
        self._policy = ExplicitRPCAccessPolicy()
        self._endpoint = endpoint
        self._own_key = f"{topic}.{host}"
        self._fanout_exchange = f"{topic}_fanout"

    def dispatch(self, incoming: Any) -> Any:
        message = incoming.message
        method, version = message.get("method"), message.get("version", WIRE_VERSION)
        if message.get("namespace") is not None or not _speaks(version):
            raise _refusal(UnsupportedVersion(f"{version}", f"{method}"))
        if not isinstance(method, str) or not self._policy.is_allowed(self._endpoint, method):
            raise _refusal(NoSuchMethod(f"{method}"))
        incoming.client_timeout = _monitor_seconds(incoming.client_timeout)
        if incoming.client_timeout and incoming.stopwatch.elapsed() > incoming.client_timeout:
            LOG.info("%s waited too long for a thread: its caller has given up", method)
            return None
        arguments = message.get("args", {})
        if not isinstance(arguments, dict):
            message["args"] = {"args": arguments}  # no keyword of ours: the desk says so
        incoming.ctxt = {**incoming.ctxt, ADDRESSED: self._is_addressed(message)}
        return self._inner.dispatch(incoming)

    def _is_addressed(self, message: Any) -> bool:
        """The queue tells: what came over the bare topic or the fanout has another key or exchange.

        oslo.messaging keeps kombu's message, but has no public way to it."""
        came = message._raw_message.delivery_info
        return bool(
            came.get("routing_key") == self._own_key
            and came.get("exchange") != self._fanout_exchange
        )


def _speaks(version: object) -> bool:
    """Our major version, and no minor one that is newer than ours."""
    major, newest_minor = WIRE_VERSION.split(".")
    asked = re.fullmatch(rf"{major}\.(\d{{1,4}})", version) if isinstance(version, str) else None
    return asked is not None and int(asked[1]) <= int(newest_minor)


def _monitor_seconds(asked: object) -> int | None:
    """How often the caller wants to hear that we live (call_monitor_timeout)."""
    if isinstance(asked, int | float) and 2 <= asked <= LONGEST_MONITOR_SECONDS:
        return int(asked)
    return None


def _refusal(error: Exception) -> Exception:
    """``error`` for the caller, without a traceback; and none in our log: it is his defect."""
    expected: Any = ExpectedException()
    expected.exc_info = (type(error), error, None)
    return expected  # type: ignore[no-any-return]
