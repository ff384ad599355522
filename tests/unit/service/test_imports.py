"""What somebody else has attached is taken over as it is; what does not fit is refused alone."""

import copy
from collections.abc import Callable
from typing import Any

import pytest
from lxml import etree

from agent.model.imports import minted_id
from tests.unit.saga.stories import ONE, SHARED, TWO, lose_journal, luks, point_elsewhere
from tests.unit.saga.stories_of_changes import occupied
from tests.unit.saga.stories_of_imports import THEIRS, anothers, as_anothers, asked, entry
from tests.world.story import VOLUMES, attach, attached, detach
from tests.world.world import World

Change = Callable[[World], Any]


def one(world: World, *, dry_run: bool = False, **different: Any) -> dict[str, Any]:
    [row] = asked(world, entry(**different), dry_run=dry_run)
    return row


def refusal(world: World, **different: Any) -> dict[str, Any]:
    """The same by a dry run; nothing is kept of it, and nothing touched."""
    before = world.outline()
    row = one(world, **different)
    assert row["state"] == "refused", row
    assert one(world, dry_run=True, **different) == row
    assert world.outline() == before
    assert listed(world) == []
    error: dict[str, Any] = row["error"]
    return error


def listed(world: World) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = world.agent.query("list_attachments", {})["attachments"]
    return rows


def findings(world: World) -> list[str]:
    return [finding["kind"] for finding in world.agent.query("audit", {})["findings"]]


@pytest.mark.parametrize("alias", [None, ""], ids=["with an alias", "by hand"])
def test_it_is_taken_over_as_it_is(world: World, alias: str | None) -> None:
    attached(world, disk={"target_dev": "vdd", "cache": "writeback"})
    lose_journal(world)
    anothers(2, volume=2, alias=alias, disk={"target_dev": "vdc", "cache": "writeback"})(world)
    before = world.outline()
    row = one(world, number=2, volume=2)
    assert (row["state"], row["error"]) == ("imported", None)
    assert world.outline() == before, "neither guest nor storage is touched"
    assert (row["disk"]["target_dev"], row["disk"]["serial"]) == ("vdc", VOLUMES[1])
    assert row["disk"]["live"]
    assert row["disk"]["persistent"]
    [held] = listed(world)
    assert (held["attachment_id"], held["operation_id"]) == ("att-2", None)
    assert held["device"] == row["device"]
    assert findings(world) == ["unknown-disk"], "the other disk is nobody's"


def test_a_dry_run_says_the_same_and_keeps_nothing(world: World) -> None:
    anothers()(world)
    dry, wet = one(world, dry_run=True), one(world)
    assert dry == {**wet, "state": "importable"}
    assert findings(world) == []


def test_a_dry_run_is_what_is_done_by_default(world: World) -> None:
    anothers()(world)
    answer = world.agent.query("import_attachments", {"entries": [entry()]})
    assert answer["dry_run"]
    assert listed(world) == []


def test_asked_again_it_is_there_already(world: World) -> None:
    anothers()(world)
    row = one(world)
    kept = listed(world)
    assert one(world) == {**row, "state": "already"}
    assert listed(world) == kept


def test_what_the_agent_attached_itself_is_there_already(world: World) -> None:
    attached(world)
    row = one(world)
    assert (row["state"], row["disk"]["alias"]) == ("already", "ua-att-1")


def test_without_an_id_it_gets_the_same_each_time(world: World) -> None:
    anothers()(world)
    without = entry()
    del without["attachment"]["attachment_id"]
    before = copy.deepcopy(without)
    first, again = (asked(world, without)[0] for _ in range(2))
    wanted = minted_id(ONE, VOLUMES[0])
    assert (first["attachment_id"], first["state"]) == (wanted, "imported")
    assert (again["attachment_id"], again["state"]) == (wanted, "already")
    assert without == before
    world.agent.command(*request(detach(1), attachment_id=wanted), addressed=True)
    world.run()
    assert listed(world) == []


def request(ask: Any, **different: Any) -> tuple[str, dict[str, Any]]:
    return ask.verb, {"request": {**ask.request, **different}}


def test_one_that_is_wrong_harms_no_other(world: World) -> None:
    anothers()(world)
    entries = [
        entry(3, volume=2),
        {"attachment": {"volume_id": 5, "instance_id": ONE}},
        {"colour": "blue"},
        entry(),
        entry(4, instance=2),
    ]
    rows = asked(world, *entries)
    assert [row["state"] for row in rows] == [*["refused"] * 3, "imported", "refused"]
    codes = [row["error"] and row["error"]["code"] for row in rows]
    assert codes == ["lun-missing", "invalid", "invalid", None, "unknown-instance"]
    assert [row["attachment_id"] for row in rows] == ["att-3", None, None, "att-1", "att-4"]


def test_a_generation_that_is_given_fences(world: World) -> None:
    anothers()(world)
    assert one(world, generation=4)["state"] == "imported"
    detach(1, refused="stale", generation=3)(world)
    detach(2, generation=4)(world)
    world.run()
    attached(world, 2)
    world.journal.write(lambda book: book.drop("att-2"))
    guest = world.domains.guests[ONE]
    guest.live = as_anothers(guest.live or "", "ua-att-2", THEIRS)
    guest.inactive = as_anothers(guest.inactive or "", "ua-att-2", THEIRS)
    assert refusal(world, generation=4)["code"] == "stale"


def other_alias(world: World) -> None:
    """In the definition alone."""
    guest = world.domains.guests[ONE]
    guest.inactive = (guest.inactive or "").replace(THEIRS, "ua-other")


def on_another_bus(world: World) -> None:
    guest = world.domains.guests[ONE]
    for half in ("live", "inactive"):
        setattr(guest, half, getattr(guest, half).replace('bus="virtio"', 'bus="sata"'))


def shareable(world: World) -> None:
    guest = world.domains.guests[ONE]
    for half in ("live", "inactive"):
        domain = etree.fromstring(getattr(guest, half))
        etree.SubElement(domain.find("devices/disk"), "shareable")
        setattr(guest, half, etree.tostring(domain, encoding="unicode"))


def with_serial(serial: str) -> Change:
    def change(world: World) -> None:
        guest = world.domains.guests[ONE]
        for half in ("live", "inactive"):
            setattr(guest, half, getattr(guest, half).replace(VOLUMES[0], serial))

    return change


def away(world: World) -> None:
    world.domains.is_away = True


@pytest.mark.parametrize(
    ("change", "different", "code", "says"),
    [
        (point_elsewhere("live"), {}, "wrong-device", "source is /dev/disk/by-id/wwn-old"),
        (point_elsewhere("inactive"), {}, "wrong-device", "in the definition"),
        (other_alias, {}, "wrong-device", "as ua-"),
        (on_another_bus, {}, "unsupported", "bus sata"),
        (shareable, {}, "wrong-device", "shareable is True, not False"),
        (None, SHARED, "wrong-device", "shareable is False, not True"),
        (None, {"access_mode": "ro"}, "wrong-device", "readonly is False, not True"),
        (None, {"disk": {"cache": "writethrough"}}, "wrong-device", "cache is none"),
        (None, {"identity": {"wwn": "6001405ffffffff"}}, "wrong-device", "wwn is"),
        (None, {"size_bytes": 4096}, "wrong-device", "size is"),
        (with_serial("their-own"), {}, "wrong-device", "serial their-own"),
        (None, {"volume": 2}, "lun-missing", "not on this host"),
        (None, {"instance": 3}, "unknown-instance", "no domain"),
        (occupied(ONE), {}, "busy", "migration"),
        (away, {}, "internal", "it is away"),
    ],
)
def test_what_does_not_fit_is_refused(
    world: World, change: Change | None, different: dict[str, Any], code: str, says: str
) -> None:
    anothers()(world)
    if change is not None:
        change(world)
    error = refusal(world, **different)
    assert error["code"] == code
    assert says in error["detail"]


def test_no_disk_of_the_guest_is_the_volume(world: World) -> None:
    world.domains.add(TWO)
    anothers(2, instance=2)(world)
    error = refusal(world)
    assert error["code"] == "wrong-device"
    assert "no disk of domain" in error["detail"]


def test_a_serial_of_their_own_may_be_given(world: World) -> None:
    anothers()(world)
    with_serial("their-own")(world)
    assert one(world, serial="their-own")["state"] == "imported"
    assert findings(world) == []
    detach(1)(world)
    world.run()
    assert world.domains.guests[ONE].live is not None
    assert "their-own" not in world.domains.guests[ONE].live


def test_a_disk_whose_secret_is_theirs_stays_theirs(world: World) -> None:
    luks()(world)
    assert refusal(world)["code"] in ("unsupported", "lun-missing")


def test_an_exclusive_volume_of_two_guests_is_nobodys(world: World) -> None:
    world.domains.add(TWO)
    anothers(1, **SHARED)(world)
    anothers(2, instance=2, **SHARED)(world)
    assert one(world, **SHARED)["state"] == "imported"
    assert asked(world, entry(2, instance=2, **SHARED))[0]["state"] == "imported"
    assert sorted(row["attachment_id"] for row in listed(world)) == ["att-1", "att-2"]


def test_the_domains_note_is_believed(world: World) -> None:
    """Of an agent that has lost its journal: under another id nobody would find the disk."""
    attached(world)
    lose_journal(world)
    error = asked(world, entry(5))[0]["error"]
    assert (error["code"], "is attachment att-1" in error["detail"]) == ("invalid", True)
    assert one(world)["state"] == "imported"


def test_while_an_operation_on_it_is_open_it_is_busy(world: World) -> None:
    world.domains.guests[ONE].attitude = "stubborn"
    anothers(alias="ua-att-1")(world)
    attachment = entry()["attachment"]
    detach(1, attachment=attachment)(world)
    world.run()
    assert one(world)["error"]["code"] == "busy"


def test_what_is_detached_while_it_is_looked_at_is_not_taken_over(world: World) -> None:
    """It would be an attachment that is gone, whose volume is connected again and again."""
    anothers(alias="ua-att-1")(world)
    attachment = entry()["attachment"]

    def detach_it(world: World) -> None:
        detach(1, attachment=attachment)(world)
        world.run()

    world.meanwhile["after all"] = detach_it
    error = one(world)["error"]
    assert (error["code"], error["retriable"]) == ("busy", True)
    assert listed(world) == []
    assert world.storage.devices == {}


def test_nor_what_has_left_by_a_detach_that_was_open_before(world: World) -> None:
    anothers(alias="ua-att-1")(world)
    detach(1, attachment=entry()["attachment"]).send(world)
    world.meanwhile["after all"] = World.run
    assert one(world)["error"]["code"] == "busy"
    assert listed(world) == []


def test_by_hand_and_attached_again_the_guest_has_it_already(world: World) -> None:
    """And where somebody has taken it out by hand, it comes with an alias of its own."""
    anothers(alias="")(world)
    one(world)
    attach(1)(world)
    world.run()
    record = world.record("00000000-0000-4000-9000-000000000001")
    assert (record.state, record.cause and record.cause.code) == ("undone", "sharing-conflict")
    [row] = listed(world)
    mark = f"{row['disk']['target_dev']} {VOLUMES[0]}"
    world.domains.unplug(ONE, mark)
    world.domains.forget(ONE, mark)
    world.domains.let_guests_act()
    attach(2)(world)
    world.run()
    assert world.record("00000000-0000-4000-9000-000000000002").state == "done"
    assert [row["disk"]["alias"] for row in listed(world)] == ["ua-att-1"]
    assert findings(world) == []


def test_attached_again_it_stays_what_it_is(world: World) -> None:
    anothers()(world)
    one(world)
    attach(1)(world)
    world.run()
    record = world.record("00000000-0000-4000-9000-000000000001")
    assert record.state == "done"
    assert [row["disk"]["alias"] for row in listed(world)] == [THEIRS]
    assert findings(world) == []
