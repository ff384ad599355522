"""What is taken and what is refused, before anything is written or touched."""

from dataclasses import replace
from typing import Any

import pytest

from agent.errors import PlugRefused
from tests.unit.saga.stories import (
    LUKS,
    SHARED,
    TWO,
    away,
    device_stays,
    guest_is,
    reset,
)
from tests.world.story import (
    VOLUMES,
    Ask,
    attach,
    attached,
    attachment,
    detach,
    let_pass,
    moment,
    request_id,
)
from tests.world.world import World


def sent(world: World, ask: Ask) -> dict[str, Any]:
    found = ask.send(world)
    world.run()
    return found


def refused(world: World, ask: Ask) -> str:
    """The code; asserts that nothing was written and nothing touched."""
    before = (len(world.records()), len(world.letters()), world.outline())
    answer = sent(world, ask)
    assert answer["state"] == "refused", answer
    assert (len(world.records()), len(world.letters()), world.outline()) == before
    return str(answer["error"]["code"])


def accepted(world: World, ask: Ask) -> None:
    assert sent(world, ask)["state"] == "accepted"


# replay


def test_the_same_request_is_the_same_operation(world: World) -> None:
    accepted(world, attach(1))
    assert sent(world, attach(1))["state"] == "done"
    assert len(world.records()) == 1


def test_a_replay_is_answered_while_it_waits(world: World) -> None:
    away(world)
    accepted(world, attach(1))
    assert sent(world, attach(1))["state"] == "waiting"


def test_a_replay_is_answered_after_not_after_and_when_the_host_is_full(world: World) -> None:
    accepted(world, attach(1, envelope={"not_after": moment(10)}))
    world.clock.seconds += 1000
    assert sent(world, attach(1, envelope={"not_after": moment(10)}))["state"] == "done"


def test_the_same_id_with_another_payload_is_refused(world: World) -> None:
    accepted(world, attach(1))
    assert refused(world, attach(1, access_mode="ro")) == "request-id-reused"


def test_the_same_id_of_another_verb_is_refused(world: World) -> None:
    accepted(world, attach(1))
    assert refused(world, detach(1)) == "request-id-reused"


def test_what_was_refused_may_be_sent_again(world: World) -> None:
    accepted(world, attach(1))
    world.domains.add(TWO)
    assert refused(world, attach(2, 2, instance=2)) == "sharing-conflict"
    accepted(world, detach(3))
    accepted(world, attach(2, 2, instance=2))


def test_after_the_retention_a_replay_is_expired_and_not_done_again(world: World) -> None:
    ask = attach(1, envelope={"not_after": moment(10)})
    accepted(world, ask)
    world.clock.seconds += 31 * 86400
    world.journal.write(
        lambda book: book.prune(world.clock.seconds - 30 * 86400, world.clock.seconds)
    )
    assert refused(world, ask) == "expired"
    assert world.storage.connects == 1


# the envelope


def test_a_request_that_is_over_is_refused(world: World) -> None:
    world.clock.seconds += 11
    assert refused(world, attach(1, envelope={"not_after": moment(10)})) == "expired"


def test_not_after_further_ahead_than_records_are_kept_is_refused(world: World) -> None:
    ask = attach(1, envelope={"not_after": moment(31 * 86400)})
    assert refused(world, ask) == "invalid"
    assert "more than 30 days" in ask.send(world)["error"]["detail"]


def test_when_the_host_is_full_more_is_refused(world: World) -> None:
    restart_with(world, max_open_operations=2)
    away(world)
    accepted(world, attach(1))
    accepted(world, attach(2, 2, volume=2))
    assert refused(world, attach(3, 3, volume=3)) == "queue-full"


@pytest.mark.parametrize(
    ("switch", "request_fields"),
    [
        ({"allow_multiattach": False}, {"multiattach": True}),
        (
            {"allow_bootable_multiattach": False},
            {"multiattach": True, "disk": {"boot_order": 1}},
        ),
    ],
)
def test_what_the_operator_does_not_allow(
    world: World, switch: dict[str, bool], request_fields: dict[str, Any]
) -> None:
    restart_with(world, **switch)
    assert refused(world, attach(1, **request_fields)) == "unsupported"


def test_an_empty_passphrase_is_refused(world: World) -> None:
    """The journal writes one where a passphrase was."""
    assert refused(world, attach(1, encryption={"format": "luks", "passphrase": ""})) == "invalid"


@pytest.mark.parametrize(("first", "second"), [(LUKS, {}), ({}, LUKS)])
def test_who_shares_a_volume_sees_the_same_of_it(
    world: World, first: dict[str, Any], second: dict[str, Any]
) -> None:
    world.domains.add(TWO)
    away(world)
    accepted(world, attach(1, **SHARED, **first))
    assert refused(world, attach(2, 2, instance=2, **SHARED, **second)) == "sharing-conflict"


def restart_with(world: World, **policy: Any) -> None:
    world.die()
    world.policy = replace(world.policy, **policy)
    world.start()


# generations


def test_an_older_generation_is_stale(world: World) -> None:
    accepted(world, attach(1, generation=5))
    assert refused(world, attach(2, generation=4)) == "stale"
    assert refused(world, detach(3, generation=4)) == "stale"
    accepted(world, detach(4, generation=5))


def test_once_given_a_generation_may_not_be_left_out(world: World) -> None:
    accepted(world, attach(1, generation=5))
    assert refused(world, attach(2)) == "stale"
    assert refused(world, detach(3)) == "stale"


def test_what_was_detached_needs_a_newer_generation_to_come_back(world: World) -> None:
    accepted(world, attach(1, generation=5))
    accepted(world, detach(2, generation=5))
    assert refused(world, attach(3, generation=5)) == "stale"
    accepted(world, attach(4, generation=6))


def test_a_detach_that_overtakes_its_attach_fences_it(world: World) -> None:
    accepted(world, detach(1, generation=5, attachment=attachment(generation=5)))
    assert refused(world, attach(2, generation=5)) == "stale"


def test_a_generation_within_the_attachment_of_a_detach_fences(world: World) -> None:
    accepted(world, attach(1, generation=5))
    assert refused(world, detach(2, attachment=attachment(generation=4))) == "stale"
    accepted(world, detach(3, attachment=attachment(generation=6)))
    assert refused(world, attach(4, generation=6)) == "stale"


def test_a_detach_with_two_generations_is_invalid(world: World) -> None:
    accepted(world, attach(1, generation=5))
    assert refused(world, detach(2, generation=5, attachment=attachment(generation=6))) == "invalid"
    assert world.record(request_id(1)).state == "done"


def test_without_generations_an_attachment_comes_and_goes(world: World) -> None:
    for number in range(1, 5, 2):
        accepted(world, attach(number))
        accepted(world, detach(number + 1))


def test_a_fence_outlives_an_operation_that_is_open_for_longer_than_records(world: World) -> None:
    attached(world, generation=5)
    guest_is("stubborn")(world)
    accepted(world, detach(1, generation=5))
    let_pass(3600)(world)
    world.journal.write(lambda book: book.prune(world.clock.seconds, world.clock.seconds))
    reset(world)
    world.run()
    assert refused(world, attach(2, generation=5)) == "stale"


# conflicts


def test_a_volume_twice_in_one_instance_is_refused(world: World) -> None:
    accepted(world, attach(1, **SHARED))
    assert refused(world, attach(2, 2, **SHARED)) == "sharing-conflict"


@pytest.mark.parametrize(("first", "second"), [(True, False), (False, True), (False, False)])
def test_sharing_needs_both_to_say_so(world: World, first: bool, second: bool) -> None:
    world.domains.add(TWO)
    accepted(world, attach(1, multiattach=first))
    assert refused(world, attach(2, 2, instance=2, multiattach=second)) == "sharing-conflict"


def test_an_attach_that_waits_counts_already(world: World) -> None:
    world.domains.add(TWO)
    away(world)
    accepted(world, attach(1))
    assert refused(world, attach(2, 2, instance=2)) == "sharing-conflict"


def test_an_attach_that_is_undone_counts_no_more(world: World) -> None:
    world.domains.add(TWO)
    world.domains.plug_error = PlugRefused("no")
    accepted(world, attach(1))
    world.domains.plug_error = None
    accepted(world, attach(2, 2, instance=2))
    assert world.record(request_id(2)).state == "done"


def test_an_attachment_keeps_its_volume_and_its_instance(world: World) -> None:
    world.domains.add(TWO)
    away(world)
    accepted(world, attach(1))
    assert refused(world, attach(2, 1, instance=2)) == "invalid"
    assert refused(world, attach(3, 1, volume=2)) == "invalid"
    assert refused(world, detach(4, 1, instance=2)) == "invalid"


def test_a_detach_cannot_name_another_volume_for_what_is_in_place(world: World) -> None:
    accepted(world, attach(1))
    assert refused(world, detach(2, attachment=attachment(volume=2))) == "invalid"


def test_while_a_detach_is_parked_its_attachment_and_volume_are_busy(world: World) -> None:
    attached(world)
    guest_is("stubborn")(world)
    accepted(world, detach(1))
    assert refused(world, detach(2)) == "busy"
    assert refused(world, attach(3)) == "busy"
    assert refused(world, attach(4, 2)) == "busy"
    accepted(world, attach(5, 5, volume=2))


def test_an_unsettled_operation_blocks_its_volume_and_nothing_else(world: World) -> None:
    world.domains.add(TWO)
    attached(world, **SHARED)
    device_stays(world)
    accepted(world, detach(1))
    assert world.record(request_id(1)).state == "unsettled"
    assert refused(world, attach(2, 2, instance=2, **SHARED)) == "busy"
    accepted(world, attach(3, 3, instance=2, volume=2))


def test_a_quarantined_volume_is_refused_until_it_is_released(world: World) -> None:
    wrong = {"identity": {"wwn": "600140500000000000000000000000ff"}}
    accepted(world, attach(1, **wrong))
    assert refused(world, attach(2)) == "wrong-device"
    world.agent.query("release_quarantine", {"volume_id": VOLUMES[0]})
    accepted(world, attach(2))
    assert world.record(request_id(2)).state == "done"


def test_what_was_never_seen_must_be_sent_whole(world: World) -> None:
    assert refused(world, detach(1)) == "unknown-attachment"
    accepted(world, detach(1, attachment=attachment()))


def test_what_this_host_cannot_connect_is_refused_before_anything_is_kept(world: World) -> None:
    attached(world)
    world.storage.lacks = "iscsiadm"
    assert refused(world, attach(1, 2, volume=2)) == "unsupported"
    assert refused(world, detach(2, 2, attachment=attachment(2, volume=2))) == "unsupported"
    accepted(world, detach(3, attachment=attachment()))
    assert world.record(request_id(3)).state == "done", "what is here leaves by all means"
    accepted(world, detach(4, attachment=attachment()))


def test_what_is_about_to_be_connected_leaves_by_all_means(world: World) -> None:
    assert attach(1).send(world)["state"] == "accepted"
    world.storage.lacks = "iscsiadm"
    assert detach(2, attachment=attachment()).send(world)["state"] == "accepted"


def test_what_is_merely_not_allowed_may_be_detached_all_the_same(world: World) -> None:
    """As a device that the operator has taken out of [local] allowed_paths."""
    world.storage.forbids = "not below an allowed path"
    assert refused(world, attach(1)) == "invalid"
    accepted(world, detach(2, attachment=attachment()))


def test_what_was_detached_here_need_not(world: World) -> None:
    accepted(world, attach(1))
    accepted(world, detach(2))
    accepted(world, detach(3))
    assert world.record(request_id(3)).result == {
        "disconnected": True,
        "awaiting_unmap": False,
        "instance_present": True,
    }


def test_a_detach_of_an_attach_that_waits_is_busy(world: World) -> None:
    away(world)
    accepted(world, attach(1))
    assert refused(world, detach(2)) == "busy", "the attach is parked"


def test_a_detach_behind_an_attach_that_has_not_begun_is_taken(world: World) -> None:
    assert attach(1).send(world)["state"] == "accepted"
    assert detach(2).send(world)["state"] == "accepted"
    world.run()
    assert [record.state for record in world.records()] == ["done", "done"]
    assert world.storage.devices == {}


@pytest.mark.parametrize("password", [None, ""])
def test_who_logs_in_by_chap_has_a_password(world: World, password: str | None) -> None:
    """os-brick would change half of the node record, and then miss it. To leave it needs none."""
    whole = attachment(1)
    given = {"auth_method": "CHAP", "auth_username": "us", "auth_password": password}
    data = {
        name: v for name, v in (whole["connection_info"]["data"] | given).items() if v is not None
    }
    info = {**whole["connection_info"], "data": data}
    error = sent(world, attach(1, connection_info=info))["error"]
    assert (error["code"], "auth_method CHAP needs" in error["detail"]) == ("invalid", True)
    accepted(world, detach(2, attachment={**whole, "connection_info": info}))
