"""What the bus calls: each method hands its arguments to the desk and returns the desk's value.

Arguments may be any JSON. What could not be written down, or put into XML, is refused here, so
that nothing behind meets it. Nothing raises: the guard at each endpoint's edge turns what nobody
foresaw into the answer ``internal``.
"""

import logging
import math
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import oslo_messaging

from agent.errors import AgentError, Internal, Invalid, WrongHost
from agent.model.contract import COMMANDS, QUESTIONS, WIRE_VERSION
from agent.model.outcome import Problem, refused
from agent.model.value import LARGEST, UNWRITABLE
from agent.ports import Desk

LOG = logging.getLogger(__name__)

ADDRESSED = "attachment_agent_addressed"
"""Key in the context, set by servers.Dispatcher whatever the caller wrote there."""

CHANGING = frozenset(
    {"cancel_operation", "abandon_operation", "release_quarantine", "import_attachments"}
)
"""What changes something must have been meant for this host."""

DEEPEST = 32

Answer = dict[str, Any]


class Commands:
    """One method for each of COMMANDS, on the topic ``attachment-agent``."""

    target = oslo_messaging.Target(version=WIRE_VERSION)

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        for verb in COMMANDS:
            setattr(self, verb, oslo_messaging.expose(partial(self._command, verb)))

    def _command(self, verb: str, ctxt: Mapping[str, Any], /, **arguments: object) -> Answer:
        wrong = flaw(arguments)
        if wrong is not None:
            return refused(verb, None, Invalid(wrong)).wire()
        return _guarded(
            verb,
            lambda: self._desk.command(verb, arguments, addressed=is_addressed(ctxt)),
            lambda error: refused(verb, None, error).wire(),
        )


class Control:
    """One method for each of QUESTIONS, on the topic ``attachment-agent-control``."""

    target = oslo_messaging.Target(version=WIRE_VERSION)

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        for name in QUESTIONS:
            setattr(self, name, oslo_messaging.expose(partial(self._query, name)))

    def _query(self, name: str, ctxt: Mapping[str, Any], /, **arguments: object) -> Answer:
        if name in CHANGING and not is_addressed(ctxt):
            return _error(
                WrongHost(
                    f"{name} came without an address: send it to the server that is meant; "
                    "nothing was done"
                )
            )
        wrong = flaw(arguments)
        if wrong is not None:
            return _error(Invalid(wrong))
        return _guarded(name, lambda: self._desk.query(name, arguments), _error)


class Wait:
    """``wait_operation``, on a topic of its own: each caller holds a thread."""

    target = oslo_messaging.Target(version=WIRE_VERSION)

    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    @oslo_messaging.expose  # type: ignore[untyped-decorator, unused-ignore]
    def wait_operation(self, ctxt: Mapping[str, Any], /, **arguments: object) -> Answer:
        wrong = flaw(arguments)
        if wrong is not None:
            return _error(Invalid(wrong))
        return _guarded("wait_operation", lambda: self._desk.wait(arguments), _error)


def is_addressed(ctxt: Mapping[str, Any]) -> bool:
    return ctxt.get(ADDRESSED) is True


def flaw(arguments: object) -> str | None:
    """What in ``arguments`` neither the journal nor XML could hold; None if nothing.

    Never shows the value: it may be a password."""
    pending = [(arguments, 0)]
    while pending:
        item, depth = pending.pop()
        if depth > DEEPEST:
            return f"nested deeper than {DEEPEST} levels; nothing was touched"
        if isinstance(item, str) and UNWRITABLE.search(item):
            return "a string holds a control character or half a surrogate; nothing was touched"
        if isinstance(item, int) and abs(item) > LARGEST:
            return "a number does not fit into 64 bits; nothing was touched"
        if isinstance(item, float) and not math.isfinite(item):
            return "a number is NaN or infinite; nothing was touched"
        if isinstance(item, Mapping):
            pending += [(key, depth) for key in item]
            pending += [(value, depth + 1) for value in item.values()]
        elif isinstance(item, list | tuple):
            pending += [(value, depth + 1) for value in item]
    return None


def _error(error: AgentError) -> Answer:
    return {"error": Problem.of(error).model_dump()}


def _guarded(
    name: str, answer: Callable[[], Answer], defect: Callable[[AgentError], Answer]
) -> Answer:
    """The outer guard of every endpoint. A port's Desk never raises; a defect of ours might.

    Without it oslo.messaging would send class name, message and traceback to the caller."""
    try:
        return answer()
    except Exception:  # the bus's edge: a defect is logged here and answered as a value
        LOG.exception("%s met a defect", name)
        return defect(
            Internal(
                f"{name} met a defect of the agent; its log has the traceback. Whether a command "
                "was accepted is unknown: get_operation tells, or the same request sent again"
            )
        )
