"""libvirtd forgets its ephemeral secrets: what can be made anew is, what cannot is said."""

import errno
from typing import Any

import pytest

from agent.errors import Internal
from agent.service import lost_secrets
from agent.service.lost_secrets import LostSecrets
from tests.lab.patience import wait_until
from tests.unit.saga.stories import (
    LUKS,
    LUKS_BY_VALUE,
    ONE,
    SHARED,
    TWO,
    libvirtd_is_restarted,
    luks,
    no_key,
    secrets,
)
from tests.world.story import attach, attached, detach
from tests.world.world import World


@pytest.fixture
def world() -> Any:
    world = World()
    world.start()
    luks()(world)
    yield world
    world.close()


def findings(world: World) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = world.agent.query("audit", {})["findings"]
    return found


def lost(world: World) -> LostSecrets:
    return LostSecrets(world.host, world.journal)


def test_what_a_file_tells_is_made_anew_and_the_guest_starts(world: World) -> None:
    attached(world, **LUKS)
    world.domains.destroy(ONE)
    libvirtd_is_restarted(world)
    [finding] = findings(world)
    assert finding["kind"] == "secret-missing"
    assert lost(world).look()
    assert findings(world) == []
    world.domains.start(ONE)


def test_they_are_looked_for_again_and_again(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """virtsecretd is restarted, and no connection of ours breaks."""
    attached(world, **LUKS)
    monkeypatch.setattr(lost_secrets, "LOOK_AGAIN_SECONDS", 0.01)
    turns = lost_secrets.turns_of_secrets(world.host, world.journal)
    turns.start()
    try:
        turns.hurry()
        for _ in range(2):
            libvirtd_is_restarted(world)
            wait_until(lambda: len(world.secrets.values) == 1, "it is made anew", seconds=60)
    finally:
        turns.stop()


def test_what_came_by_value_must_come_once_more(world: World) -> None:
    attached(world, **LUKS_BY_VALUE)
    libvirtd_is_restarted(world)
    assert not lost(world).look()
    [finding] = findings(world)
    assert "attach again" in finding["advice"]
    assert attach(1, **LUKS_BY_VALUE).send(world)["state"] == "accepted"
    world.run()
    secrets(1)(world)
    assert findings(world) == []


def test_a_file_that_has_gone_keeps_nobody_else_waiting(world: World) -> None:
    world.domains.add(TWO)
    attached(world, 1, **LUKS, **SHARED)
    attached(world, 2, instance=2, **LUKS, **SHARED)
    libvirtd_is_restarted(world)
    no_key(world)
    assert not lost(world).look()
    luks()(world)
    assert lost(world).look()
    secrets(1)(world)


def test_what_nobody_foresaw_keeps_nobody_else_waiting(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor does it end the thread: the watchdog would end the agent for it, again and again."""
    world.domains.add(TWO)
    attached(world, 1, **LUKS, **SHARED)
    attached(world, 2, instance=2, **LUKS, **SHARED)
    libvirtd_is_restarted(world)
    asked: list[str] = []
    remake = lost_secrets.remake_secrets

    def fail_at_first(host: Any, attachment: Any) -> bool:
        asked.append(attachment.attachment_id)
        if len(asked) == 1:
            raise OSError(errno.EIO, "bad sector")
        return remake(host, attachment)

    monkeypatch.setattr(lost_secrets, "remake_secrets", fail_at_first)
    with pytest.raises(Internal):
        lost(world).look()
    assert len(set(asked)) == 2
    assert lost(world).look()


def test_what_is_detached_is_not_made_anew(world: World) -> None:
    attached(world, **LUKS)
    libvirtd_is_restarted(world)
    detach(1)(world)
    world.run()
    assert lost(world).look()
    secrets(0)(world)


def test_one_that_nobody_needs_is_found(world: World) -> None:
    world.secrets.values["00000000-0000-4000-8000-0000000000ff"] = b"left"
    [finding] = findings(world)
    assert finding["kind"] == "secret-left"
    assert "virsh secret-undefine 00000000-" in finding["advice"]
