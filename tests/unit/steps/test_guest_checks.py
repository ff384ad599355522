"""What is refused before any storage is touched, each with its own clear error."""

from typing import Any

import pytest
from lxml import etree

from tests.unit.saga.stories import (
    ONE,
    SHARED,
    TWO,
    boots_by_order,
    foreign_disk,
    lose_journal,
    occupy,
    other_serial,
    point_elsewhere,
    still_plugged,
    take_boot_order,
)
from tests.unit.saga.stories_of_imports import anothers, entry, imports
from tests.world.domains import ROOT_PORTS
from tests.world.story import (
    VOLUMES,
    attach,
    attached,
    detach,
    request_id,
    set_iotune,
    volume,
)
from tests.world.world import World


def refusal(world: World, request: int = 1) -> tuple[str, str]:
    """Code and words of what was undone; asserts that no storage call was made for it."""
    connects = world.storage.connects
    world.run()
    record = world.record(request_id(request))
    assert record.state == "undone"
    assert record.cause is not None
    assert record.cause.detail.endswith("; nothing was touched")
    assert world.storage.connects == connects
    assert not any("connect" in name for name in world.instants.passed)
    return record.cause.code, record.cause.detail


def ask(world: World, **different: Any) -> tuple[str, str]:
    world.instants.passed.clear()
    attach(1, **different)(world)
    return refusal(world)


def test_an_instance_that_is_not_here(world: World) -> None:
    world.domains.undefine(ONE)
    code, detail = ask(world)
    assert code == "unknown-instance"
    assert ONE in detail


def test_an_instance_that_migrates(world: World) -> None:
    occupy(world)
    code, detail = ask(world)
    assert code == "busy"
    assert "guest-1 has a migration running" in detail


def test_multiattach_on_a_libvirt_that_cannot_share(world: World) -> None:
    world.domains.libvirt = (3, 9, 0)
    code, detail = ask(world, **SHARED)
    assert code == "unsupported"
    assert "3.10.0 or newer, this host has 3.9.0" in detail


def test_an_iothread_that_the_domain_has_not(world: World) -> None:
    code, detail = ask(world, disk={"iothread": 3})
    assert code == "invalid"
    assert "disk.iothread 3: the domain has iothreads none" in detail


@pytest.mark.parametrize("half", ["live", "inactive"])
def test_a_boot_order_that_is_taken(world: World, half: str) -> None:
    boots_by_order(world)
    take_boot_order(half)(world)
    code, detail = ask(world, disk={"boot_order": 1})
    assert code == "invalid"
    assert "disk.boot_order 1 is interface's already" in detail


def test_a_boot_order_beside_a_boot_device(world: World) -> None:
    code, detail = ask(world, disk={"boot_order": 1})
    assert code == "invalid"
    assert "the domain boots by <os><boot dev=" in detail


def test_a_boot_order_of_its_own(world: World) -> None:
    """What an earlier half of the attachment took is not taken."""
    boots_by_order(world)
    attach(1, disk={"boot_order": 1})(world)
    world.run()
    assert "ua-att-1" in (world.domains.guests[ONE].live or "")
    world.domains.guests[ONE].inactive = (world.domains.guests[ONE].live or "").replace(
        " id='1'", ""
    )
    attach(2, disk={"boot_order": 1})(world)
    world.run()
    assert world.record(request_id(2)).state == "done"


def test_a_target_name_that_is_taken(world: World) -> None:
    attached(world, 2, volume=2)
    code, detail = ask(world, disk={"target_dev": "vda"})
    assert code == "no-free-address"
    assert "vda" in detail


def test_no_free_port(world: World) -> None:
    for number in range(2, ROOT_PORTS + 1):
        volume(world, number)
        attached(world, number, volume=number)
    code, detail = ask(world)
    assert code == "no-free-address"
    assert "disk.bus scsi" in detail


@pytest.mark.parametrize("wish", [{"multiattach": False}, {"multiattach": True}])
def test_a_domain_that_somebody_else_gave_the_volume_is_named(
    world: World, wish: dict[str, bool]
) -> None:
    world.domains.add(TWO)
    foreign_disk(world)
    code, detail = ask(world, **wish)
    assert code == "sharing-conflict"
    assert f"domain guest-2 ({TWO}) as vda" in detail


def test_the_same_alias_with_other_properties(world: World) -> None:
    attached(world)
    lose_journal(world)
    code, detail = ask(world, access_mode="ro")
    assert code == "sharing-conflict"
    assert "readonly is False, not True" in detail
    assert "detach it first" in detail


def test_the_same_volume_by_another_alias(world: World) -> None:
    attached(world, 2)
    lose_journal(world)
    code, detail = ask(world)
    assert code == "sharing-conflict"
    assert f"the instance has volume {VOLUMES[0]} already, as vda" in detail


def test_a_disk_with_another_serial_is_not_unplugged(world: World) -> None:
    attached(world)
    other_serial(world)
    world.instants.passed.clear()
    detach(1)(world)
    code, detail = refusal(world)
    assert code == "wrong-device"
    assert f"has serial {VOLUMES[7]}, expected {VOLUMES[0]}" in detail
    still_plugged(world)


def test_a_disk_that_sits_at_the_target_name_is_not_ours(world: World) -> None:
    """libvirt would take whatever is at vda; only the alias counts."""
    attached(world)
    guest = world.domains.guests[ONE]
    for half in ("live", "inactive"):
        text = getattr(guest, half).replace('<alias name="ua-att-1"', '<alias name="ua-att-2"')
        setattr(guest, half, text)
    detach(1)(world)
    world.run()
    assert world.record(request_id(1)).state == "done"
    (disk,) = etree.fromstring(guest.live or "").findall("devices/disk")
    assert disk.find("target").get("dev") == "vda"  # type: ignore[union-attr]
    assert len(world.storage.devices) == 1, "its device is used by that disk"


def test_a_disk_without_an_alias_is_not_taken_for_another_one(world: World) -> None:
    """Somebody puts another device where it was: libvirt would take out whatever is there."""
    anothers(alias="")(world)
    imports(entry())(world)
    for half in ("live", "inactive"):
        point_elsewhere(half)(world)
    set_iotune(1, {"total_iops_sec": 500})(world)
    detach(2)(world)
    world.run()
    for number in (1, 2):
        record = world.record(f"00000000-0000-4000-9000-{number:012d}")
        assert record.state == "undone"
        assert record.cause is not None
        assert record.cause.code == "wrong-device"
    assert "wwn-old" in (world.domains.guests[ONE].live or "")
