"""How an operation ends: its last state, and what its answer says of what is left."""

import re

from agent.journal.record import Record
from agent.model.outcome import State
from agent.saga.plan import Plan

_DONE: State = "done"
_UNDONE: State = "undone"
_STATES: dict[str, State] = {"cancelled": "cancelled", "expired": "expired"}
"""By the code of the cause; every other cause leaves ``undone``."""

_TELLS_THE_STATE = re.compile(r"nothing (was \w+|stays connected)|stays (here|where it is)")
"""Causes that say themselves what state things are in: a second word would contradict them."""


def closed_of(record: Record, plan: Plan) -> Record:
    """The record as it closes, after its last step was applied or reverted."""
    if record.direction == "committed":
        state, cause, result = _DONE, None, plan.result(record)
    else:
        assert record.cause is not None, "what is undone has a cause"
        is_touched = plan.touched(record.known["undo_from"])
        detail = _with_state(record.cause.detail, is_touched=is_touched)
        cause = record.cause.model_copy(update={"detail": detail})
        state, result = _STATES.get(cause.code, _UNDONE), None
    return record.but_parts(promised=False).but(
        state=state,
        executing=False,
        away=None,
        waiting_for=None,
        wake_at=None,
        progress=None,
        trouble=None,
        cause=cause,
        result=result,
    )


def _with_state(detail: str, *, is_touched: bool) -> str:
    """What happened, and what state things are in: said once."""
    if _TELLS_THE_STATE.search(detail):
        return detail
    return f"{detail}; {'what had been done was undone' if is_touched else 'nothing was touched'}"
