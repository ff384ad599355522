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
from agent.model.contract import CHANGING, COMMANDS, QUESTIONS, WIRE_VERSION
from agent.model.outcome import Problem, refused
from agent.model.value import LARGEST, UNWRITABLE
from agent.ports import Desk

LOG = logging.getLogger(__name__)

ADDRESSED = "attachment_agent_addressed"
"""Key in the context, set by servers.Dispatcher whatever the caller wrote there."""

DEEPEST = 32

LONGEST_PLACE = 200
"""Of what a refusal shows of where it is about: a caller chooses the names."""

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
            lambda error: refused(verb, _request_id(arguments), error).wire(),
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
    """What in ``arguments`` neither the journal nor XML could hold, and where; None if nothing.

    Never shows the value: it may be a password."""
    pending: list[tuple[object, tuple[object, ...]]] = [(arguments, ())]
    while pending:
        item, place = pending.pop()
        wrong = _wrong_value(item)
        if len(place) > DEEPEST:
            wrong = f"nested deeper than {DEEPEST} levels"
        if wrong is not None:
            return f"{_written(place)}: {wrong}; nothing was touched"
        if isinstance(item, Mapping):
            if any(_wrong_value(key) for key in item):
                return f"{_written(place)}: the name of a field {_UNWRITABLE}; nothing was touched"
            pending += [(value, (*place, key)) for key, value in item.items()]
        elif isinstance(item, list | tuple):
            pending += [(value, (*place, number)) for number, value in enumerate(item)]
    return None


_UNWRITABLE = "holds a control character or half a surrogate"


def _wrong_value(item: object) -> str | None:
    if isinstance(item, str) and UNWRITABLE.search(item):
        return _UNWRITABLE
    if isinstance(item, int) and abs(item) > LARGEST:
        return "does not fit into 64 bits"
    if isinstance(item, float) and not math.isfinite(item):
        return "is NaN or infinite"
    return None


def _written(place: tuple[object, ...]) -> str:
    """As in every other refusal: without the word request."""
    inside = place[1:] if place[:1] == ("request",) else place
    return ".".join(f"{name}" for name in inside)[:LONGEST_PLACE] or "request"


def _request_id(arguments: Mapping[str, object]) -> str | None:
    request = arguments.get("request")
    given = request.get("request_id") if isinstance(request, Mapping) else None
    return given if isinstance(given, str) else None


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
