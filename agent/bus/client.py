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
from types import TracebackType
from typing import Any, Self

from agent.bus.caller import Caller, ClientError, Refused, Unreachable, operation_of
from agent.bus.cinder import from_cinder
from agent.bus.commands import VALID_FOR, CommandCalls
from agent.bus.questions import QuestionCalls
from agent.bus.wire import WAIT_TOPIC
from agent.errors import Invalid
from agent.model.outcome import Answer, Problem
from agent.model.request import LONGEST_WAIT_SECONDS

__all__ = [
    "VALID_FOR",
    "AgentClient",
    "Answer",
    "ClientError",
    "Invalid",
    "Problem",
    "Refused",
    "Unreachable",
    "from_cinder",
]

WAIT_SLICE_SECONDS = 10.0
"""Of one wait_operation: a restart of agent or broker costs no more than this."""
assert WAIT_SLICE_SECONDS <= LONGEST_WAIT_SECONDS


class AgentClient(CommandCalls, QuestionCalls):
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
            operation = operation_of(answer)
            if operation.closed or time.monotonic() >= deadline:
                return operation
