"""What a record becomes with each move of its operation. Pure: the settler makes it durable."""

from agent.errors import AgentError, Unavailable
from agent.journal.record import Record
from agent.saga.plan import Learnt, Parked, Plan, Step

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


def as_planned(record: Record, plan: Plan) -> Record:
    """As far by the plan that this agent makes of it: an older one may have had other steps.

    What may have run is run, or reverted, once more: every step allows that."""
    if (record.steps, record.commit) == (plan.names, plan.commit_position):
        return record
    commit = plan.commit_position

    def place(step: int) -> int:
        """Of what was intended: all before the commit counts as intended where one step was."""
        if step < 0:
            return step
        return commit if step >= record.commit else commit - 1

    intended = place(record.intended)
    is_beyond = record.direction == "committed"
    known = dict(record.known)
    if "undo_from" in known:
        known["undo_from"] = place(known["undo_from"])
    return record.but(
        steps=plan.names,
        subjects=plan.subjects,
        commit=commit,
        position=commit + 1 if is_beyond else max(0, intended),
        intended=commit if is_beyond else intended,
        known=known,
    )


def is_unwanted(record: Record, now: float) -> bool:
    """It has begun nothing, and is not to: cancelled, or too late."""
    ends = (record.not_after, record.deadline_at or record.not_after)
    return record.intended < 0 and (record.cancel_wanted or now > min(ends))


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
    return f"{error.part} ({error.reason})" if isinstance(error, Unavailable) else error.detail


def outcome_of(answer: object) -> str | None:
    """For numbers; None: the step was done."""
    if isinstance(answer, Parked):
        return "parked"
    if isinstance(answer, Unavailable):
        return "unavailable"
    return "failed" if isinstance(answer, AgentError) else None


def while_waiting(record: Record) -> str:
    return f" while waiting for {record.waiting_for}" if record.waiting_for else ""


def delay_seconds(failures: int, at_most: float = RETRY_SECONDS[-1]) -> float:
    return min(RETRY_SECONDS[min(failures, len(RETRY_SECONDS) - 1)], at_most)
