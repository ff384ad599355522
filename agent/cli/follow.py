"""Stay with an operation until it is closed, or for a time; say what goes on."""

import time

from agent.bus.client import AgentClient
from agent.cli.screen import Screen
from agent.model.outcome import Answer, StepState

LOOK_SECONDS = 1.0
"""How often the operation's state is shown. The agent answers at once when it is closed."""


def follow(client: AgentClient, answer: Answer, seconds: float, screen: Screen) -> Answer:
    """The answer as it is when closed, or after ``seconds``.  Raises Unreachable, Refused.

    Interrupting it leaves the operation alone."""
    deadline = time.monotonic() + seconds
    with screen.progress() as tell:
        while not answer.closed:
            tell(phase(answer))
            left_seconds = deadline - time.monotonic()
            if left_seconds <= 0 or answer.operation_id is None:
                break
            answer = client.wait(answer.operation_id, min(LOOK_SECONDS, left_seconds))
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
    if answer.progress is not None:
        line += f" [{answer.progress.done} of {answer.progress.total} {answer.progress.unit}]"
    if answer.error is not None:
        line += f" ({answer.error.code}: {answer.error.detail})"
    return line


def _current(answer: Answer) -> StepState | None:
    """The step under way: the last one that is neither done nor still to come."""
    begun = [step for step in answer.steps if step.state == "intended"]
    return begun[-1] if begun else None
