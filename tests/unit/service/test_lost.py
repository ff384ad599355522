"""While the agent runs: what somebody takes away comes back, unless a guest runs with it."""

from collections.abc import Iterator

import pytest

from agent.model.attachment import Attachment
from agent.model.device import Device
from agent.service.lost import TRY_AGAIN_SECONDS
from tests.world.storage import Lun
from tests.world.story import INSTANCES, TARGET, VOLUMES, attached, let_pass, volume
from tests.world.world import World

DAY_SECONDS = 86400.0


@pytest.fixture
def world() -> Iterator[World]:
    """A guest that is shut off has volume 1, and the volume's device is gone."""
    world = World()
    world.domains.add(INSTANCES[0], runs=False)
    volume(world, 1)
    world.start()
    attached(world, 1)
    world.die()
    world.storage.lose_power()
    yield world
    world.close()


def is_here(world: World) -> bool:
    return VOLUMES[0] in {device.volume_id for device in world.storage.devices.values()}


def start(world: World) -> None:
    world.start()
    world.run()


def test_it_comes_back_when_the_agent_starts(world: World) -> None:
    start(world)
    assert is_here(world)
    assert world.lost_volumes == 0


def test_it_is_tried_again_later_and_later(world: World) -> None:
    lun = world.storage.luns.pop((TARGET, 1))
    start(world)
    pauses = []
    for _ in range(6):
        before = world.clock.seconds
        assert world.pass_time()
        pauses.append(world.clock.seconds - before)
    assert pauses == [60, 120, 300, 600, 600, 600]
    assert world.lost_volumes == 1
    world.storage.luns[TARGET, 1] = lun
    world.pass_time()
    assert is_here(world)
    assert world.lost_volumes == 0
    assert not world.pass_time(), "there is nothing more to wait for"


def test_a_sick_target_does_not_come_first_with_all_that_it_has(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each try of it takes a minute, and there is one thread."""
    world.start()
    volume(world, 2)
    world.storage.luns["iqn.sim:other", 4] = Lun(VOLUMES[3])
    data = {"target_portal": "192.0.2.9:3260", "target_iqn": "iqn.sim:other", "target_lun": 4}
    other = {"driver_volume_type": "iscsi", "data": data}
    attached(world, 2, volume=2)
    attached(world, 4, volume=4, connection_info=other)
    world.die()
    world.storage.lose_power()
    asked: list[str] = []
    connect = world.storage.connect

    def noted(attachment: Attachment) -> Device:
        asked.append(attachment.volume_id)
        return connect(attachment)

    monkeypatch.setattr(world.storage, "connect", noted)
    start(world)
    assert sorted(asked) == sorted([VOLUMES[0], VOLUMES[1], VOLUMES[3]])
    assert VOLUMES[3] in asked[:2]


def test_a_clock_that_is_set_back_puts_no_try_off(world: World) -> None:
    lun = world.storage.luns.pop((TARGET, 1))
    start(world)
    world.clock.set_back(DAY_SECONDS)
    world.storage.luns[TARGET, 1] = lun
    let_pass(TRY_AGAIN_SECONDS[0])(world)
    assert is_here(world)


def test_a_guest_that_runs_with_what_it_was_is_left_alone(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    """It has lost its disk: a device that it does not use would hide that."""
    guest = world.domains.guests[INSTANCES[0]]
    guest.live = guest.inactive
    start(world)
    for _ in range(3):
        world.pass_time()
    assert world.storage.connects == 1
    assert caplog.text.count("is left alone") == 1, "and that is told, once"
    world.domains.destroy(INSTANCES[0])
    world.pass_time()
    assert is_here(world)


def test_libvirt_that_does_not_answer_is_no_leave(world: World) -> None:
    world.domains.is_away = True
    start(world)
    assert not is_here(world)
    world.domains.is_away = False
    world.pass_time()
    assert is_here(world)


def test_another_device_is_quarantined_and_not_tried_again(world: World) -> None:
    world.storage.luns[TARGET, 1].exports += 1
    start(world)
    assert world.journal.quarantined(VOLUMES[0]) is not None
    world.pass_time()
    assert world.lost_volumes == 0
    assert world.storage.connects == 2


def test_what_is_withdrawn_meanwhile_is_not_wanted(world: World) -> None:
    world.start()
    world.journal.withdraw("att-1")
    world.run()
    assert not is_here(world)


def test_a_defect_does_not_keep_it_away_for_ever(world: World) -> None:
    world.storage.lacks = None
    place = world.storage.luns.pop((TARGET, 1))
    world.storage.luns[TARGET, 1] = None  # type: ignore[assignment]
    start(world)
    assert not is_here(world)
    world.storage.luns[TARGET, 1] = place
    world.pass_time()
    assert is_here(world)
