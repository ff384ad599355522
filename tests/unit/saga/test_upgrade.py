"""What an older agent has left open is settled by this one: from every schema of the journal, and
where the plan of a verb had other steps.

``tests/unit/journal/schemas`` holds journals as older agents wrote them; what is lost and kept of
them is in tests/unit/journal/test_schema.py.
"""

import json
import random
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any

import pytest

from agent.guest.disk_xml import disk_xml
from agent.guest.domain_xml import parse_domain
from agent.guest.placement import Place
from agent.journal import schema
from agent.journal.record import Record
from agent.journal.store import FILE_NAME
from agent.model.device import Device
from agent.operations import VERBS
from agent.service.begin import refuse_unknown_verbs
from tests.samples import INSTANCES, VOLUMES, attachment
from tests.unit.journal.rows import operation_id
from tests.unit.journal.test_schema import SCHEMAS
from tests.unit.saga.stories import STORIES, guest_is, plugged, then
from tests.unit.saga.stories_of_changes import CHANGES
from tests.unit.saga.stories_of_moving import MOVING
from tests.unit.saga.stories_of_several import SEVERAL
from tests.unit.saga.stories_of_swaps import SWAPS
from tests.world.storage import HostDevice, Lun
from tests.world.story import Story, Telling, check_host, detach, request_id
from tests.world.sweep import Drawn, Sweep, some
from tests.world.world import World

OLDER = range(1, len(schema.MIGRATIONS))

DRAWN = Drawn(few=6, many=24)
"""So many states of each story."""


def of_older(number: int) -> World:
    """A host as the agent of that schema has left it: attachment 1 in place, 3 being attached, the
    attach of 4 not undone, the detach of 5 accepted."""
    world = World()
    written = (SCHEMAS / f"{number}.sql").read_text()
    for spelling in ('"wwn":"', '"wwn": "'):  # as the simulation spells it
        written = written.replace(f"{spelling}0x", spelling)
    with closing(sqlite3.connect(world.directory / FILE_NAME)) as db:
        db.executescript(written)
    for volume in (1, 3, 4):
        place = f"iqn.2026-01.example:{volume}", volume
        world.storage.luns[place] = Lun(VOLUMES[volume], size_bytes=1 << 20)
        world.storage.devices[place] = HostDevice(
            place, VOLUMES[volume], f"{volume}", 1 << 20, False, f"/dev/sd{'abcdef'[volume]}"
        )
        world.storage.sessions.add(place[0])
    for instance in (1, 3, 4, 5):
        world.domains.add(INSTANCES[instance])
    known = attachment(instance_id=INSTANCES[1], volume_id=VOLUMES[1], multiattach=True)
    device = Device(path="/dev/disk/by-id/wwn-0x1", identity={"wwn": "1"}, size_bytes=1 << 20)
    for put in (world.domains.plug, world.domains.define):
        put(INSTANCES[1], disk_xml(known, device, Place("vdb", {})))
    return world


@pytest.fixture(params=OLDER)
def older(request: pytest.FixtureRequest) -> Iterator[World]:
    world = of_older(request.param)
    yield world
    world.close()


@pytest.mark.parametrize("end", ["cancelled", "done"])
def test_what_is_open_in_an_older_journal_is_settled(older: World, end: str) -> None:
    """Somebody had asked for attachment 3 to be cancelled, or had not."""
    with closing(sqlite3.connect(older.directory / FILE_NAME)) as db, db:
        db.execute("UPDATE operations SET cancel_wanted = ?", (end == "cancelled",))
    older.start()
    older.run()
    while older.journal.read(lambda book: book.count_open()) and older.pass_time():
        pass
    states = {record.operation_id: record.state for record in older.records()}
    assert states == {
        operation_id(1): "done",
        operation_id(3): end,
        operation_id(4): "undone",
        operation_id(5): "cancelled" if end == "cancelled" else "done",
    }
    check_host(older)
    guest = older.domains.guests[INSTANCES[3]]
    for half in (guest.live, guest.inactive):
        found = parse_domain(half or "").disk_by_alias("ua-att-3")
        assert (found is not None) == (end == "done")
    older.agent.command(*request(detach(1), "att-1", INSTANCES[1], 1), addressed=True)
    older.run()
    assert older.record(request_id(1)).state == "done"


def request(ask: Any, attachment_id: str, instance_id: str, generation: int) -> Any:
    fields = {"attachment_id": attachment_id, "instance_id": instance_id, "generation": generation}
    return ask.verb, {"request": {**ask.request, **fields}}


# an older plan


Change = Callable[[dict[str, Any], int], None]


def without_step(body: dict[str, Any], number: int) -> None:
    """As an agent had written it that did not have this step yet."""
    del body["steps"][number]
    if body["subjects"]:
        del body["subjects"][number]
    body["position"] -= body["position"] > number
    body["commit"] -= body["commit"] > number
    body["intended"] -= body["intended"] >= number
    if "undo_from" in body["known"]:
        body["known"]["undo_from"] -= body["known"]["undo_from"] >= number


def with_step(body: dict[str, Any], number: int) -> None:
    """As an agent had written it that had one more, which is there no longer."""
    body["steps"].insert(number, "look-twice")
    body["subjects"].insert(number, None)
    body["position"] += body["position"] > number
    body["commit"] += body["commit"] >= number
    body["intended"] += body["intended"] >= number
    if "undo_from" in body["known"]:
        body["known"]["undo_from"] += body["known"]["undo_from"] >= number


def rewrite(world: World, change: Change, draw: random.Random) -> None:
    """Every open operation, in a place that is drawn; the commit stays."""
    with closing(sqlite3.connect(world.directory / FILE_NAME)) as db, db:
        rows = db.execute("SELECT operation_id, body FROM operations WHERE open = 1").fetchall()
        for known, text in rows:
            body = json.loads(text)
            places = [n for n in range(len(body["steps"])) if n != body["commit"]]
            if places:
                change(body, draw.choice(places))
            db.execute(
                "UPDATE operations SET body = ? WHERE operation_id = ?", (json.dumps(body), known)
            )


def one_of_each_verb() -> list[Story]:
    told: dict[str, Story] = {}
    for story in STORIES + CHANGES + SEVERAL + SWAPS + MOVING:
        if len(story.asks) == 1 and story.ends in (({"done"},), ({"undone"},)):
            verb, ends = story.asks[0].verb, min(story.ends[0])
            told.setdefault(f"{verb} {ends}", story)
    return list(told.values())


@pytest.mark.parametrize("story", one_of_each_verb(), ids=str)
@pytest.mark.parametrize("change", [without_step, with_step])
def test_an_operation_of_an_older_plan_is_settled(
    story: Story, change: Change, rounds: int, draw: random.Random
) -> None:
    forks = Sweep(story).first_deaths()
    for fork in some(forks, DRAWN, rounds, draw):
        telling = fork.go_on()
        rewrite(telling.world, change, draw)
        telling.finish()


def test_every_verb_is_told_of() -> None:
    told = {ask.verb for story in one_of_each_verb() for ask in story.asks}
    assert told == set(VERBS)


def test_what_the_guest_was_asked_for_cannot_be_taken_back_by_an_upgrade() -> None:
    """An older detach began with the unplug itself: its first step is now another one's place."""
    story = Story(
        "detach from a guest that does not let go",
        then(plugged(), guest_is("stubborn")),
        (detach(1),),
        (frozenset({"done"}),),
    )
    world = Telling.begin(story).world
    world.start()
    story.asks[0](world)
    world.run()
    assert world.record(request_id(1)).state == "waiting"
    world.die()
    rewrite(world, without_step, _First())
    world.start()
    asked = {"operation_id": request_id(1)}
    assert world.agent.query("cancel_operation", asked)["error"]["code"] == "too-late"
    world.run()
    world.grant_everything()
    while world.record(request_id(1)).open and world.pass_time():
        pass
    assert world.record(request_id(1)).state == "done"
    check_host(world)
    world.close()


class _First(random.Random):
    def choice(self, seq: Any) -> Any:
        return seq[0]


def test_an_operation_of_a_newer_agent_is_no_matter_of_this_one(world: World) -> None:
    refuse_unknown_verbs(world.journal)
    newer = Record(
        operation_id=operation_id(1),
        verb="teleport",
        digest="",
        instance_id=INSTANCES[0],
        parts=(),
        steps=("fold-space",),
        commit=0,
        created_at=1.0,
        not_after=9e9,
    )
    world.journal.write(lambda book: book.add(newer))
    with pytest.raises(ValueError, match=r"teleport .* install the newer agent again"):
        refuse_unknown_verbs(world.journal)
