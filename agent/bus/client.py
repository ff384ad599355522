"""What an orchestrator imports: one hypervisor's agent, as methods.

    with AgentClient(cfg.CONF, "hypervisor-7", url="rabbit://user:password@broker/vhost") as agent:
        accepted = agent.attach({"attachment_id": …, "connection_info": …, …})
        answer = agent.wait(accepted.operation_id, timeout_seconds=60)
        if answer.state != "done":
            …answer.error.code, answer.error.detail

A command is accepted, not executed, by the call; refusals and failures of it are values. A call
that gets no answer is sent again with the same ``request_id``, which the agent answers with the
operation that it already is.
"""

import logging
import threading
import time
import uuid
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from types import TracebackType
from typing import Any, Self

import oslo_messaging

from agent.bus.cinder import from_cinder
from agent.bus.transport import TROUBLES, rpc_transport
from agent.bus.wire import (
    COMMANDS_TOPIC,
    CONTROL_TOPIC,
    EXCHANGE,
    LONGEST_WAIT_SECONDS,
    VERSION,
    WAIT_TOPIC,
)
from agent.model.attachment import Attachment
from agent.model.outcome import Answer
from agent.model.request import rfc3339

__all__ = ["AgentClient", "Refused", "Unreachable", "from_cinder"]

LOG = logging.getLogger(__name__)

VALID_FOR = timedelta(hours=1)
"""How long the agent may take to begin, where the caller does not say ``not_after``."""

TRIES = 3
"""How often a call is sent, at the least, before its silence is Unreachable."""

SLOW = frozenset({"wait_operation", "describe", "get_connector", "get_instance", "plan", "audit"})
"""What the agent may have to ask libvirt or storage tools for, or holds on purpose."""

WAIT_SLICE_SECONDS = 10.0
"""Of one wait_operation: a restart of agent or broker costs no more than this."""
assert WAIT_SLICE_SECONDS <= LONGEST_WAIT_SECONDS

MONITOR_SECONDS = 3
"""An agent that works at a call says so twice in this time; one that was killed does not."""

FIRST_SECONDS = 1.0
"""How long the first contact waits for the agent itself."""
CLOSE_SECONDS = 0.2
RETRY_SECONDS = 0.5

BROKER_TRIES = 1
"""Reconnects within one send; above it the call's own time counts."""


class Refused(Exception):
    """The agent has no answer to a question. ``code`` and ``detail`` as in docs/wire."""

    def __init__(self, code: str, retriable: bool, detail: str) -> None:
        super().__init__(f"{code}: {detail}")
        self.code = code
        self.retriable = retriable
        self.detail = detail


class Unreachable(Exception):
    """No answer came: the broker is away, or no agent of that name listens. Says which."""


class AgentClient:
    """One hypervisor's agent. May be used by several threads.

    ``conf``: ``oslo_config.cfg.CONF``, with the [oslo_messaging_rabbit] options for TLS;
    ``host``: the agent's ``[DEFAULT] host``; ``url`` or else ``[DEFAULT] transport_url``;
    ``timeout_seconds``: after how long a call without an answer is Unreachable.

    Nothing is connected before the first call.  Raises Invalid for a url that cannot be used.
    """

    def __init__(
        self, conf: Any, host: str, *, url: str | None = None, timeout_seconds: float = 10.0
    ) -> None:
        self.host = host
        self._timeout_seconds = timeout_seconds
        self._transport = rpc_transport(conf, url)
        self._rpc = oslo_messaging.get_rpc_client(
            self._transport,
            oslo_messaging.Target(exchange=EXCHANGE, server=host, version=VERSION),
            # Returned at once by the broker where that host never listened.
            transport_options=oslo_messaging.TransportOptions(at_least_once=True),
            retry=BROKER_TRIES,
        )
        self._connecting = threading.Lock()
        self._connector: threading.Thread | None = None
        self._connected = threading.Event()
        self._closed = threading.Event()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Returns soon; an idle connection to the broker may take seconds to end behind it."""
        self._closed.set()
        closer = threading.Thread(target=self._transport.cleanup, daemon=True)
        closer.start()
        closer.join(CLOSE_SECONDS)

    # commands

    def attach(
        self,
        attachment: Attachment | Mapping[str, Any],
        *,
        request_id: str | None = None,
        not_after: datetime | None = None,
        deadline_seconds: int | None = None,
    ) -> Answer:
        """Connect the volume to the host, then plug it into the guest.

        ``attachment`` as in docs/wire, or parsed. ``request_id``: a new one if not given; give
        your own, and the same ``not_after``, to send it again after a crash of yours.
        ``not_after`` (an hour from now): later the agent refuses to begin; ``deadline_seconds``:
        what is not plugged so long after it was accepted is undone.  Raises Unreachable."""
        envelope = _envelope(request_id, not_after, deadline_seconds)
        return self.command("attach", {**envelope, "attachment": _whole(attachment)})

    def detach(
        self,
        attachment_id: str,
        instance_id: str,
        *,
        generation: int | None = None,
        attachment: Attachment | Mapping[str, Any] | None = None,
        request_id: str | None = None,
        not_after: datetime | None = None,
        deadline_seconds: int | None = None,
    ) -> Answer:
        """Unplug the disk from the guest, then take the volume off the host if nobody else there
        uses it.

        ``attachment``: the whole one, where the agent may never have seen it.
        Raises Unreachable."""
        request = {
            **_envelope(request_id, not_after, deadline_seconds),
            "attachment_id": attachment_id,
            "instance_id": instance_id,
        }
        if generation is not None:
            request["generation"] = generation
        if attachment is not None:
            request["attachment"] = _whole(attachment)
        return self.command("detach", request)

    def command(self, verb: str, request: Mapping[str, Any]) -> Answer:
        """Any command, ``request`` as it goes over the wire.  Raises Unreachable, and Refused for
        a verb that the agent does not know."""
        return _operation(self._call(COMMANDS_TOPIC, verb, request=dict(request)))

    def wait(self, operation_id: str, timeout_seconds: float) -> Answer:
        """The operation when it is closed, or as it is after ``timeout_seconds``.

        A restart of agent or broker meanwhile is waited for.  Raises Refused; Unreachable where
        there was no answer at the end."""
        deadline = time.monotonic() + timeout_seconds
        while True:
            left_seconds = max(0.0, deadline - time.monotonic())
            answer = self._call(
                WAIT_TOPIC,
                "wait_operation",
                within_seconds=max(left_seconds, self._timeout_seconds),
                operation_id=operation_id,
                timeout_seconds=min(WAIT_SLICE_SECONDS, left_seconds),
            )
            operation = _operation(answer)
            if operation.closed or time.monotonic() >= deadline:
                return operation

    # questions, and what an operator may do

    def ping(self) -> dict[str, Any]:
        """{host, version}.  This and every question below raises Unreachable."""
        return self._ask("ping")

    def describe(self) -> dict[str, Any]:
        """What the agent can do, and what is missing on its host."""
        return self._ask("describe")

    def get_connector(self) -> dict[str, Any]:
        """This host's initiator properties, as the volume service takes them."""
        connector: dict[str, Any] = self._ask("get_connector")["connector"]
        return connector

    def get_instance(self, instance_id: str) -> dict[str, Any]:
        """{present, state, persistent, job, disks}, asked of libvirt.  Raises Refused."""
        return self._ask("get_instance", instance_id=instance_id)

    def get_operation(self, operation_id: str) -> Answer:
        """Raises Refused (unknown-operation)."""
        return _operation(self._ask("get_operation", operation_id=operation_id))

    def cancel_operation(self, operation_id: str) -> Answer:
        """Wish an operation undone; its answer as it is now.  Raises Refused (too-late)."""
        return _operation(self._ask("cancel_operation", operation_id=operation_id))

    def abandon_operation(self, operation_id: str) -> Answer:
        """Close an operation where it stands; what it leaves on the host is quarantined.

        For operators.  Raises Refused (busy)."""
        return _operation(self._ask("abandon_operation", operation_id=operation_id))

    def list_operations(self, **filters: Any) -> list[dict[str, Any]]:
        """Answers with their ids, oldest first. Filters match equal: state, open, verb,
        operation_id, attachment_id, instance_id, volume_id.  Raises Refused."""
        return self._rows("operations", filters=filters)

    def list_attachments(self, **filters: Any) -> list[dict[str, Any]]:
        """Filters match equal: attachment_id, instance_id, volume_id.  Raises Refused."""
        return self._rows("attachments", filters=filters)

    def plan(self, verb: str, request: Mapping[str, Any]) -> dict[str, Any]:
        """What a request would do, without doing it.  Raises Refused."""
        return self._ask("plan", verb=verb, request=dict(request))

    def audit(self) -> dict[str, Any]:
        """Journal, libvirt and host side by side: {attachments, findings}.  Raises Refused."""
        return self._ask("audit")

    def list_locks(self) -> list[dict[str, Any]]:
        """The locks that are held on the host, and by whom."""
        return self._rows("locks")

    def list_quarantine(self) -> list[dict[str, Any]]:
        """Devices that are neither used nor touched until an operator releases them."""
        return self._rows("quarantine")

    def release_quarantine(self, volume_id: str) -> dict[str, Any]:
        """{volume_id, released}: false if it was not quarantined."""
        return self._ask("release_quarantine", volume_id=volume_id)

    def _rows(self, what: str, **arguments: Any) -> list[dict[str, Any]]:
        return list(self._ask(f"list_{what}", **arguments)[what])

    def _ask(self, name: str, **arguments: Any) -> dict[str, Any]:
        return _no_refusal(self._call(CONTROL_TOPIC, name, **arguments))

    # the bus

    def _call(
        self, topic: str, method: str, *, within_seconds: float | None = None, **arguments: Any
    ) -> dict[str, Any]:
        """What the agent answered.  Raises Unreachable, Refused."""
        deadline = time.monotonic() + (within_seconds or self._timeout_seconds)
        self._connect(deadline)
        context = self._context(topic, method, arguments.get("timeout_seconds", 0.0))
        while True:
            try:
                return dict(context.call({}, method, **arguments))
            except oslo_messaging.MessageUndeliverable:
                raise self._nobody() from None
            except oslo_messaging.RemoteError as error:
                raise self._failed(method, error) from None
            except oslo_messaging.MessagingTimeout:
                LOG.info("%s got no answer from %s", method, self.host)
                trouble = self._silence(topic, method)
            except TROUBLES as error:
                LOG.info("%s did not reach the broker: %s", method, error)
                trouble = self._no_broker(_doubt(topic))
                self._closed.wait(RETRY_SECONDS)
            if time.monotonic() >= deadline:
                raise trouble

    def _context(self, topic: str, method: str, held_seconds: float) -> Any:
        """How long one try waits. Where an answer is due at once, silence means that it is lost;
        what may take longer is heard of meanwhile (oslo.messaging's call monitor)."""
        if method in SLOW:
            return self._rpc.prepare(
                topic=topic,
                timeout=held_seconds + self._timeout_seconds,
                call_monitor_timeout=MONITOR_SECONDS,
            )
        return self._rpc.prepare(topic=topic, timeout=self._timeout_seconds / TRIES)

    def _connect(self, deadline: float) -> None:
        """Wait until the broker was there once.

        oslo.messaging's first call blocks without end while it is not; so it is made by a thread
        of its own, and it alone hangs."""
        if self._connected.is_set():
            return
        with self._connecting:
            if self._connector is None or not self._connector.is_alive():
                self._connector = threading.Thread(
                    target=self._first_call, name=f"connect {self.host}", daemon=True
                )
                self._connector.start()
            connector = self._connector
        connector.join(max(0.0, deadline - time.monotonic()))
        if not self._connected.is_set():
            raise self._no_broker("; nothing was sent")

    def _first_call(self) -> None:
        try:
            self._rpc.prepare(topic=CONTROL_TOPIC, timeout=FIRST_SECONDS).call({}, "ping")
        except (oslo_messaging.MessagingTimeout, oslo_messaging.MessageUndeliverable):
            pass  # the broker took it: all that was asked
        except TROUBLES as error:
            LOG.info("no broker: %s", error)
            return
        self._connected.set()

    def _no_broker(self, state: str) -> Unreachable:
        return Unreachable(
            "the broker does not answer, or refuses us: check that RabbitMQ runs, and transport_url"
            f" (address, user, password, virtual host, TLS){state}"
        )

    def _nobody(self) -> Unreachable:
        return Unreachable(
            f"no agent has ever listened as {self.host} on this broker: check the name (`host` in "
            "the agent's configuration) and the virtual host; nothing was sent"
        )

    def _silence(self, topic: str, method: str) -> Unreachable:
        return Unreachable(
            f"the agent of {self.host} did not answer {method} within {self._timeout_seconds:g} s: "
            f"check that attachment-agent runs there and reaches this broker{_doubt(topic)}"
        )

    def _failed(self, method: str, error: Any) -> Refused:
        LOG.info("%s on %s: %s", method, self.host, error.exc_type)
        if error.exc_type not in ("NoSuchMethod", "UnsupportedVersion"):
            return Refused(
                "internal",
                False,
                f"{method} met a defect of the agent of {self.host}; its log tells more",
            )
        return Refused(
            "unsupported",
            False,
            f"the agent of {self.host} does not know {method} in version {VERSION} of the wire "
            "(describe tells what it knows); nothing was done",
        )


def _envelope(
    request_id: str | None, not_after: datetime | None, deadline_seconds: int | None
) -> dict[str, Any]:
    envelope: dict[str, Any] = {
        "request_id": request_id or str(uuid.uuid4()),
        "not_after": rfc3339(not_after or datetime.now(UTC) + VALID_FOR),
    }
    if deadline_seconds is not None:
        envelope["deadline_seconds"] = deadline_seconds
    return envelope


def _whole(attachment: Attachment | Mapping[str, Any]) -> dict[str, Any]:
    return attachment.reveal() if isinstance(attachment, Attachment) else dict(attachment)


def _doubt(topic: str) -> str:
    """What is not known after a call without an answer."""
    if topic != COMMANDS_TOPIC:
        return ""
    return (
        ". Whether the request was accepted is unknown: get_operation tells, or the same request "
        "sent again"
    )


def _no_refusal(answer: dict[str, Any]) -> dict[str, Any]:
    """Raises Refused where the answer is {"error": …} alone; an operation's has much beside it."""
    if set(answer) == {"error"}:
        raise Refused(**answer["error"])
    return answer


def _operation(answer: dict[str, Any]) -> Answer:
    """A newer agent may tell more than we know."""
    return Answer.model_validate(_no_refusal(answer), extra="ignore")
