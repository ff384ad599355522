"""attach, from the request to the answer."""

import pytest

from tests.unit.saga.stories import ONE, lose_half
from tests.world.story import attach, attached, attachment, request_id
from tests.world.world import World


def test_the_result_names_device_and_disk(world: World) -> None:
    attach(1)(world)
    world.run()
    assert world.record(request_id(1)).result == {
        "device": {
            "path": "/dev/disk/by-id/wwn-0x60014050000000000010001",
            "identity": {"wwn": "60014050000000000010001"},
            "size_bytes": 1 << 30,
        },
        "disk": {
            "target_dev": "vda",
            "alias": "ua-att-1",
            "serial": "aaaaaaaa-0000-4000-8000-000000000001",
            "address": {
                "type": "pci",
                "domain": "0x0000",
                "bus": "0x02",
                "slot": "0x00",
                "function": "0x0",
            },
            "live": True,
            "persistent": True,
        },
    }


@pytest.mark.parametrize(
    ("guest", "halves"),
    [
        ({}, (True, True)),
        ({"is_paused": True}, (True, True)),
        ({"runs": False}, (False, True)),
        ({"is_persistent": False}, (True, False)),
    ],
)
def test_the_result_says_which_halves_have_the_disk(
    world: World, guest: dict[str, bool], halves: tuple[bool, bool]
) -> None:
    world.domains.add(ONE, **guest)  # type: ignore[arg-type]
    attach(1)(world)
    world.run()
    result = world.record(request_id(1)).result
    assert result is not None
    assert (result["disk"]["live"], result["disk"]["persistent"]) == halves


def test_a_forced_cache_is_a_warning(world: World) -> None:
    attach(1, multiattach=True, disk={"cache": "writeback"})(world)
    world.run()
    record = world.record(request_id(1))
    assert record.warnings == ("cache: forced to none, because the volume is shared",)
    assert 'cache="none"' in (world.domains.guests[ONE].live or "")


@pytest.mark.parametrize("half", ["live", "inactive"])
def test_a_missing_half_is_completed_in_the_other_ones_place(world: World, half: str) -> None:
    attach(1, disk={"bus": "scsi"})(world)
    world.run()
    first = world.record(request_id(1)).result
    lose_half(half)(world)
    attach(2, disk={"bus": "scsi"})(world)
    world.run()
    assert world.record(request_id(2)).result == first


def test_the_same_again_brings_the_way_that_is_taken_from_now_on(world: World) -> None:
    """The storage has another portal and another password since."""
    attached(world, 1)
    same = attachment(1)
    data = {**same["connection_info"]["data"], "target_portal": "192.0.2.7:3260"}
    info = {**same["connection_info"], "data": {**data, "auth_password": "anders"}}
    attach(1, connection_info=info)(world)
    world.run()
    assert world.record(request_id(1)).state == "done"
    held = world.journal.read(lambda book: book.attachment("att-1"))
    assert held is not None
    kept = held.attachment.connection.properties()
    assert (kept["target_portal"], kept["auth_password"]) == ("192.0.2.7:3260", "anders")
    world.lose_power()
    world.start()
    world.run()
    assert world.journal.read(lambda book: book.attachment("att-1")) == held
