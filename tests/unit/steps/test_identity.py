"""A device is proven to be the volume before a guest may see it."""

from collections.abc import Callable
from typing import Any

import pytest

from agent.model.attachment import Attachment
from agent.model.device import Device
from agent.saga.plan import Scene
from agent.steps.identity import why_another
from agent.steps.volume import ConnectVolume
from tests.unit.saga.stories import ONE, SHARED, TWO, destroy
from tests.unit.saga.stories_of_changes import GIB, grown
from tests.world.story import TARGET, VOLUMES, attach, attached, attachment, extend, request_id
from tests.world.world import World


def quarantined(world: World) -> dict[str, dict[str, Any]]:
    return world.journal.read(lambda book: book.quarantined())


def ask(world: World, number: int = 1, **different: Any) -> tuple[str, str]:
    attach(1, number, **different)(world)
    world.run()
    record = world.record(request_id(1))
    return record.state, "" if record.cause is None else record.cause.detail


def test_what_the_request_expects_is_there(world: World) -> None:
    wwn = world.storage.luns[TARGET, 1].wwn
    state, _ = ask(world, identity={"wwn": f"0x{wwn.upper()}"}, size_bytes=1 << 30)
    assert state == "done"


def test_another_identity_is_quarantined_and_stays_connected(world: World) -> None:
    state, detail = ask(world, identity={"wwn": "6001405000000000000000ff"})
    assert state == "undone"
    assert "expected 6001405000000000000000ff" in detail
    assert f"attachctl quarantine release {VOLUMES[0]}" in detail
    assert list(quarantined(world)) == [VOLUMES[0]]
    assert len(world.storage.devices) == 1
    assert "disk" not in (world.domains.guests[ONE].live or "")


def test_another_size_is_another_device(world: World) -> None:
    state, detail = ask(world, size_bytes=1 << 31)
    assert state == "undone"
    assert f"size is {1 << 30} bytes, expected {1 << 31}" in detail
    assert list(quarantined(world)) == [VOLUMES[0]]


def test_what_an_older_request_says_of_a_volume_in_use_is_refused_and_nothing_else(
    world: World,
) -> None:
    """It was extended before: another guest has it, and keeps it."""
    world.domains.add(TWO)
    attached(world, 1, **SHARED, size_bytes=1 << 30)
    attach(2, 2, instance=2, **SHARED, size_bytes=1 << 29)(world)
    world.run()
    record = world.record(request_id(2))
    assert record.cause is not None
    assert (record.state, record.cause.code) == ("undone", "wrong-device")
    assert quarantined(world) == {}


def test_the_same_attachment_may_be_asked_for_with_the_size_that_it_had(world: World) -> None:
    """So the audit advises where a half of it is missing."""
    attached(world, 1, size_bytes=GIB)
    grown(2 * GIB)(world)
    extend(2, 2 * GIB)(world)
    world.run()
    attach(3, 1, size_bytes=GIB)(world)
    world.run()
    assert world.record(request_id(3)).state == "done"


def test_a_lun_must_take_scsi_commands(world: World) -> None:
    """A loop device does not: the guest could not start with it."""
    world.storage.luns[TARGET, 1].scsi = False
    state, detail = ask(world, disk={"type": "lun", "bus": "scsi"})
    assert state == "undone"
    assert "takes no SCSI commands" in detail
    assert world.storage.devices == {}
    assert quarantined(world) == {}


def test_two_volumes_that_are_one_device(world: World) -> None:
    """The storage mapped the second volume onto the first one's LUN."""
    attached(world, 2, volume=2)
    world.storage.luns[TARGET, 1] = world.storage.luns[TARGET, 2]
    state, detail = ask(world)
    assert state == "undone"
    assert f"volume {VOLUMES[1]} is the same device" in detail
    assert list(quarantined(world)) == [VOLUMES[0]]


def one_serial(world: World) -> None:
    """The array answers its own for each of its LUNs."""
    for lun in world.storage.luns.values():
        lun.serial = "of-the-array"


def test_two_volumes_with_the_serial_of_their_array_are_two(world: World) -> None:
    one_serial(world)
    attached(world, 2, volume=2)
    assert ask(world) == ("done", "")


def test_what_has_only_the_serial_of_what_it_was_is_another(world: World) -> None:
    one_serial(world)
    asked = Attachment.parse(attachment(1))
    device = ConnectVolume(asked).apply(Scene(world.host, request_id(1), {}))["device"]
    now = Device.model_validate(device)
    was = now.model_copy(update={"identity": {**now.identity, "wwn": "6001405000000000000000ff"}})
    asks = (world.journal, world.storage, asked, now)
    (wrong,) = why_another(*asks, besides="", earlier=was)
    assert wrong == f"it is {now.shown}, and was {was.shown} before"


@pytest.mark.parametrize("share_a_serial", [lambda world: None, one_serial], ids=["none", "one"])
def test_a_connected_volume_that_shows_a_second_identity(
    world: World, share_a_serial: Callable[[World], None]
) -> None:
    share_a_serial(world)
    world.domains.add(TWO)
    attached(world, 2, instance=2, **SHARED)
    world.storage.luns[TARGET, 7] = world.storage.luns[TARGET, 2]
    other = {
        "driver_volume_type": "iscsi",
        "data": {"target_portal": "127.0.0.1:3260", "target_iqn": TARGET, "target_lun": 7},
    }
    state, detail = ask(world, connection_info=other, **SHARED)
    assert state == "undone"
    assert "the volume is connected here as another device" in detail


def test_after_a_reboot_a_new_identity_is_no_contradiction(world: World) -> None:
    """LIO makes a new WWN for each export; what the books say of the old one is history."""
    attached(world)
    destroy(world)
    world.storage.devices.clear()
    world.storage.sessions.clear()
    world.storage.luns[TARGET, 1].exports += 1
    state, detail = ask(world)
    assert (state, detail) == ("done", "")
    assert quarantined(world) == {}


def test_a_read_only_device_serves_readers_only(world: World) -> None:
    world.storage.luns[TARGET, 1].read_only = True
    state, detail = ask(world)
    assert state == "undone"
    assert "cannot be written, and the attachment is rw" in detail
    assert world.storage.devices == {}
    attach(2, 2, access_mode="ro")(world)
    world.run()
    assert world.record(request_id(2)).state == "done"


def test_a_lost_volume_that_comes_back_smaller_is_quarantined(world: World) -> None:
    """By its own row alone nobody knows it to be right: its size is all that tells."""
    attached(world, 1, size_bytes=1 << 30)
    world.domains.destroy(ONE)
    world.lose_power()
    world.storage.luns[TARGET, 1].size_bytes = 1 << 29
    world.start()
    world.run()
    assert list(quarantined(world)) == [VOLUMES[0]]
