"""Stories of live migration: this host is where the instance goes, and the other is far."""

from typing import Any

from lxml import etree

from agent.model.migration import Journey, MigrationOptions
from tests.unit.saga.stories import (
    CANCELLED,
    DONE,
    ONE,
    SHARED,
    TWO,
    UNDONE,
    away,
    because,
    connected,
    device_stays,
    foreign_disk,
    result,
    then,
    untouched,
)
from tests.unit.saga.stories_of_several import two_guests, volumes
from tests.world.story import (
    VOLUMES,
    Story,
    Together,
    attach,
    attached,
    attachment,
    cancel,
    cancel_migration,
    detach,
    let_pass,
    prepare_migration,
    request_id,
    volume,
)
from tests.world.world import HERE_URI, World

ONE_OF_THEM, BOTH = (attachment(1),), (attachment(1), attachment(2, volume=2))

HOUR = 3600.0


def prepared(world: World, *attachments: dict[str, Any], **different: Any) -> None:
    """As an earlier prepare_migration has left it."""
    ask = prepare_migration(900, *(attachments or ONE_OF_THEM), **different)
    ask(world)
    world.run()
    assert world.record(request_id(900)).state == "done"


def parts_of(world: World, request: int = 900) -> dict[str, str]:
    found = world.record(request_id(request)).result
    assert isinstance(found, dict)
    return dict(found["parts"])


def comes(world: World) -> None:
    """The guest runs far away, and its libvirt sends it here, with what was prepared."""
    guest = world.far.domains.add(ONE)
    live, persistent = (_with_disks(xml, parts_of(world)) for xml in (guest.live, guest.inactive))
    journey = Journey(HERE_URI, None, str(live), persistent, MigrationOptions())
    world.far.migrations.start(ONE, journey)


def _with_disks(xml: str | None, parts: dict[str, str]) -> str:
    assert xml is not None
    domain = etree.fromstring(xml)
    devices = domain.find("devices")
    assert devices is not None
    for number, (replaced, part) in enumerate(sorted(parts.items())):
        disk = etree.fromstring(part)
        etree.SubElement(disk, "target", dev=f"vd{'abc'[number]}", bus="virtio")
        etree.SubElement(disk, "serial").text = VOLUMES[int(replaced[-1]) - 1]
        etree.SubElement(disk, "alias", name=f"ua-{replaced}")
        devices.append(disk)
    return etree.tostring(domain, encoding="unicode")


def stalls(world: World) -> None:
    world.road.pace = "stalls"


def goes(world: World) -> None:
    world.road.pace = "goes"


def goes_there(world: World) -> None:
    """Far away something goes on that may bring the guest here yet."""
    world.far.domains.add(ONE).job = "migration"


def stays_there(world: World) -> None:
    world.far.domains.guests[ONE].job = None


def is_silent(world: World) -> None:
    world.far.is_silent = True


def is_leased(world: World) -> None:
    assert world.leased()


def nothing_is_leased(world: World) -> None:
    assert world.leased() == []


def looks(world: World) -> None:
    world.look_at_leases()


def expires(world: World) -> None:
    let_pass(HOUR + 60)(world)


def ended_by_itself(world: World) -> None:
    verbs = {record.verb: record.state for record in world.records()}
    assert verbs["cancel_migration"] == "done"


PREPARES: tuple[Story, ...] = (
    Story(
        "prepare one volume",
        volumes,
        (prepare_migration(1, *ONE_OF_THEM),),
        (DONE,),
        then(connected(VOLUMES[0]), is_leased),
    ),
    Story(
        "prepare two volumes, and again",
        volumes,
        (prepare_migration(1, *BOTH), prepare_migration(2, *BOTH)),
        (DONE, DONE),
        then(connected(*VOLUMES[:2]), is_leased),
    ),
    Story(
        "prepare what is another device",
        volumes,
        (
            prepare_migration(
                1, attachment(1, identity={"wwn": "600140500000000000000000000000ff"})
            ),
        ),
        (UNDONE,),
        then(because(1, "wrong-device"), nothing_is_leased),
    ),
    Story(
        "prepare of which the second volume is missing",
        lambda world: volume(world, 1),
        (prepare_migration(1, *BOTH),),
        (UNDONE,),
        then(because(1, "lun-missing"), connected(), nothing_is_leased),
    ),
    Story(
        "prepare for an instance that is here",
        then(volumes, lambda world: world.domains.add(ONE)),
        (prepare_migration(1, *ONE_OF_THEM),),
        (UNDONE,),
        then(because(1, "busy"), untouched),
    ),
    Story(
        "prepare what somebody else uses",
        then(two_guests, foreign_disk, lambda world: world.domains.undefine(ONE)),
        (prepare_migration(1, *ONE_OF_THEM),),
        (UNDONE,),
        because(1, "sharing-conflict"),
    ),
    Story(
        "another guest detaches what is prepared",
        then(
            volumes,
            lambda world: world.domains.add(TWO),
            lambda world: attached(world, 2, instance=2, **SHARED),
        ),
        (prepare_migration(1, attachment(1, **SHARED)), detach(2, 2, instance=2)),
        (DONE, DONE),
        then(connected(VOLUMES[0]), is_leased, result(2, disconnected=False)),
        is_timed=True,
    ),
    Story(
        "a prepare is cancelled as an operation",
        volumes,
        (away, prepare_migration(1, *BOTH), cancel(1)),
        (CANCELLED,),
        then(connected(), nothing_is_leased),
        is_timed=True,
    ),
)

CANCELS: tuple[Story, ...] = (
    Story(
        "cancel what was prepared",
        then(volumes, lambda world: prepared(world, *BOTH)),
        (cancel_migration(1), cancel_migration(2)),
        (DONE, DONE),
        then(connected(), nothing_is_leased),
    ),
    Story(
        "cancel while it is prepared",
        volumes,
        (Together((prepare_migration(1, *BOTH), cancel_migration(2))),),
        (DONE | CANCELLED, DONE),
        then(connected(), nothing_is_leased),
        is_timed=True,
    ),
    Story(
        "cancel a migration that was never heard of, and prepare it later",
        volumes,
        (cancel_migration(1), prepare_migration(2, *ONE_OF_THEM, refused="stale")),
        (DONE,),
        then(connected(), nothing_is_leased, untouched),
    ),
    Story(
        "cancel with a device that stays",
        then(volumes, lambda world: prepared(world, *BOTH), device_stays),
        (cancel_migration(1), let_pass(30)),
        (DONE,),
        then(connected(), nothing_is_leased),
    ),
    Story(
        "cancel what another guest uses",
        then(
            volumes,
            lambda world: world.domains.add(TWO),
            lambda world: prepared(world, attachment(1, **SHARED)),
        ),
        (attach(1, 2, instance=2, **SHARED), cancel_migration(2)),
        (DONE, DONE),
        then(connected(VOLUMES[0]), nothing_is_leased),
        is_timed=True,
    ),
    Story(
        "cancel while it comes waits, and it fails over there",
        then(volumes, prepared, comes, stalls),
        (cancel_migration(1), lambda world: world.far.migrations.abort(ONE)),
        (DONE,),
        then(connected(), nothing_is_leased),
        is_timed=True,
    ),
    Story(
        "cancel what has come",
        then(volumes, prepared, comes),
        (cancel_migration(1),),
        (UNDONE,),
        then(because(1, "too-late"), connected(VOLUMES[0])),
    ),
)

LEASES: tuple[Story, ...] = (
    Story(
        "a lease ends and nobody came",
        then(volumes, lambda world: prepared(world, *BOTH)),
        (expires,),
        (),
        then(connected(), nothing_is_leased, ended_by_itself),
    ),
    Story(
        "a lease ends while it goes there, and then it does not",
        then(volumes, prepared, goes_there),
        (expires, is_leased, stays_there, let_pass(60)),
        (),
        then(connected(), nothing_is_leased, ended_by_itself),
    ),
    Story(
        "a lease ends and the other agent is silent",
        then(volumes, prepared, is_silent),
        (expires, is_leased),
        (),
        connected(VOLUMES[0]),
    ),
    Story(
        "a lease is renewed",
        then(volumes, prepared),
        (let_pass(HOUR - 10), prepare_migration(1, *ONE_OF_THEM), let_pass(60)),
        (DONE,),
        then(connected(VOLUMES[0]), is_leased),
        is_timed=True,
    ),
)

MOVING = (*PREPARES, *CANCELS, *LEASES)
