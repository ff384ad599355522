"""Paths that come and go, namespaces that await their unmap, mounts that nobody needs."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest

from agent.errors import AgentError, ConnectFailed
from agent.model.device import Device, Disconnected
from agent.ports import Host
from agent.service.audit import audit
from agent.service.watch import LEFTOVER_GONE, PATHS_CHANGED, Watch
from tests.unit.saga.stories import ONE, host, path_missing
from tests.world.storage import SimulatedConnectors
from tests.world.story import VOLUMES, attach, attached, detach, request_id
from tests.world.world import World

NQN = "nqn.2026-01.org.example:shared"
PORTAL = "192.0.2.20:4420"


@dataclass
class Subsystem(SimulatedConnectors):
    """A namespace stays when it is disconnected, until the storage side unmaps it; and exports are
    mounted."""

    mounted: list[str] = field(default_factory=list)
    left: list[tuple[str, list[str]]] = field(default_factory=list)
    controllers_stay: AgentError | None = None

    def connect(self, attachment: Any) -> Device:
        device = super().connect(attachment)
        return device.model_copy(update={"subsystem": NQN, "portals": (PORTAL,)})

    def disconnect(self, attachment: Any, device: Device | None) -> Disconnected:
        self.instants.reach("before disconnect")
        return Disconnected(awaiting_unmap=True)

    def exports(self) -> list[str]:
        return self.mounted

    def leave(self, export: str) -> None:
        self.left.append((export, self.locks.mine()))

    def leave_subsystem(self, device: Device) -> None:
        if self.controllers_stay is not None:
            raise self.controllers_stay
        assert (device.subsystem, device.portals) == (NQN, (PORTAL,))
        self.left.append((NQN, self.locks.mine()))


@pytest.fixture
def world() -> Iterator[World]:
    made = World()
    made.storage = Subsystem(made.instants, made.locks, made.domains.in_use)
    made.start()
    host()(made)
    yield made
    made.close()


def here(world: World) -> Host:
    return world.host


def look(world: World) -> list[dict[str, Any]]:
    """What a look tells."""
    before = len(world.letters())
    watch = Watch(here(world), world.journal)
    watch.look_at_paths()
    watch.leave_unneeded()
    return world.letters()[before:]


def listed(world: World) -> tuple[int, int]:
    [row] = world.agent.query("list_attachments", {"filters": {}})["attachments"]
    return row["paths_found"], row["paths_expected"]


def findings(world: World) -> list[str]:
    return [finding["kind"] for finding in audit(here(world), world.journal)["findings"]]


class TestPaths:
    def test_a_degraded_attachment_is_watched_until_complete(self, world: World) -> None:
        path_missing(world)
        attached(world)
        assert look(world) == []
        assert listed(world) == (1, 2)
        assert findings(world) == ["paths-missing"]
        world.storage.paths = 2
        (letter,) = look(world)
        assert letter["event_type"] == PATHS_CHANGED
        assert letter["attachment_ids"] == ["att-1"]
        assert (letter["instance_id"], letter["volume_ids"]) == (ONE, [VOLUMES[0]])
        assert (letter["paths_found"], letter["paths_expected"]) == (2, 2)
        assert look(world) == []
        assert listed(world) == (2, 2)
        assert findings(world) == []

    def test_one_that_loses_a_path_is_told(self, world: World) -> None:
        attached(world)
        path_missing(world)
        (letter,) = look(world)
        assert (letter["paths_found"], letter["paths_expected"]) == (1, 2)

    def test_whoever_has_an_export_for_long_keeps_nobody_from_seeing_it(self, world: World) -> None:
        attached(world)
        path_missing(world)
        assert isinstance(world.storage, Subsystem)
        world.storage.mounted = ["192.0.2.40:/volumes"]
        with world.locks.targets(world.storage.mounted):
            Watch(here(world), world.journal).look_at_paths()
        assert listed(world) == (1, 2)

    def test_one_that_is_being_detached_loses_its_paths_untold(self, world: World) -> None:
        """os-brick takes one after the other; what was seen of them must not count as here."""
        attached(world)
        seen = list[dict[str, Any]]()

        def look_meanwhile(world: World) -> None:
            path_missing(world)
            seen.extend(look(world))

        world.meanwhile["before disconnect"] = look_meanwhile
        detach(1)(world)
        world.run()
        assert world.record(request_id(1)).state == "done"
        assert seen == []

    def test_a_device_that_is_gone_is_another_matter(self, world: World) -> None:
        attached(world)
        world.storage.lose_power()
        assert look(world) == []


class TestAwaitingUnmap:
    def left_behind(self, world: World) -> list[str]:
        return list(world.journal.read(lambda book: book.left_behind()))

    def detached(self, world: World) -> None:
        attached(world)
        detach(1)(world)
        world.run()
        assert world.record(request_id(1)).result == {
            "disconnected": True,
            "awaiting_unmap": True,
            "instance_present": True,
        }

    def test_it_is_listed_until_it_is_gone(self, world: World) -> None:
        self.detached(world)
        assert look(world) == []
        assert self.left_behind(world) == [VOLUMES[0]]
        assert findings(world) == ["awaiting-unmap"]
        world.storage.lose_power()
        assert findings(world) == [], "an audit looks itself"
        (letter,) = look(world)
        assert (letter["event_type"], letter["volume_ids"]) == (LEFTOVER_GONE, [VOLUMES[0]])
        assert self.left_behind(world) == []

    def test_its_controllers_go_with_the_last_of_what_they_show(self, world: World) -> None:
        self.detached(world)
        world.storage.lose_power()
        assert isinstance(world.storage, Subsystem)
        world.storage.controllers_stay = ConnectFailed("a controller stays")
        with pytest.raises(ConnectFailed):
            look(world)
        assert self.left_behind(world) == [VOLUMES[0]], "nobody would look for them again"
        world.storage.controllers_stay = None
        look(world)
        assert world.storage.left == [(NQN, [f"target:{NQN}"])]
        assert self.left_behind(world) == []

    def test_what_fails_holds_up_nothing_else(self, world: World) -> None:
        self.detached(world)
        world.storage.lose_power()
        assert isinstance(world.storage, Subsystem)
        world.storage.controllers_stay = ConnectFailed("a controller stays")
        world.storage.mounted = ["192.0.2.40:/vols"]
        with pytest.raises(ConnectFailed):
            look(world)
        assert [left for left, _ in world.storage.left] == ["192.0.2.40:/vols"]

    def test_what_is_used_again_is_no_leftover(self, world: World) -> None:
        self.detached(world)
        attach(2, 2)(world)
        world.run()
        assert world.record(request_id(2)).state == "done"
        assert self.left_behind(world) == []


def test_a_mount_that_nobody_left_is_left_under_its_lock(world: World) -> None:
    """It outlived its last user: a file was open, or the agent died."""
    assert isinstance(world.storage, Subsystem)
    world.storage.mounted = ["192.0.2.40:/vols"]
    look(world)
    assert world.storage.left == [("192.0.2.40:/vols", ["target:192.0.2.40:/vols"])]
