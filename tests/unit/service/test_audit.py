"""What an audit finds: nothing where all is well, whatever happens while it looks."""

from collections.abc import Callable
from typing import Any

import pytest

from tests.unit.saga.stories import ONE, device_stays, leftover, lose_journal, point_elsewhere
from tests.world.story import VOLUMES, attach, attached, detach, request_id
from tests.world.world import World


def findings(world: World) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = world.agent.query("audit", {})["findings"]
    return found


def by_hand_out_of_the_guest(world: World) -> None:
    world.domains.unplug(ONE, "ua-att-1")
    world.domains.let_guests_act()


def by_hand_out_of_the_definition(world: World) -> None:
    world.domains.forget(ONE, "ua-att-1")


@pytest.mark.parametrize(
    ("take", "says"),
    [
        (by_hand_out_of_the_guest, "the running guest does not have the disk, its definition"),
        (by_hand_out_of_the_definition, "the definition does not have the disk, the running"),
    ],
)
def test_a_missing_half_is_found_and_the_advice_helps(
    world: World, take: Callable[[World], None], says: str
) -> None:
    attached(world)
    assert findings(world) == []
    take(world)
    [finding] = findings(world)
    assert finding["kind"] == "half-missing"
    assert finding["detail"].startswith(says)
    assert "attach again" in finding["advice"]
    assert attach(2).send(world)["state"] == "accepted"
    world.run()
    assert findings(world) == []


def test_a_disk_that_is_gone_is_found(world: World) -> None:
    attached(world)
    by_hand_out_of_the_guest(world)
    by_hand_out_of_the_definition(world)
    [finding] = findings(world)
    assert finding["kind"] == "disk-missing"


@pytest.mark.parametrize(
    ("change", "kind", "says"),
    [
        (lambda world: world.storage.lose_power(), "device-missing", "is not on this host"),
        (lose_journal, "unknown-disk", "is in no journal of this agent"),
        (point_elsewhere("live"), "disk-differs", "in the running guest: "),
        (point_elsewhere("inactive"), "disk-differs", "in the definition: "),
    ],
    ids=["device", "journal", "running guest", "definition"],
)
def test_what_does_not_fit_is_found(
    world: World, change: Callable[[World], None], kind: str, says: str
) -> None:
    attached(world)
    change(world)
    [finding] = findings(world)
    assert finding["kind"] == kind
    assert says in finding["detail"]


def test_what_is_unsettled_is_found_with_its_trouble(world: World) -> None:
    attached(world)
    device_stays(world)
    detach(1)(world)
    world.run()
    [finding] = findings(world)
    assert (finding["kind"], finding["attachment_id"]) == ("unsettled", "att-1")
    assert finding["detail"].startswith(f"detach {request_id(1)}: ")


def test_what_is_quarantined_waits_for_a_person(world: World) -> None:
    leftover(world)
    attach(1)(world)
    world.run()
    [finding] = findings(world)
    assert finding["kind"] == "quarantined"
    assert "was at its address before" in finding["detail"]
    assert f"quarantine release {VOLUMES[0]}" in finding["advice"]
    world.agent.query("release_quarantine", {"volume_id": VOLUMES[0]})
    assert findings(world) == []


@pytest.mark.parametrize("is_there_before", [False, True])
def test_what_moves_while_an_audit_looks_is_no_finding(world: World, is_there_before: bool) -> None:
    """libvirt is asked between two looks at the books, which may say the same."""
    if is_there_before:
        attached(world)
    look_at_all = world.domains.all

    def looks_in_between() -> Any:
        world.domains.all = look_at_all  # type: ignore[method-assign]
        if is_there_before:
            detach(8)(world)
            world.run()
        seen = look_at_all()
        attach(9)(world)
        world.run()
        return seen

    world.domains.all = looks_in_between  # type: ignore[method-assign]
    assert findings(world) == []
