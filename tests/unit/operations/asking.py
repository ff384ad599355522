"""A command as its tests ask it: taken and run, or refused without a trace."""

from typing import Any

from tests.world.story import Ask
from tests.world.world import World


def refused(world: World, ask: Ask) -> tuple[str, str]:
    """Code and detail; asserts that nothing was written."""
    before = len(world.records())
    answer = ask.send(world)
    assert answer["state"] == "refused", answer
    assert len(world.records()) == before
    return answer["error"]["code"], answer["error"]["detail"]


def ask(world: World, request: Ask) -> dict[str, Any]:
    """How it stands when nothing more can happen by itself; asserts that it was accepted."""
    answer = request.send(world)
    assert answer["state"] == "accepted", answer
    world.run()
    return world.record(str(request.request["request_id"])).answer().wire()
