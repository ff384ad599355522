"""What a record becomes with each move of its operation. Pure: the settler makes it durable."""

from agent.errors import AgentError, Unavailable
from agent.journal.record import Record
from agent.saga.plan import Learnt, Parked, Step

RETRY_SECONDS = (1.0, 2.0, 5.0, 10.0, 30.0, 60.0)
"""Back-off of steps that must succeed in the end; the last one for ever."""


def executing(record: Record) -> Record:
    """To be written before the world is asked for anything: a restart finds who died in what."""
    return record.but(
        state="unsettled" if record.trouble else "running",
        executing=True,
        away=None,
        waiting_for=None,
        wake_at=None,
    )


def parked_at(record: Record, step: Step | None, parked: Parked) -> Record:
    """``step`` None: before its first one."""
    about = None if step is None else step.about
    return record.learn(about, parked.learnt).but(
        state="waiting",
        executing=False,
        deaths=deaths_beyond(record),
        failures=0,
        away=None,
        trouble=None,
        waiting_for=parked.waiting_for,
        wake_at=parked.wake_at,
        progress=parked.progress,
    )


def what_is_shared(record: Record, other: Record) -> str:
    """The attachment that both work on, in words."""
    if other.operation_id in record.calls_off:
        return "this migration"
    if len(record.parts) == 1:
        return "this attachment"
    return f"attachment {next(one for one in record.attachment_ids if one in other.attachment_ids)}"


def stepped(record: Record, step: Step, learnt: Learnt) -> Record:
    return record.learn(step.about, learnt).but(
        state="running",
        executing=False,
        deaths=deaths_beyond(record),
        failures=0,
        away=None,
        waiting_for=None,
        wake_at=None,
        progress=None,
        trouble=None,
    )


def deaths_beyond(record: Record) -> int:
    """Those of a step count until it has returned, also while earlier ones are looked at anew."""
    is_beyond = record.direction != "forward" or record.position >= record.intended
    return 0 if is_beyond else record.deaths


def what_for(error: AgentError) -> str:
    return f"{error.part} ({error.detail})" if isinstance(error, Unavailable) else error.detail


def while_waiting(record: Record) -> str:
    return f" while waiting for {record.waiting_for}" if record.waiting_for else ""


def delay_seconds(failures: int, at_most: float = RETRY_SECONDS[-1]) -> float:
    return min(RETRY_SECONDS[min(failures, len(RETRY_SECONDS) - 1)], at_most)
