"""Stories of live migration: this host is where the instance goes, and the other is far."""

from typing import Any

from lxml import etree

from agent.guest.domain_xml import parse_domain
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
    meanwhile,
    result,
    then,
    untouched,
)
from tests.unit.saga.stories_of_several import two_guests, volumes
from tests.world.story import (
    VOLUMES,
    Act,
    Story,
    Together,
    attach,
    attached,
    attachment,
    cancel,
    cancel_migration,
    detach,
    let_pass,
    migrate,
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


def comes(world: World, *, without: str | None = None, bus: str = "virtio") -> None:
    """The guest runs far away, and its libvirt sends it here, with what was prepared."""
    guest = world.far.domains.add(ONE)
    parts = {name: part for name, part in parts_of(world).items() if name != without}
    live, persistent = (_with_disks(xml, parts, bus) for xml in (guest.live, guest.inactive))
    journey = Journey(HERE_URI, None, str(live), persistent, MigrationOptions())
    world.far.migrations.start(ONE, journey)


def _with_disks(xml: str | None, parts: dict[str, str], bus: str) -> str:
    assert xml is not None
    domain = etree.fromstring(xml)
    devices = domain.find("devices")
    assert devices is not None
    for number, (replaced, part) in enumerate(sorted(parts.items())):
        disk = etree.fromstring(part)
        for driver in disk.iterfind("driver"):
            driver.set("type", "raw")
        target_dev = f"{'vd' if bus == 'virtio' else 'sd'}{'abc'[number]}"
        etree.SubElement(disk, "target", dev=target_dev, bus=bus)
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


def gives_up(world: World) -> None:
    """The migration has failed there."""
    world.far.given_up = frozenset({"mig-1"})


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
        (cancel_migration(1, refused="too-late"),),
        (),
        then(connected(VOLUMES[0]), nothing_is_leased),
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
        "a migration is given up where it comes from",
        then(volumes, lambda world: prepared(world, *BOTH)),
        (gives_up, let_pass(30)),
        (),
        then(connected(), nothing_is_leased, ended_by_itself),
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


# this host is where the instance is


def leaves(*numbers: int, **different: Any) -> Act:
    """The guest has volumes of these numbers, which are prepared far away."""

    def begin(world: World) -> None:
        two_guests(world)
        for number in numbers:
            attached(world, number, volume=number, **different)
            world.far.leased[f"att-{number}"] = "mig-1"

    return begin


def is_here(world: World) -> None:
    """Exactly there, and as it was."""
    guest = world.domains.guests[ONE]
    assert (guest.live is not None, guest.is_paused, guest.job) == (True, False, None)
    assert ONE not in world.far.domains.guests


def is_there(world: World) -> None:
    guest = world.far.domains.guests[ONE]
    assert (guest.live is not None, guest.is_paused, guest.job) == (True, False, None)
    assert ONE not in world.domains.guests


def holds(world: World) -> None:
    """Somebody has paused the guest."""
    guest = world.domains.guests[ONE]
    guest.is_paused = guest.is_held = True


def is_held(*, there: bool) -> Act:
    """Exactly there or here."""

    def check(world: World) -> None:
        found = (world.far.domains.guests.get(ONE), world.domains.guests.get(ONE))
        guest, other = found if there else found[::-1]
        assert guest is not None
        assert (guest.is_paused, guest.is_held, guest.job) == (True, True, None)
        assert other is None

    return check


def never_went(world: World) -> None:
    is_here(world)
    assert not world.road.arrived


def has_far_disks(*numbers: int) -> Act:
    """In both halves, with what the guest sees as it was."""

    def check(world: World) -> None:
        guest = world.far.domains.guests[ONE]
        for half in (guest.live, guest.inactive):
            assert half is not None
            facts = parse_domain(half)
            for number in numbers:
                disk = facts.disk_by_alias(f"ua-att-{number}")
                assert disk is not None
                assert disk.source == f"/dev/disk/by-id/far-{number}"
                assert disk.serial == VOLUMES[number - 1]

    return check


def cut(world: World) -> None:
    world.road.is_cut = True


def mend(world: World) -> None:
    world.road.is_cut = False


def gives_up_fetching(world: World) -> None:
    """QEMU has lost the other one as well."""
    for trip in world.road.trips.values():
        trip.is_lost = trip.phase == "postcopy-failed"


def post_copies(world: World) -> None:
    """Somebody lets it run over there now, if it goes at all."""
    trip = world.road.trips.get(ONE)
    if trip is not None and trip.phase == "precopy":
        world.road.switch(ONE)


def far_is_away(world: World) -> None:
    world.far.domains.is_away = True


def is_occupied(world: World) -> None:
    world.domains.guests[ONE].job = "snapshot"


def has_a_file_of_its_own(world: World) -> None:
    guest = world.domains.guests[ONE]
    disk = "<disk type='file'><source file='/local/root.img'/><target dev='vdz'/></disk>"
    assert guest.live is not None
    guest.live = guest.live.replace("</devices>", f"{disk}</devices>")


def is_there_already(world: World) -> None:
    world.far.domains.add(ONE)


def is_too_old(world: World) -> None:
    world.far.verbs = frozenset({"attach"})


def is_older(world: World) -> None:
    world.far.domains.libvirt = (8, 0, 0)


def nothing_is_prepared(world: World) -> None:
    world.far.leased = {}


def lacks_device(world: World) -> None:
    world.far.lacks = frozenset({"/dev/disk/by-id/far-1"})


MIGRATES: tuple[Story, ...] = (
    Story(
        "migrate with two volumes",
        leaves(1, 2),
        (migrate(1, 1, 2),),
        (DONE,),
        then(connected(), is_there, has_far_disks(1, 2)),
    ),
    Story(
        "migrate without a volume",
        two_guests,
        (migrate(1),),
        (DONE,),
        then(connected(), is_there),
    ),
    Story(
        "migrate what another guest shares",
        then(
            leaves(1, **SHARED),
            lambda world: attached(world, 3, instance=2, **SHARED),
        ),
        (migrate(1, 1),),
        (DONE,),
        then(connected(VOLUMES[0]), is_there),
    ),
    Story(
        "migrate what somebody has paused",
        then(leaves(1), holds),
        (migrate(1, 1),),
        (DONE,),
        then(connected(), is_held(there=True)),
    ),
    Story(
        "migrate what somebody has paused over a road that is cut while it is copied",
        then(leaves(1), holds, stalls),
        (migrate(1, 1), cut, let_pass(60), mend),
        (UNDONE,),
        then(because(1, "migration-failed"), connected(VOLUMES[0]), is_held(there=False)),
        is_timed=True,
    ),
    Story(
        "migrate with a device that stays",
        then(leaves(1), device_stays),
        (migrate(1, 1), let_pass(30)),
        (DONE,),
        then(connected(), is_there),
    ),
    Story(
        "migrate in post-copy",
        then(leaves(1), stalls),
        (migrate(1, 1, options={"post_copy": True}), post_copies, goes, let_pass(30)),
        (DONE,),
        then(connected(), is_there),
        is_timed=True,
    ),
    Story(
        "migrate in post-copy over a road that is cut for a time",
        then(leaves(1), stalls),
        (
            migrate(1, 1, options={"post_copy": True}),
            post_copies,
            cut,
            let_pass(30),
            mend,
            goes,
            let_pass(30),
        ),
        (DONE,),
        then(connected(), is_there),
        is_timed=True,
    ),
    Story(
        "migrate in post-copy over a road that is cut until QEMU gives up",
        then(leaves(1), stalls),
        (
            migrate(1, 1, options={"post_copy": True}),
            post_copies,
            cut,
            let_pass(30),
            gives_up_fetching,
            mend,
            let_pass(30),
            goes,
            let_pass(30),
        ),
        (DONE,),
        then(connected(), is_there),
        is_timed=True,
    ),
    Story(
        "migrate what takes too long",
        then(leaves(1), stalls),
        (migrate(1, 1, options={"completion_timeout_seconds": 60}), let_pass(120)),
        (UNDONE,),
        then(because(1, "migration-failed"), connected(VOLUMES[0]), never_went),
        is_timed=True,
    ),
    Story(
        "migrate what makes no progress, paused in the end",
        then(leaves(1), stalls),
        (
            migrate(1, 1, options={"no_progress_timeout_seconds": 60, "on_timeout": "pause"}),
            let_pass(120),
            goes,
            let_pass(30),
        ),
        (DONE,),
        then(connected(), is_there),
        is_timed=True,
    ),
    Story(
        "migrate what takes too long, in post-copy in the end",
        then(leaves(1), stalls),
        (
            migrate(
                1,
                1,
                options={
                    "completion_timeout_seconds": 60,
                    "post_copy": True,
                    "on_timeout": "post_copy",
                },
            ),
            let_pass(120),
            goes,
            let_pass(30),
        ),
        (DONE,),
        then(connected(), is_there),
        is_timed=True,
    ),
    Story(
        "migrate over a road that is cut while it is copied",
        then(leaves(1), stalls),
        (migrate(1, 1), cut, let_pass(60), mend),
        (UNDONE,),
        then(because(1, "migration-failed"), connected(VOLUMES[0]), never_went),
        is_timed=True,
    ),
    Story(
        "migrate, and nobody over there says that it has come",
        then(leaves(1), meanwhile("after start-migration", is_silent)),
        (migrate(1, 1), let_pass(120)),
        (DONE,),
        then(connected(), is_there),
        is_timed=True,
    ),
    Story(
        "migrate to a host that lacks the device",
        then(leaves(1), lacks_device),
        (migrate(1, 1),),
        (UNDONE,),
        then(because(1, "migration-failed"), connected(VOLUMES[0]), never_went),
    ),
    *(
        Story(
            f"migrate, refused: {is_so.__name__}",
            then(leaves(1), is_so),
            (migrate(1, 1),),
            (UNDONE,),
            then(because(1, code), connected(VOLUMES[0])),
        )
        for is_so, code in (
            (is_occupied, "busy"),
            (has_a_file_of_its_own, "unsupported"),
            (is_there_already, "busy"),
            (is_too_old, "unsupported"),
            (is_older, "unsupported"),
            (is_silent, "migration-failed"),
            (nothing_is_prepared, "migration-failed"),
        )
    ),
)

CALLS_BACK: tuple[Story, ...] = (
    Story(
        "cancel a migration while it is copied",
        then(leaves(1), stalls),
        (migrate(1, 1), cancel_migration(2), cancel_migration(3)),
        (CANCELLED, DONE, DONE),
        then(connected(VOLUMES[0]), never_went),
        is_timed=True,
    ),
    Story(
        "cancel the operation while it is copied",
        then(leaves(1), stalls),
        (migrate(1, 1), cancel(1), let_pass(10)),
        (CANCELLED,),
        then(connected(VOLUMES[0]), never_went),
        is_timed=True,
    ),
    Story(
        "cancel what has gone",
        leaves(1),
        (migrate(1, 1), cancel_migration(2, refused="too-late")),
        (DONE,),
        then(connected(), is_there),
    ),
    Story(
        "cancel a migration in post-copy",
        then(leaves(1), stalls),
        (
            migrate(1, 1, options={"post_copy": True}),
            post_copies,
            let_pass(10),
            cancel_migration(2, refused="too-late"),
            goes,
            let_pass(30),
        ),
        (DONE,),
        then(connected(), is_there),
        is_timed=True,
    ),
)

COMES: tuple[Story, ...] = (
    Story(
        "an instance comes, and its volume is detached later",
        then(volumes, prepared, comes),
        (detach(1),),
        (DONE,),
        then(connected(), nothing_is_leased),
    ),
)

MOVING = (*PREPARES, *CANCELS, *LEASES, *MIGRATES, *CALLS_BACK, *COMES)
