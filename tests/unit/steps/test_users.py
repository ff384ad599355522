"""Who uses a volume here: nobody's disk is pulled, nobody's device is left."""

from lxml import etree

from agent.steps.users import users
from tests.unit.saga.stories import ONE, SHARED, TWO, foreign_disk, lose_journal
from tests.world.story import VOLUMES, attached, detach, request_id
from tests.world.world import World


def found(world: World, source: str | None = None) -> list[str]:
    return users(world.host, VOLUMES[0], source, besides="")


def device_path(world: World) -> str:
    (device,) = world.storage.devices.values()
    return device.path


def test_nobody(world: World) -> None:
    assert found(world) == []


def test_an_attachment_its_disk_and_its_definition(world: World) -> None:
    attached(world)
    assert found(world) == [
        f"attachment att-1 of instance {ONE}",
        f"domain guest-1 ({ONE}) as vda",
        f"domain guest-1 ({ONE}) as vda",
    ]


def test_a_disk_is_known_by_note_by_serial_and_by_source(world: World) -> None:
    attached(world)
    lose_journal(world)
    guest = world.domains.guests[ONE]
    guest.inactive = None
    assert len(found(world)) == 1, "by its note"
    domain = etree.fromstring(guest.live or "")
    domain.remove(domain.find("metadata"))  # type: ignore[arg-type]
    guest.live = etree.tostring(domain, encoding="unicode")
    assert len(found(world)) == 1, "by its serial"
    guest.live = guest.live.replace(f"<serial>{VOLUMES[0]}</serial>", "")
    assert found(world) == [], "by nothing"
    assert len(found(world, device_path(world))) == 1, "by its source"


def test_the_same_device_by_another_name(world: World) -> None:
    """Somebody else's disk names the kernel's name of the device."""
    world.domains.add(TWO)
    attached(world, 1, **SHARED)
    foreign = world.domains.guests[TWO]
    disk = (
        '<disk type="block" device="disk"><source dev="/dev/sda"/><target dev="vdx"/>'
        '<address type="pci" bus="0x05" slot="0x00" function="0x0"/></disk>'
    )
    foreign.live = (foreign.live or "").replace("</devices>", f"{disk}</devices>")
    detach(1)(world)
    world.run()
    result = world.record(request_id(1)).result
    assert result is not None
    assert result["disconnected"] is False
    assert len(world.storage.devices) == 1


def test_a_disk_of_somebody_else_keeps_the_device_when_the_books_know_nothing(
    world: World,
) -> None:
    world.domains.add(TWO)
    foreign_disk(world)
    world.domains.guests[TWO].inactive = (world.domains.guests[TWO].inactive or "").replace(
        VOLUMES[0], VOLUMES[7]
    )
    assert len(found(world)) == 1
    assert len(found(world, device_path(world))) == 2
