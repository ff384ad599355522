"""A volume comes and goes: missing paths are told, earlier devices are not used, others' stay."""

import json
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from typing import Any, Never

import pytest

from agent.errors import Busy, ConnectFailed, WrongDevice
from agent.journal.store import FILE_NAME
from agent.model.attachment import Attachment
from agent.model.device import Device
from agent.saga.plan import Scene
from agent.steps.identity import VerifyIdentity
from agent.steps.volume import ConnectVolume, disconnect_unless_used
from tests.unit.saga.stories import leftover, path_missing
from tests.world.storage import HostDevice, Lun
from tests.world.story import TARGET, VOLUMES, attach, attached, attachment, request_id
from tests.world.world import World


def scene(world: World, **known: Any) -> Scene:
    host = world.host
    return Scene(host, request_id(1), known)


def connect(world: World, **known: Any) -> dict[str, Any]:
    learnt = ConnectVolume(Attachment.parse(attachment(1))).apply(scene(world, **known))
    return {**known, **learnt}


def test_missing_paths_are_a_warning(world: World) -> None:
    path_missing(world)
    attach(1)(world)
    world.run()
    record = world.record(request_id(1))
    assert record.state == "done"
    (warning,) = record.warnings
    assert warning.startswith("degraded 1/2")


def test_paths_that_are_back_when_an_agent_goes_on_are_none(world: World) -> None:
    """What another step told of is kept."""
    path_missing(world)
    attach(1)(world)
    record = world.record(request_id(1))
    told = record.learn(record.part.attachment_id, {"warnings": ["of another step"]})
    once = told.learn(record.part.attachment_id, connect(world))
    assert [text[:12] for text in once.warnings] == ["of another s", "degraded 1/2"]
    again = once.learn(record.part.attachment_id, connect(world))
    assert again.warnings == once.warnings
    world.storage.paths = 2
    assert again.learn(record.part.attachment_id, connect(world)).warnings == ("of another step",)


def test_a_device_of_an_earlier_life_is_not_used(world: World) -> None:
    leftover(world)
    attach(1)(world)
    world.run()
    record = world.record(request_id(1))
    assert record.cause is not None
    assert (record.state, record.cause.code) == ("undone", "wrong-device")
    assert "was at its address before" in record.cause.detail
    assert list(world.journal.read(lambda book: book.quarantined())) == [VOLUMES[0]]
    assert len(world.storage.devices) == 1


def test_nor_by_an_agent_that_died_since_it_was_connected(world: World) -> None:
    """By then it looks as it should."""
    leftover(world)
    known = connect(world)
    known = connect(world, **known)
    with pytest.raises(WrongDevice, match="was at its address before"):
        VerifyIdentity(Attachment.parse(attachment(1))).apply(scene(world, **known))


def test_what_another_volume_has_by_now_stays(world: World) -> None:
    """Its number was given away before it was known whether it was ever connected."""
    attached(world, 2, volume=2)
    world.storage.luns[TARGET, 1] = Lun(VOLUMES[1])
    (device,) = world.storage.devices.values()
    world.storage.devices[TARGET, 1] = device
    learnt = disconnect_unless_used(scene(world), Attachment.parse(attachment(1)), None)
    assert (TARGET, 1) in world.storage.devices
    assert learnt["warnings"] == [f"{device.path} is the device of volume {VOLUMES[1]}: it stays"]


def comes_while_the_lock_is_waited_for(world: World, monkeypatch: pytest.MonkeyPatch) -> HostDevice:
    """The array has given our number to volume 2, which who had the lock has connected."""
    attached(world, 2, volume=2)
    (device,) = world.storage.devices.values()
    targets = world.locks.targets

    @contextmanager
    def after_somebody(names: Sequence[str]) -> Iterator[None]:
        with targets(names):
            world.storage.devices[TARGET, 1] = device
            yield

    monkeypatch.setattr(world.locks, "targets", after_somebody)
    return device


def test_nor_is_it_taken_where_it_came_in_the_last_moment(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    device = comes_while_the_lock_is_waited_for(world, monkeypatch)
    learnt = disconnect_unless_used(scene(world), Attachment.parse(attachment(1)), None)
    assert (TARGET, 1) in world.storage.devices
    assert learnt["warnings"] == [f"{device.path} is the device of volume {VOLUMES[1]}: it stays"]


def test_nor_where_it_is_not_written_down_yet_whose_it_is(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    comes_while_the_lock_is_waited_for(world, monkeypatch)
    world.journal.write(lambda book: book._db.execute("UPDATE attachments SET device = NULL"))
    with pytest.raises(Busy, match=f"may be that of volume {VOLUMES[1]}"):
        disconnect_unless_used(scene(world), Attachment.parse(attachment(1)), None)
    assert (TARGET, 1) in world.storage.devices


UNREADABLE = {
    "driver_volume_type": "iscsi",
    "data": {
        "target_portal": "192.0.2.1:3260",
        "target_iqn": TARGET,
        "target_lun": 1,
        "addressing_mode": "bogus",
    },
}


def test_what_os_brick_cannot_read_is_refused_and_nothing_is_touched(world: World) -> None:
    attach(1, connection_info=UNREADABLE, refused="invalid")(world)
    world.run()
    assert not world.records()
    assert not world.storage.devices


def test_what_an_older_agent_took_and_os_brick_never_connected_is_undone(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every call to os-brick fails, the disconnect as well."""

    def cannot_read(*asked: object) -> Never:
        raise ConnectFailed("Invalid addressing_mode bogus")

    for call in ("connect", "disconnect"):
        monkeypatch.setattr(world.storage, call, cannot_read)
    attach(1)(world)
    world.die()
    with closing(sqlite3.connect(world.directory / FILE_NAME)) as db, db:
        db.execute(
            "UPDATE operation_parts"
            " SET attachment = json_set(attachment, '$.connection_info', json(?))",
            (json.dumps(UNREADABLE),),
        )
    world.start()
    wanted = world.record(request_id(1)).part.attachment
    assert wanted is not None
    assert any(wanted.connection.data.flaws())
    world.run()
    assert world.record(request_id(1)).state == "undone"


def test_while_others_have_the_volume_it_is_still_theirs(world: World) -> None:
    attached(world, 1, multiattach=True)
    wrong = attachment(2, volume=1, multiattach=True, connection_info=UNREADABLE)
    before = dict(world.storage.devices)
    learnt = disconnect_unless_used(scene(world), Attachment.model_validate(wrong), None)
    assert learnt == {"disconnected": False}
    assert world.storage.devices == before


def test_a_serial_of_the_array_does_not_make_a_device_another_volumes(world: World) -> None:
    for lun in world.storage.luns.values():
        lun.serial = "of-the-array"
    attached(world, 2, volume=2)
    device = Device.model_validate(connect(world)["device"])
    learnt = disconnect_unless_used(scene(world), Attachment.parse(attachment(1)), device)
    assert learnt == {"disconnected": True, "awaiting_unmap": False}
    assert list(world.storage.devices) == [(TARGET, 2)]
