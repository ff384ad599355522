"""set_iotune, from the request to the answer."""

from typing import Any

import pytest

from agent.model.disk import IoTune
from tests.unit.operations.asking import ask, refused
from tests.unit.saga.stories import ONE
from tests.unit.saga.stories_of_changes import SLOW, SLOWER, shown
from tests.world.story import Ask, attach, attached, cancel, detach, request_id, set_iotune
from tests.world.world import World


class TestRequest:
    @pytest.mark.parametrize(
        ("iotune", "wrong"),
        [
            ({"total_iops_sec": 1, "read_iops_sec": 1}, "total_iops_sec"),
            ({"total_iops_sec_max": 1}, "total_iops_sec_max needs total_iops_sec"),
            ({"iops": 1}, "iops"),
            ({"total_iops_sec": -1}, "total_iops_sec"),
            (None, "iotune"),
        ],
    )
    def test_what_an_attach_would_not_take_is_not_taken(
        self, world: World, iotune: Any, wrong: str
    ) -> None:
        attached(world)
        request = {**set_iotune(1, {}).request, "iotune": iotune}
        code, detail = refused(world, Ask("set_iotune", request))
        assert (code, wrong in detail) == ("invalid", True)

    def test_nothing_else_of_a_disk_changes_under_its_guest(self, world: World) -> None:
        attached(world)
        code, detail = refused(world, set_iotune(1, SLOW, access_mode="ro"))
        assert (code, "access_mode" in detail) == ("invalid", True)

    def test_an_older_generation_is_stale_and_a_newer_one_fences(self, world: World) -> None:
        ask(world, attach(1, generation=4))
        assert refused(world, set_iotune(2, SLOW, generation=3))[0] == "stale"
        assert refused(world, set_iotune(2, SLOW))[0] == "stale"
        assert ask(world, set_iotune(3, SLOW, generation=5))["state"] == "done"
        assert refused(world, detach(4, generation=4))[0] == "stale"

    def test_what_has_ended_here(self, world: World) -> None:
        attached(world)
        ask(world, detach(1))
        assert refused(world, set_iotune(2, SLOW))[0] == "unknown-attachment"


class TestAnswer:
    def test_every_name_is_there_with_what_is_in_force(self, world: World) -> None:
        attached(world)
        answer = ask(world, set_iotune(1, SLOW))
        assert answer["state"] == "done"
        assert set(answer["result"]) == set(IoTune.model_fields)
        given = {name: value for name, value in answer["result"].items() if value}
        assert given == {**SLOW, "group_name": "ua-att-1"}
        assert [step["name"] for step in answer["steps"]] == ["limit-disk", "limit-other-half"]

    def test_it_is_about_one_attachment_and_its_instance(self, world: World) -> None:
        attached(world)
        ask(world, set_iotune(1, SLOW))
        (letter, *_) = [
            one for one in world.letters() if one["event_type"] == "attachment.set_iotune.end"
        ]
        assert (letter["attachment_ids"], letter["instance_id"]) == (["att-1"], ONE)

    def test_a_plan_of_it_changes_nothing(self, world: World) -> None:
        attached(world)
        request = dict(set_iotune(1, SLOW).request)
        found = world.agent.query("plan", {"verb": "set_iotune", "request": request})
        assert (found["refusal"], found["commit"]) == (None, "limit-disk")
        assert shown(world, "live") == {}


def test_a_disk_that_goes_before_anybody_has_looked_has_no_limits(world: World) -> None:
    """Its guest was transient; the answer is done all the same, and a detach has its turn."""
    world.domains.undefine(ONE)
    world.domains.add(ONE, is_persistent=False)
    attached(world)

    def goes_away(world: World) -> None:
        world.domains.is_away = True

    world.meanwhile["before limits"] = goes_away
    ask(world, set_iotune(1, SLOW))
    cancel(1)(world)
    world.run()
    world.domains.is_away = False
    world.meanwhile["after limits"] = goes_away
    world.agent.workers.stir_all()
    world.run()
    world.domains.is_away = False
    world.domains.destroy(ONE)
    world.agent.workers.stir_all()
    world.run()
    answer = world.record(request_id(1)).answer()
    assert (answer.state, answer.result) == ("done", {})
    assert "gone since" in answer.warnings[0]


def test_a_disk_leaves_the_group_that_it_was_in(world: World) -> None:
    attached(world, disk={"iotune": {**SLOW, "group_name": "of-several"}})
    ask(world, set_iotune(1, SLOWER))
    assert shown(world, "live") == {**SLOWER, "group_name": "ua-att-1"}


def test_a_disk_that_is_plugged_anew_has_them(world: World) -> None:
    attached(world)
    ask(world, set_iotune(1, SLOW))
    row = world.journal.read(lambda book: book.attachment("att-1"))
    assert row is not None
    again = row.attachment.reveal()
    ask(world, detach(2))
    answer = ask(world, Ask("attach", {**attach(3).request, "attachment": again}))
    assert answer["state"] == "done"
    assert shown(world, "live") == SLOW
