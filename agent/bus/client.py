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

import time
import uuid
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from types import TracebackType
from typing import Any, Self

from agent.bus.caller import Caller, Refused, Unreachable
from agent.bus.cinder import from_cinder
from agent.bus.wire import COMMANDS_TOPIC, CONTROL_TOPIC, WAIT_TOPIC
from agent.model.attachment import Attachment
from agent.model.outcome import Answer
from agent.model.request import LONGEST_WAIT_SECONDS, rfc3339

__all__ = ["AgentClient", "Refused", "Unreachable", "from_cinder"]

VALID_FOR = timedelta(hours=1)
"""How long the agent may take to begin, where the caller does not say ``not_after``."""

WAIT_SLICE_SECONDS = 10.0
"""Of one wait_operation: a restart of agent or broker costs no more than this."""
assert WAIT_SLICE_SECONDS <= LONGEST_WAIT_SECONDS


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
        self._caller = Caller(conf, host, url, timeout_seconds)

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
        self._caller.close()

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
        return _operation(self._caller.call(COMMANDS_TOPIC, verb, request=dict(request)))

    def wait(self, operation_id: str, timeout_seconds: float) -> Answer:
        """The operation when it is closed, or as it is after ``timeout_seconds``.

        A restart of agent or broker meanwhile is waited for.  Raises Refused; Unreachable where
        there was no answer at the end."""
        deadline = time.monotonic() + timeout_seconds
        while True:
            left_seconds = max(0.0, deadline - time.monotonic())
            answer = self._caller.call(
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

    def list_operations(
        self, *, limit: int | None = None, before: str | None = None, **filters: Any
    ) -> list[dict[str, Any]]:
        """Answers with their ids, oldest first: the newest ``limit`` of those accepted before the
        operation ``before``, where given. Filters match equal: state, open, verb, operation_id,
        attachment_id, instance_id, volume_id.  Raises Refused."""
        page = {"limit": limit, "before": before}
        asked = {name: value for name, value in page.items() if value is not None}
        return self._rows("operations", filters=filters, **asked)

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
        return _no_refusal(self._caller.call(CONTROL_TOPIC, name, **arguments))


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


def _no_refusal(answer: dict[str, Any]) -> dict[str, Any]:
    """Raises Refused where the answer is {"error": …} alone; an operation's has much beside it."""
    if set(answer) == {"error"}:
        raise Refused(**answer["error"])
    return answer


def _operation(answer: dict[str, Any]) -> Answer:
    """A newer agent may tell more than we know."""
    return Answer.model_validate(_no_refusal(answer), extra="ignore")
