"""A disk comes into a guest and leaves it, one half after the other."""

from lxml import etree

from agent.guest.domain_xml import DiskFacts, parse_domain
from tests.unit.saga.stories import ONE, guest_is, lose_half, point_elsewhere, reset
from tests.world.story import attach, attached, detach, request_id
from tests.world.world import World


def halves(world: World) -> list[DiskFacts | None]:
    guest = world.domains.guests[ONE]
    return [
        None if xml is None else parse_domain(xml).disk_by_alias("ua-att-1")
        for xml in (guest.live, guest.inactive)
    ]


def test_both_halves_have_the_disk_at_one_place(world: World) -> None:
    attached(world)
    live, inactive = halves(world)
    assert live is not None
    assert inactive is not None
    assert (live.address, live.target_dev) == (inactive.address, inactive.target_dev)


def test_a_definition_that_names_an_old_device_is_replaced(world: World) -> None:
    attached(world)
    point_elsewhere("inactive")(world)
    attach(1)(world)
    world.run()
    live, inactive = halves(world)
    assert live is not None
    assert inactive == live


def test_a_full_scsi_controller_gets_another_in_both_halves(world: World) -> None:
    guest = world.domains.guests[ONE]
    full = "".join(
        f"<disk type='block' device='disk'><target dev='sd{number}' bus='scsi'/>"
        f"<address type='drive' controller='0' unit='{number}'/></disk>"
        for number in range(256)
    )
    for half in ("live", "inactive"):
        setattr(guest, half, getattr(guest, half).replace("</devices>", f"{full}</devices>"))
    attach(1, disk={"bus": "scsi"})(world)
    world.run()
    assert world.record(request_id(1)).state == "done"
    for disk in halves(world):
        assert disk is not None
        assert disk.address is not None
        assert disk.address["controller"] == "1"


def test_a_plug_that_is_taken_back_leaves_no_half(world: World) -> None:
    """QEMU took the disk, but not as it was asked: the verification finds that."""

    def spoil(w: World) -> None:
        guest = w.domains.guests[ONE]
        guest.live = (guest.live or "").replace('cache="none"', 'cache="writeback"')

    world.meanwhile["after plug"] = spoil
    guest_is("stubborn")(world)
    attach(1)(world)
    world.run()
    record = world.record(request_id(1))
    assert (record.state, record.direction) == ("waiting", "undoing")
    assert record.waiting_for == "the guest to release vda"
    assert record.cause is not None
    assert "cache is writeback, not none" in record.cause.detail
    assert len(world.storage.devices) == 1, "the guest has it still"
    reset(world)
    world.run()
    assert world.record(request_id(1)).state == "undone"
    assert halves(world) == [None, None]
    assert world.storage.devices == {}


def test_a_half_that_was_in_place_before_is_not_taken_back(world: World) -> None:
    attached(world)
    lose_half("live")(world)
    world.domains.plug_never_lands = True
    attach(1)(world)
    world.run()
    assert world.record(request_id(1)).state == "undone"
    live, inactive = halves(world)
    assert live is None
    assert inactive is not None
    assert len(world.storage.devices) == 1


def test_live_first_and_the_definition_only_then(world: World) -> None:
    attached(world)
    world.instants.passed.clear()
    detach(1)(world)
    world.run()
    order = [name for name in world.instants.passed if name in ("before unplug", "before forget")]
    assert order == ["before unplug", "before forget"]


def test_a_note_goes_with_its_disk_and_leaves_the_others(world: World) -> None:
    attached(world)
    attached(world, 2, volume=2)
    detach(1)(world)
    world.run()
    guest = world.domains.guests[ONE]
    for half in (guest.live, guest.inactive):
        assert half is not None
        assert list(parse_domain(half).notes) == ["ua-att-2"]
        assert len(etree.fromstring(half).findall("devices/disk")) == 1
