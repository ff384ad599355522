"""Every command against the agent itself, on a simulated host: what attachctl makes of real
answers, and what the agent makes of its requests."""

import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from agent.bus.client import Refused
from agent.errors import ConnectFailed
from agent.model.outcome import Answer
from tests.unit.cli.conftest import Attachctl
from tests.unit.saga.stories_of_changes import GIB, grown
from tests.unit.saga.stories_of_imports import becomes_anothers
from tests.world.story import INSTANCES, VOLUMES, attachment, migrate, volume
from tests.world.world import World

ONE, TWO = INSTANCES[:2]

CHANGING = {
    *("attach", "detach", "extend", "set-iotune", "swap", "cancel", "abandon", "release"),
    *("prepare-migration", "migrate", "cancel-migration", "--apply"),
}


@dataclass
class Client:
    """AgentClient without a bus between."""

    world: World

    def command(self, verb: str, request: dict[str, Any]) -> Answer:
        arguments = {"request": json.loads(json.dumps(request))}
        return Answer.model_validate(self.world.agent.command(verb, arguments, addressed=True))

    def wait(self, operation_id: str, timeout_seconds: float) -> Answer:
        self.world.run()
        return self._operation("get_operation", operation_id)

    def cancel_operation(self, operation_id: str) -> Answer:
        return self._operation("cancel_operation", operation_id)

    def abandon_operation(self, operation_id: str) -> Answer:
        return self._operation("abandon_operation", operation_id)

    def get_connector(self, instance_id: str | None = None) -> Any:
        return self._ask("get_connector", instance_id=instance_id)["connector"]

    def get_instance(self, instance_id: str) -> Any:
        return self._ask("get_instance", instance_id=instance_id)

    def release_quarantine(self, volume_id: str) -> Any:
        return self._ask("release_quarantine", volume_id=volume_id)

    def import_attachments(self, entries: list[dict[str, Any]], *, dry_run: bool) -> Any:
        asked = json.loads(json.dumps(entries))
        return self._ask("import_attachments", entries=asked, dry_run=dry_run)

    def plan(self, verb: str, request: dict[str, Any]) -> Any:
        return self._ask("plan", verb=verb, request=request)

    def __getattr__(self, name: str) -> Callable[..., Any]:
        """describe and audit; list_… with filters, where there are some."""

        def ask(*, limit: int | None = None, **filters: Any) -> Any:
            given = {"filters": filters, "limit": limit}
            answer = self._ask(name, **{word: value for word, value in given.items() if value})
            return answer[name.removeprefix("list_")] if name.startswith("list_") else answer

        return ask

    def close(self) -> None:
        pass

    def _operation(self, name: str, operation_id: str) -> Answer:
        return Answer.model_validate(self._ask(name, operation_id=operation_id))

    def _ask(self, name: str, **arguments: Any) -> dict[str, Any]:
        answer = self.world.agent.query(name, arguments)
        if set(answer) == {"error"}:
            raise Refused(**answer["error"])
        return answer


@pytest.fixture
def world() -> Iterator[World]:
    world = World()
    world.clock.seconds = time.time()  # as attachctl's requests carry the time of this machine
    world.start()
    volume(world, 1)
    world.domains.add(ONE)
    world.domains.add(TWO, attitude="stubborn")
    yield world
    world.close()


@pytest.fixture
def ctl(attachctl: Attachctl, world: World) -> Callable[..., tuple[int, Any]]:
    """Exit code and JSON; what changes nothing is asked in words as well."""

    def call(*words: str) -> tuple[int, Any]:
        client = Client(world)
        ran = attachctl(*words, "--json", agent=client)
        if words[0] == "plan" or not CHANGING & set(words):
            assert attachctl(*words, agent=client).code == ran.code
        return ran.code, json.loads(ran.out)

    return call


@pytest.fixture
def files(tmp_path: Path) -> list[str]:
    """Volume 1 for both instances, shared."""
    names = []
    for number in (1, 2):
        file = tmp_path / f"attachment-{number}.json"
        file.write_text(json.dumps(attachment(number, instance=number, multiattach=True)))
        names.append(str(file))
    return names


def test_an_attachment_comes_shows_itself_everywhere_and_goes(ctl: Any, files: list[str]) -> None:
    assert ctl("plan", "attach", "-f", files[0])[1]["refusal"] is None
    code, done = ctl("attach", "-f", files[0])
    assert (code, done["state"]) == (0, "done")
    attachment_id = ctl("list")[1]["attachments"][0]["attachment_id"]
    assert ctl("show", attachment_id)[1]["attachment"]["instance_id"] == ONE
    assert ctl("show", done["operation_id"])[1]["operation"]["state"] == "done"
    assert ctl("instance", ONE)[1]["disks"][0]["target_dev"] == done["result"]["disk"]["target_dev"]
    assert ctl("audit")[0] == 0
    assert ctl("operations", "--all")[1]["operations"][0]["operation_id"] == done["operation_id"]
    assert ctl("describe")[1]["open_operations"] == 0
    assert ctl("connector")[0] == 0
    assert ctl("locks")[1]["locks"] == []
    assert ctl("plan", "detach", attachment_id)[1]["refusal"] is None
    code, gone = ctl("detach", attachment_id)
    assert (code, gone["result"]["disconnected"]) == (0, True)
    assert ctl("list")[1]["attachments"] == []


def test_a_volume_grows_for_both_of_its_guests(ctl: Any, files: list[str], world: World) -> None:
    for file in files:
        assert ctl("attach", "-f", file)[0] == 0
    grown(2 * GIB)(world)
    assert ctl("plan", "extend", VOLUMES[0], str(2 * GIB))[1]["refusal"] is None
    code, done = ctl("extend", VOLUMES[0], str(2 * GIB))
    assert (code, [row["guest_size_bytes"] for row in done["result"]]) == (0, [2 * GIB] * 2)
    code, refused = ctl("extend", VOLUMES[0], str(GIB))
    assert (code, refused["error"]["code"]) == (1, "invalid")


def test_the_limits_of_a_disk_come_and_go(ctl: Any, files: list[str]) -> None:
    ctl("attach", "-f", files[0])
    assert ctl("plan", "set-iotune", "att-1", "--unlimited")[1]["refusal"] is None
    code, done = ctl("set-iotune", "att-1", "total_iops_sec=500")
    assert (code, done["result"]["total_iops_sec"]) == (0, 500)
    code, done = ctl("set-iotune", "att-1", "--unlimited")
    assert (code, done["result"]["total_iops_sec"]) == (0, 0)


def test_a_disk_moves_to_another_volume(
    ctl: Any, files: list[str], tmp_path: Path, world: World
) -> None:
    volume(world, 2)
    ctl("attach", "-f", files[0])
    new = tmp_path / "new.json"
    new.write_text(json.dumps(attachment(9, volume=2)))
    assert ctl("plan", "swap", "att-1", "-f", str(new))[1]["refusal"]["code"] == "sharing-conflict"
    code, done = ctl("swap", "att-1", "-f", str(new), "--sole-user")
    assert (code, done["state"]) == (0, "done")
    assert done["result"]["disk"]["alias"] == "ua-att-1"
    assert ctl("detach", "att-9")[0] == 0


def test_a_migration_is_prepared_shown_and_cancelled(
    ctl: Any, tmp_path: Path, world: World
) -> None:
    world.domains.undefine(ONE)
    file = tmp_path / "coming.json"
    coming = {**attachment(1), "replaces": "old-1"}
    file.write_text(json.dumps({"migration_id": "mig-1", "attachments": [coming]}))
    assert ctl("plan", "prepare-migration", "-f", str(file))[1]["refusal"] is None
    code, done = ctl("prepare-migration", "-f", str(file))
    assert (code, list(done["result"]["parts"])) == (0, ["old-1"])
    assert ctl("show", "att-1")[1]["attachment"]["lease"]["migration_id"] == "mig-1"
    assert ctl("audit")[0] == 0
    assert ctl("plan", "cancel-migration", "mig-1")[1]["refusal"] is None
    code, done = ctl("cancel-migration", "mig-1")
    assert (code, done["result"]["attachments"][0]["disconnected"]) == (0, True)


def test_an_instance_is_migrated(ctl: Any, files: list[str], tmp_path: Path, world: World) -> None:
    ctl("attach", "-f", files[0])
    world.far.leased = {"att-1": "mig-1"}
    file = tmp_path / "migrate.json"
    file.write_text(json.dumps(dict(migrate(1, 1).request) | {"not_after": "2099-01-01T00:00:00Z"}))
    world.policy = replace(world.policy, retention_seconds=1e10)
    world.die()
    world.start()
    assert ctl("plan", "migrate", "-f", str(file))[1]["refusal"] is None
    code, done = ctl("migrate", "-f", str(file))
    assert (code, done["result"]["host"]) == (0, "far")
    assert ctl("list")[1]["attachments"] == []
    assert ctl("cancel-migration", "mig-1")[1]["error"]["code"] == "too-late"


def test_a_guest_that_does_not_let_go_is_waited_for_and_is_no_finding(
    ctl: Any, files: list[str], world: World
) -> None:
    ctl("attach", "-f", files[1])
    code, parked = ctl("detach", "-f", files[1], "--wait", "0.01")
    assert (code, parked["state"]) == (3, "waiting")
    assert [row["state"] for row in ctl("operations")[1]["operations"]] == ["waiting"]
    assert ctl("audit")[0] == 0
    code, refused = ctl("operations", "cancel", parked["operation_id"])
    assert (code, refused["error"]["code"]) == (1, "too-late")
    world.domains.guests[TWO].attitude = "cooperative"
    world.pass_time()
    assert ctl("operations")[1]["operations"] == []


def test_what_cannot_be_finished_is_found_abandoned_quarantined_and_released(
    ctl: Any, files: list[str], world: World
) -> None:
    ctl("attach", "-f", files[0])
    world.storage.disconnect_error = ConnectFailed("the device does not go away")
    code, stuck = ctl("detach", "-f", files[0], "--wait", "0.01")
    assert (code, stuck["state"]) == (3, "unsettled")
    code, audited = ctl("audit")
    assert (code, audited["findings"][0]["kind"]) == (5, "unsettled")
    assert ctl("operations", "abandon", stuck["operation_id"])[0] == 0
    (left,) = ctl("quarantine")[1]["quarantine"]
    assert ctl("attach", "-f", files[1])[1]["error"]["code"] == "wrong-device"
    assert ctl("quarantine", "release", left["volume_id"])[0] == 0
    assert ctl("quarantine")[1]["quarantine"] == []


def test_a_refusal_names_the_reason_before_and_after(ctl: Any, files: list[str]) -> None:
    ctl("attach", "-f", files[0])
    alone = ("-f", files[0], "--attachment-id", "att-9", "--generation", "1")
    code, planned = ctl("plan", "attach", *alone)
    assert (code, planned["refusal"]["code"]) == (1, "sharing-conflict")
    code, refused = ctl("attach", *alone)
    assert (code, refused["error"]["code"]) == (1, "sharing-conflict")


def test_what_somebody_else_attached_is_imported_and_goes(
    ctl: Any, files: list[str], world: World, tmp_path: Path
) -> None:
    ctl("attach", "-f", files[0])
    becomes_anothers(world, 1, ONE, f"ua-{VOLUMES[0]}")
    file = tmp_path / "import.json"
    file.write_text(f"[{Path(files[0]).read_text()}]")
    code, looked = ctl("import", str(file))
    assert (code, looked["entries"][0]["state"]) == (0, "importable")
    assert ctl("list")[1]["attachments"] == []
    code, done = ctl("import", str(file), "--apply")
    assert (code, done["entries"][0]["state"]) == (0, "imported")
    assert ctl("import", str(file), "--apply")[1]["entries"][0]["state"] == "already"
    assert ctl("show", "att-1")[1]["attachment"]["operation_id"] is None
    assert ctl("audit")[0] == 0
    code, gone = ctl("detach", "att-1")
    assert (code, gone["result"]["disconnected"]) == (0, True)
