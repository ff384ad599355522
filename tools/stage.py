"""How a demonstration tells what it does, and what it asks of the agent again and again."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from rich.console import Console
from rich.status import Status

from agent.bus.client import AgentClient
from agent.model.outcome import Answer
from tests.lab.guest import Guest
from tests.lab.loop_volume import LoopVolume

Result = TypeVar("Result")

OPERATION_SECONDS = 60.0

console = Console(highlight=False)


class Unexpected(Exception):
    """The demonstration did not go as it should; the message says where."""


def wish(guest: Guest, volume: LoopVolume, **different: Any) -> dict[str, Any]:
    return {
        "attachment_id": attachment_id(guest),
        "instance_id": guest.uuid,
        "volume_id": volume.volume_id,
        "connection_info": volume.connection_info(),
        "size_bytes": volume.size_bytes,
        **different,
    }


def attachment_id(guest: Guest) -> str:
    return f"demo-{guest.name}"


def finish(client: AgentClient, accepted: Answer) -> Answer:
    """The operation's end; refusals and failures are for the caller to judge."""
    if accepted.closed or accepted.operation_id is None:
        return accepted
    answer = client.wait(accepted.operation_id, OPERATION_SECONDS)
    expect(answer.closed, f"{answer.verb} is {answer.state}, waiting for {answer.waiting_for}")
    return answer


def expect(condition: bool, otherwise: str) -> None:
    if not condition:
        raise Unexpected(otherwise)


def title(text: str) -> None:
    console.print(f"\n[bold]{text}[/]")


def say(text: str) -> None:
    console.print(f"  {text}", soft_wrap=True)


@contextmanager
def spinning(text: str) -> Iterator[Status]:
    with console.status(f"  waiting until {text} …") as status:
        yield status


def timed(text: str, act: Callable[[], Result]) -> Result:
    begun = time.monotonic()
    with spinning(text):
        result = act()
    say(f"{text} ({time.monotonic() - begun:.1f} s)")
    return result


def milliseconds(begun: float) -> str:
    return f"{(time.monotonic() - begun) * 1000:.0f} ms"
