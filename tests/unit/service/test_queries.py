"""What the control topic answers, and what it does not."""

from collections.abc import Callable
from typing import Any

import pytest

from agent.journal.book import Book
from agent.model.contract import QUESTIONS
from agent.model.request import WaitRequest
from tests.unit.saga.stories import ONE, TWO
from tests.unit.saga.stories_of_networks import no_initiator
from tests.world.story import VOLUMES, attach, attached, attachment, moment, request_id
from tests.world.world import World


def test_a_verb_that_nobody_knows_is_unsupported_and_nothing_is_kept(world: World) -> None:
    request = {"request_id": request_id(1), "not_after": moment(60)}
    answer = world.agent.command("read_mind", {"request": request}, addressed=True)
    assert (answer["state"], answer["error"]["code"]) == ("refused", "unsupported")
    assert answer["operation_id"] == request_id(1)
    assert world.records() == []
    planned = world.agent.query("plan", {"verb": "read_mind", "request": request})
    assert planned["error"]["code"] == "unsupported"


def test_a_question_that_nobody_knows_is_unsupported(world: World) -> None:
    assert world.agent.query("read_minds", {})["error"]["code"] == "unsupported"


@pytest.mark.parametrize("name", QUESTIONS)
def test_a_question_that_is_here_has_an_answer(world: World, name: str) -> None:
    """Or refuses the arguments that it was not given."""
    answer = world.agent.query(name, {})
    assert answer.get("error", {"code": "invalid"})["code"] == "invalid"


@pytest.mark.parametrize("wanted", [5, ["sim"], {"name": "sim"}])
def test_a_host_that_is_no_text_is_invalid(world: World, wanted: object) -> None:
    ask = attach(1, envelope={"host": wanted})
    assert ask.send(world)["error"]["code"] == "invalid"


def test_a_host_of_any_length_is_not_shown_whole(world: World) -> None:
    error = attach(1, envelope={"host": "h" * 10_000}).send(world)["error"]
    assert error["code"] == "wrong-host"
    assert len(error["detail"]) < 200


@pytest.mark.parametrize("not_after", [moment(60).replace("T", "t").replace("Z", "z")])
def test_a_time_may_be_written_in_small_letters(world: World, not_after: str) -> None:
    assert attach(1, envelope={"not_after": not_after}).send(world)["state"] == "accepted"


@pytest.mark.parametrize("seconds", ["1", True, None, [1]])
def test_a_timeout_is_a_number(world: World, seconds: object) -> None:
    answer = world.agent.wait({"operation_id": request_id(1), "timeout_seconds": seconds})
    assert answer["error"]["code"] == "invalid"
    assert WaitRequest.parse({"operation_id": request_id(1), "timeout_seconds": 1})


def test_a_wrong_field_is_named_as_it_was_sent(world: World) -> None:
    wrong = attachment()
    wrong["connection_info"]["data"]["target_lun"] = "1"
    error = attach(1, connection_info=wrong["connection_info"]).send(world)["error"]
    assert error["detail"].startswith("attachment.connection_info.data.target_lun: ")
    del wrong["connection_info"]["data"]["target_iqn"]
    error = attach(1, connection_info={"driver_volume_type": "local", "data": {}}).send(world)[
        "error"
    ]
    assert error["detail"].startswith("attachment.connection_info.data.device_path: ")


@pytest.mark.parametrize(
    "connection_info", [None, "x", {"driver_volume_type": "quobyte", "data": {}}]
)
def test_a_wrong_object_is_named_without_the_form_that_was_tried(
    world: World, connection_info: object
) -> None:
    error = attach(1, connection_info=connection_info).send(world)["error"]
    assert error["detail"].startswith("attachment.connection_info: ")


def test_an_instance_has_a_connector_of_its_own_where_qemu_can(world: World) -> None:
    host = world.agent.query("get_connector", {})["connector"]
    own = world.agent.query("get_connector", {"instance_id": ONE})["connector"]
    name = f"iqn.2008-11.org.linux-kvm:{ONE}"
    assert own == {**host, "initiator": name, "multipath": False}
    assert host["initiator"] != name, "the host's own was changed"
    no_initiator(world)
    refusal = world.agent.query("get_connector", {"instance_id": ONE})["error"]
    assert refusal["code"] == "unsupported"
    assert "qemu-block-extra" in refusal["detail"]
    assert world.agent.query("get_connector", {})["connector"] == host


def test_an_instance_that_is_not_here_has_every_field(world: World) -> None:
    assert world.agent.query("get_instance", {"instance_id": TWO}) == {
        "instance_id": TWO,
        "present": False,
        "name": None,
        "state": None,
        "persistent": None,
        "job": None,
        "disks": [],
    }


def test_an_instance_shows_its_disks_whoever_plugged_them(world: World) -> None:
    attached(world)
    for by_hand in (
        "<disk device='cdrom'><target dev='sda' bus='scsi'/></disk>",
        "<disk><source dev='/dev/x'/><target dev='vdx'/><alias name='ua-root'/></disk>",
    ):
        world.domains.define(ONE, by_hand)
    disks = world.agent.query("get_instance", {"instance_id": ONE})["disks"]
    assert [
        (disk["target_dev"], disk["alias"], disk["attachment_id"], disk["live"], disk["persistent"])
        for disk in disks
    ] == [
        ("sda", None, None, False, True),
        ("vda", "ua-att-1", "att-1", True, True),
        ("vdx", "ua-root", None, False, True),
    ]


def attachment_ids(world: World) -> list[str | None]:
    disks = world.agent.query("get_instance", {"instance_id": ONE})["disks"]
    return [disk["attachment_id"] for disk in disks]


def test_a_disk_is_ours_while_it_is_being_attached(world: World) -> None:
    attach(1).send(world)
    plugged = "<disk><source dev='/dev/x'/><target dev='vdx'/><alias name='ua-att-1'/></disk>"
    world.domains.define(ONE, plugged)
    assert attachment_ids(world) == ["att-1"]


def test_a_disk_that_only_the_domain_remembers_is_ours(world: World) -> None:
    attached(world)
    world.journal.write(lambda book: book.drop("att-1"))
    assert attachment_ids(world) == ["att-1"]


def test_attachments_are_found_by_what_is_listed(world: World) -> None:
    attached(world, multiattach=True, generation=3)
    attached(world, 2, volume=2, access_mode="ro")

    def listed(**filters: object) -> list[str]:
        answer = world.agent.query("list_attachments", {"filters": filters})
        return [row["attachment_id"] for row in answer["attachments"]]

    assert listed(multiattach=True) == ["att-1"]
    assert listed(generation=3, volume_id=VOLUMES[0]) == ["att-1"]
    assert listed(access_mode="ro") == ["att-2"]
    assert listed(driver_volume_type="iscsi") == ["att-1", "att-2"]
    row = world.agent.query("list_attachments", {})["attachments"][0]
    for name, value in row.items():
        if isinstance(value, str | int | bool):
            assert "att-1" in listed(**{name: value}), name
    assert world.agent.query("list_attachments", {"filters": {"colour": 1}})["error"]


def test_operations_are_listed_by_the_page(world: World) -> None:
    for number in range(1, 5):
        attach(number, number, volume=number).send(world)

    def listed(**how: object) -> list[str]:
        rows = world.agent.query("list_operations", how)["operations"]
        return [row["operation_id"] for row in rows]

    everything = [request_id(number) for number in range(1, 5)]
    assert listed() == everything
    assert listed(limit=3) == everything[1:]
    assert listed(limit=3, before=everything[1]) == everything[:1]
    unknown = world.agent.query("list_operations", {"before": request_id(9)})
    assert unknown["error"]["code"] == "unknown-operation"


@pytest.mark.parametrize(
    ("how", "found", "reads"),
    [
        ({}, [1, 2, 3, 4, 5], 3),
        ({"limit": 2}, [4, 5], 1),
        ({"limit": 3, "before": request_id(5)}, [2, 3, 4], 3),
        ({"limit": 9, "before": request_id(5)}, [1, 2, 3, 4], 4),
        ({"filters": {"state": "accepted"}, "limit": 2}, [4, 5], 1),
        ({"filters": {"state": "done"}}, [1, 2], 2),
        ({"filters": {"state": "done"}, "limit": 1, "before": request_id(4)}, [2], 2),
    ],
)
def test_a_long_history_keeps_nobody_else_from_the_journal(
    world: World,
    monkeypatch: pytest.MonkeyPatch,
    how: dict[str, Any],
    found: list[int],
    reads: int,
) -> None:
    """It is read a few operations at a time, and no more of it than is wanted."""
    for number in range(1, 6):
        attach(number, number, volume=number).send(world)
        if number == 2:
            world.run()
    monkeypatch.setattr("agent.service.queries.OPERATIONS_AT_ONCE", 2)
    read, pages = world.journal.read, []

    def counted(question: Callable[[Book], Any]) -> Any:
        pages.append(read(question))
        return pages[-1]

    monkeypatch.setattr(world.journal, "read", counted)
    rows = world.agent.query("list_operations", how)["operations"]
    assert [row["operation_id"] for row in rows] == [request_id(number) for number in found]
    assert len(pages) == reads
    assert all(len(page) <= 2 for page in pages if isinstance(page, list))


def test_a_quarantined_device_is_shown_by_what_it_is_known_by(world: World) -> None:
    attach(1, identity={"wwn": "6001405000000000000000ff"})(world)
    world.run()
    [row] = world.agent.query("list_quarantine", {})["quarantine"]
    assert row["volume_id"] == VOLUMES[0]
    assert set(row["device"]) == {"path", "identity", "size_bytes"}
    assert row["at"].endswith("Z")
