"""What reaches an operation on its way to the workers, and what they say of it."""

from agent.service.workers import on_whose_behalf
from tests.world.story import attach, cancel, request_id
from tests.world.world import World


def test_a_cancel_between_the_commit_of_its_request_and_its_first_step_counts(
    world: World,
) -> None:
    world.meanwhile["after write"] = cancel(1)
    attach(1)(world)
    world.run()
    assert world.record(request_id(1)).state == "cancelled"


def test_whoever_waits_for_a_lock_is_told_by_its_operation(world: World) -> None:
    seen = []
    world.meanwhile["before connect"] = lambda _: seen.append(on_whose_behalf())
    attach(1)(world)
    world.run()
    assert seen == [f"attach {request_id(1)}"]
