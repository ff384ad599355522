"""Stories of attachments that somebody else made, and that are taken over as they are."""

from collections.abc import Mapping
from typing import Any

from lxml import etree

from agent.guest.domain_xml import parse_domain
from tests.unit.saga.stories import (
    DONE,
    ONE,
    SHARED,
    TWO,
    connected,
    guest_is,
    host,
    lose_journal,
    meanwhile,
    result,
    then,
)
from tests.unit.saga.stories_of_changes import GIB, grown
from tests.unit.saga.stories_of_moving import is_there
from tests.unit.saga.stories_of_several import two_guests
from tests.world.story import (
    VOLUMES,
    Act,
    Story,
    attach,
    attached,
    attachment,
    detach,
    extend,
    let_pass,
    migrate,
    set_iotune,
    swap,
)
from tests.world.world import World


def anothers(number: int = 1, *, alias: str | None = None, **different: Any) -> Act:
    """Attachment ``number`` is as another service has made it: its alias is of the volume's id, or
    what is given ("" for none), and nothing of it is in our journal or in the domain's metadata."""

    def begin(world: World) -> None:
        attached(world, number, **different)
        wanted = attachment(number, **different)
        name = f"ua-{wanted['volume_id']}" if alias is None else alias
        becomes_anothers(world, number, wanted["instance_id"], name)

    return begin


def becomes_anothers(world: World, number: int, instance_id: str, name: str) -> None:
    lose_journal(world)
    guest = world.domains.guests[instance_id]
    guest.live = guest.live and as_anothers(guest.live, f"ua-att-{number}", name)
    guest.inactive = guest.inactive and as_anothers(guest.inactive, f"ua-att-{number}", name)


def as_anothers(xml: str, alias: str, name: str) -> str:
    domain = etree.fromstring(xml)
    for found in domain.findall(f"devices/disk/alias[@name='{alias}']"):
        found.set("name", name)
        if not name:
            found.getparent().remove(found)
    for metadata in domain.findall("metadata"):
        domain.remove(metadata)
    return etree.tostring(domain, encoding="unicode")


def entry(number: int = 1, *, serial: str | None = None, **different: Any) -> dict[str, Any]:
    given = {} if serial is None else {"serial": serial}
    return {"attachment": attachment(number, **different), **given}


def asked(world: World, *entries: Mapping[str, Any], dry_run: bool = False) -> list[dict[str, Any]]:
    answer = world.agent.query(
        "import_attachments", {"entries": [dict(one) for one in entries], "dry_run": dry_run}
    )
    assert answer["dry_run"] is dry_run
    rows: list[dict[str, Any]] = answer["entries"]
    return rows


def imports(*entries: Mapping[str, Any]) -> Act:
    """Asked until nothing is refused that may succeed later."""

    def act(world: World) -> None:
        rows = asked(world, *entries)
        for _ in range(3):
            if any(row["error"] and row["error"]["retriable"] for row in rows):
                let_pass(10)(world)
                rows = asked(world, *entries)
        assert {row["state"] for row in rows} <= {"imported", "already"}, rows

    return act


def tries_to_import(*entries: Mapping[str, Any]) -> Act:
    """While something else runs: it may be told to come again."""

    def act(world: World) -> None:
        rows = asked(world, *entries)
        assert all(row["error"] is None or row["error"]["retriable"] for row in rows), rows

    return act


def gone_from(instance: str, volume_id: str = VOLUMES[0]) -> Act:
    """Neither half has the volume any more."""

    def check(world: World) -> None:
        guest = world.domains.guests[instance]
        for half in (guest.live, guest.inactive):
            disks = parse_domain(half).disks if half else ()
            assert not [disk for disk in disks if disk.serial == volume_id]

    return check


def has_disk(instance: str, alias: str | None) -> Act:
    """With the alias that somebody else gave it, or none."""

    def check(world: World) -> None:
        guest = world.domains.guests[instance]
        for half in (guest.live, guest.inactive):
            assert half is None or [disk.alias for disk in parse_domain(half).disks] == [alias]

    return check


def held(*attachment_ids: str) -> Act:
    def check(world: World) -> None:
        rows = world.journal.read(lambda book: book.attachments())
        assert [row.attachment.attachment_id for row in rows] == list(attachment_ids)

    return check


def prepared_far_away(world: World) -> None:
    world.far.leased["att-1"] = "mig-1"


THEIRS = f"ua-{VOLUMES[0]}"


def beside_another(world: World) -> None:
    """The first guest's by another service, and a second guest on the host."""
    host()(world)
    world.domains.add(TWO)
    anothers(1, **SHARED)(world)


IMPORTS = (
    Story(
        "import",
        then(host(), anothers()),
        (imports(entry()),),
        (),
        then(held("att-1"), has_disk(ONE, THEIRS), connected(VOLUMES[0])),
    ),
    Story(
        "import, then detach",
        then(host(), anothers()),
        (imports(entry()), detach(1)),
        (DONE,),
        then(held(), gone_from(ONE), connected(), result(1, disconnected=True)),
    ),
    Story(
        "import of a disk without an alias, then detach",
        then(host(), anothers(alias="")),
        (imports(entry()), detach(1)),
        (DONE,),
        then(held(), gone_from(ONE), connected(), result(1, disconnected=True)),
    ),
    Story(
        "import, then detach from a guest that does not let go at once",
        then(host(), anothers(), guest_is("stubborn")),
        (imports(entry()), detach(1)),
        (DONE,),
        then(held(), gone_from(ONE), connected()),
    ),
    Story(
        "import for a guest that is shut off, then detach",
        then(host(runs=False), anothers()),
        (imports(entry()), detach(1)),
        (DONE,),
        then(held(), gone_from(ONE), connected()),
    ),
    Story(
        "import, then extend and set_iotune",
        then(host(), anothers(), grown(2 * GIB)),
        (imports(entry()), extend(1, 2 * GIB), set_iotune(2, {"total_iops_sec": 500})),
        (DONE, DONE),
        then(held("att-1"), has_disk(ONE, THEIRS)),
    ),
    Story(
        "import of two sharers, then detach of one",
        then(beside_another, anothers(2, instance=2, **SHARED)),
        (imports(entry(1, **SHARED), entry(2, instance=2, **SHARED)), detach(1)),
        (DONE,),
        then(held("att-2"), gone_from(ONE), has_disk(TWO, THEIRS), connected(VOLUMES[0])),
    ),
    Story(
        "import while a second guest attaches the volume",
        then(beside_another, meanwhile("before connect", tries_to_import(entry(1, **SHARED)))),
        (attach(1, 2, instance=2, **SHARED), imports(entry(1, **SHARED))),
        (DONE,),
        then(held("att-1", "att-2"), has_disk(ONE, THEIRS), connected(VOLUMES[0])),
    ),
    Story(
        "import while the only other user detaches",
        then(
            beside_another,
            lambda world: attached(world, 2, instance=2, **SHARED),
            meanwhile("before forget", tries_to_import(entry(1, **SHARED))),
        ),
        (detach(1, 2, instance=2), imports(entry(1, **SHARED))),
        (DONE,),
        then(held("att-1"), has_disk(ONE, THEIRS), connected(VOLUMES[0])),
    ),
    Story(
        "migrate with what was imported",
        then(two_guests, anothers(), imports(entry()), prepared_far_away),
        (migrate(1, 1),),
        (DONE,),
        then(held(), connected(), is_there),
    ),
    Story(
        "migrate with what was imported without an alias",
        then(two_guests, anothers(alias=""), imports(entry()), prepared_far_away),
        (migrate(1, 1),),
        (DONE,),
        then(held(), connected(), is_there),
    ),
)

IMPORTED = (
    Story(
        "detach of what was imported",
        then(host(), anothers(), imports(entry())),
        (detach(1),),
        (DONE,),
        then(held(), gone_from(ONE), connected()),
    ),
    Story(
        "detach of what was imported without an alias",
        then(host(), anothers(alias=""), imports(entry())),
        (detach(1),),
        (DONE,),
        then(held(), gone_from(ONE), connected()),
    ),
    Story(
        "set_iotune of what was imported without an alias",
        then(host(), anothers(alias=""), imports(entry())),
        (set_iotune(1, {"total_iops_sec": 500}),),
        (DONE,),
        then(held("att-1"), has_disk(ONE, None)),
    ),
    Story(
        "swap of what was imported, then detach",
        then(host(), anothers(), imports(entry())),
        (swap(1), detach(2, 2)),
        (DONE, DONE),
        then(held(), gone_from(ONE), connected()),
    ),
    Story(
        "swap of what was imported without an alias, then detach",
        then(host(), anothers(alias=""), imports(entry())),
        (swap(1), detach(2, 2)),
        (DONE, DONE),
        then(held(), gone_from(ONE), connected()),
    ),
)
"""What is in place when the story begins; power may be lost in them."""
