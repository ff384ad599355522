"""Stay with an operation until it is closed, or for a time; say what goes on."""

import time
from datetime import timedelta

from agent.bus.client import AgentClient, Unreachable
from agent.cli.screen import Screen
from agent.model.outcome import Answer, Progress, StepState

LOOK_SECONDS = 1.0
"""How often the operation's state is shown. The agent answers at once when it is closed."""

BAR_WIDTH = 20

SILENT = "no answer from the agent at present; the operation goes on without attachctl"


def follow(client: AgentClient, answer: Answer, seconds: float, screen: Screen) -> Answer:
    """The answer as it is when closed, or after ``seconds``: asked for once at least, unless 0.

    An agent or broker that restarts meanwhile is waited for. Interrupting it leaves the operation
    alone.  Raises Refused; Unreachable where there was no answer at the end."""
    deadline = time.monotonic() + seconds
    silence: Unreachable | None = None
    is_over = seconds <= 0
    with screen.progress() as tell:
        while not answer.closed:
            tell(*((phase(answer), _moving(answer)) if silence is None else (SILENT, "")))
            if is_over or answer.operation_id is None:
                break
            left_seconds = max(0.0, deadline - time.monotonic())
            try:
                answer = client.wait(answer.operation_id, min(LOOK_SECONDS, left_seconds))
                silence = None
            except Unreachable as error:
                silence = error
            is_over = time.monotonic() >= deadline
    if silence is not None:
        raise silence
    return answer


def phase(answer: Answer) -> str:
    """One line: what an operation does now, or how it ended."""
    line = f"{answer.verb} {answer.state}"
    if answer.state == "waiting" and answer.waiting_for:
        line += f" for {answer.waiting_for}"
    elif answer.state == "running" and (step := _current(answer)):
        line += f": {step.name} ({answer.steps.index(step) + 1} of {len(answer.steps)})"
    elif answer.state == "unsettled" and answer.waiting_for:
        line += f", waiting for {answer.waiting_for}"
    if answer.error is not None:
        line += f" ({answer.error.code}: {answer.error.detail})"
    return line


def bar(progress: Progress) -> str:
    """How far it is, how fast it goes, how long it will take."""
    full = BAR_WIDTH * min(progress.percent, 100) // 100
    line = f"[{'#' * full}{'.' * (BAR_WIDTH - full)}] {progress.percent} %"
    line += f", {_amount(progress.done, progress)} of {_amount(progress.total, progress)}"
    if progress.rate is not None:
        line += f", {_amount(progress.rate, progress)}/s"
    if progress.eta_seconds is not None:
        line += f", {timedelta(seconds=round(progress.eta_seconds))} left"
    return line


def _moving(answer: Answer) -> str:
    return "" if answer.progress is None else bar(answer.progress)


def _amount(number: float, progress: Progress) -> str:
    if progress.unit != "bytes":
        return f"{number:.0f} {progress.unit}"
    for size, unit in ((1 << 40, "TiB"), (1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")):
        if number >= size:
            return f"{number / size:.1f} {unit}"
    return f"{number:.0f} bytes"


def _current(answer: Answer) -> StepState | None:
    """The step under way: the last one that is neither done nor still to come."""
    begun = [step for step in answer.steps if step.state == "intended"]
    return begun[-1] if begun else None
