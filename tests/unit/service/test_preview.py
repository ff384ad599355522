"""plan: what a request would do, or why it would not be done."""

from typing import Any

import pytest

from tests.world.story import INSTANCES, attach, attached, attachment, detach
from tests.world.world import World


def plan(world: World, verb: str, request: Any) -> dict[str, Any]:
    return world.agent.query("plan", {"verb": verb, "request": dict(request)})


def test_it_tells_and_does_nothing(world: World) -> None:
    before = world.fingerprint()
    told = plan(world, "attach", attach(1).request)
    assert told["refusal"] is None
    assert told["commit"] in told["steps"]
    assert "<disk" in told["disk_xml"]
    assert world.fingerprint() == before


@pytest.mark.parametrize("verb", ["attach", "detach"])
def test_what_the_guest_does_not_allow_now_is_told_for_each_verb(world: World, verb: str) -> None:
    if verb == "detach":
        attached(world, 1)
    world.domains.guests[INSTANCES[0]].job = "migration"
    told = plan(world, verb, {"attach": attach(2), "detach": detach(2)}[verb].request)
    assert told["refusal"]["code"] == "busy"


def test_a_detach_of_what_this_host_cannot_reach_is_told(world: World) -> None:
    world.storage.lacks = "iscsiadm"
    told = plan(world, "detach", detach(1, attachment=attachment()).request)
    assert told["refusal"]["code"] == "unsupported"
