"""Stories of verbs that take several attachments; the rest of the table is in stories.py."""

from tests.unit.saga.stories import (
    CANCELLED,
    DONE,
    ONE,
    SHARED,
    TWO,
    UNDONE,
    abandon,
    away,
    because,
    connected,
    guest_is,
    host,
    lose_half,
    meanwhile,
    plug_refused,
    plugged,
    reset,
    still_plugged,
    then,
    untouched,
)
from tests.world.story import (
    VOLUMES,
    Act,
    Story,
    Together,
    attach_batch,
    attached,
    attachment,
    cancel,
    detach,
    let_pass,
    request_id,
    volume,
)
from tests.world.world import World

BOTH = (attachment(1), attachment(2, volume=2))

PORTS_LEFT = 5
"""Of the simulated guest: one has its SCSI controller."""


def more_volumes(world: World) -> None:
    for number in range(3, PORTS_LEFT + 2):
        volume(world, number)


def two_guests(world: World) -> None:
    host()(world)
    world.domains.add(TWO)


def refuses_second(world: World) -> None:
    world.domains.refuses = frozenset({"ua-att-2"})


def never_asked(world: World) -> None:
    """No guest was asked to give anything back, for nothing was plugged."""
    assert world.domains.guests[ONE].asked == 0


def quarantined(*volumes: str) -> Act:
    def check(world: World) -> None:
        assert set(world.journal.read(lambda book: book.quarantined())) == set(volumes)

    return check


def results(request: int, *attachments: str) -> Act:
    """In the order of the request, each with its own device and disk."""

    def check(world: World) -> None:
        found = world.record(request_id(request)).result
        assert isinstance(found, list)
        assert [row["attachment_id"] for row in found] == list(attachments)
        assert [row["disk"]["alias"] for row in found] == [f"ua-{name}" for name in attachments]
        assert len({row["device"]["path"] for row in found}) == len(attachments)

    return check


BATCHES = (
    Story(
        "batch to a running guest",
        host(),
        (attach_batch(1, *BOTH),),
        (DONE,),
        then(connected(*VOLUMES[:2]), results(1, "att-1", "att-2")),
    ),
    Story(
        "batch of one to a guest that is shut off",
        host(runs=False),
        (attach_batch(1, attachment(1, disk={"bus": "scsi"})),),
        (DONE,),
        results(1, "att-1"),
    ),
    Story(
        "batch in which the second names what the first would have been given",
        host(),
        (attach_batch(1, attachment(1), attachment(2, volume=2, disk={"target_dev": "vda"})),),
        (DONE,),
        results(1, "att-1", "att-2"),
    ),
    Story(
        "batch of which the first is in place",
        plugged(),
        (attach_batch(1, *BOTH),),
        (DONE,),
        results(1, "att-1", "att-2"),
    ),
    Story(
        "batch with the second plug refused",
        then(host(), refuses_second),
        (attach_batch(1, *BOTH),),
        (UNDONE,),
        then(because(1, "plug-refused"), connected()),
    ),
    Story(
        "batch with the second plug refused, of a guest that does not let go of the first",
        then(host(attitude="stubborn"), refuses_second),
        (attach_batch(1, *BOTH), let_pass(30), reset),
        (UNDONE,),
        then(because(1, "plug-refused"), connected()),
    ),
    Story(
        "batch with the second plug refused, and the first was in place",
        then(plugged(), plug_refused),
        (attach_batch(1, *BOTH),),
        (UNDONE,),
        then(because(1, "plug-refused"), connected(VOLUMES[0]), still_plugged, never_asked),
    ),
    Story(
        "batch with the second plug refused, and a half of the first was in place",
        then(plugged(), lose_half("inactive"), plug_refused),
        (attach_batch(1, *BOTH),),
        (UNDONE,),
        then(because(1, "plug-refused"), connected(VOLUMES[0]), never_asked),
    ),
    Story(
        "batch of which the second volume is missing",
        then(lambda world: volume(world, 1), lambda world: world.domains.add(ONE)),
        (attach_batch(1, *BOTH),),
        (UNDONE,),
        then(because(1, "lun-missing"), connected(), never_asked),
    ),
    Story(
        "batch of which the second is another device",
        host(),
        (
            attach_batch(
                1,
                attachment(1),
                attachment(2, volume=2, identity={"wwn": "600140500000000000000000000000ff"}),
            ),
        ),
        (UNDONE,),
        then(
            because(1, "wrong-device"),
            quarantined(VOLUMES[1]),
            connected(VOLUMES[1]),
            never_asked,
        ),
    ),
    Story(
        "batch for which the guest has no room",
        then(host(), more_volumes),
        (
            attach_batch(
                1, *(attachment(number, volume=number) for number in range(1, PORTS_LEFT + 2))
            ),
        ),
        (UNDONE,),
        then(because(1, "no-free-address"), untouched),
    ),
    Story(
        "batch is undone, and a second guest keeps what it shares",
        then(
            two_guests,
            lambda world: attached(world, 7, instance=2, **SHARED),
            refuses_second,
        ),
        (attach_batch(1, attachment(1, **SHARED), attachment(2, volume=2)),),
        (UNDONE,),
        connected(VOLUMES[0]),
    ),
    Story(
        "batch is cancelled between two plugs",
        then(host(), meanwhile("after plug", away)),
        (attach_batch(1, *BOTH), cancel(1)),
        (CANCELLED | DONE,),  # done, if the agent dies right after the first and goes on
        is_timed=True,
    ),
    Story(
        "batch is undone and abandoned while the guest does not let go",
        then(host(attitude="stubborn"), refuses_second),
        (attach_batch(1, *BOTH), abandon(1)),
        (UNDONE,),
        quarantined(*VOLUMES[:2]),
        is_timed=True,
    ),
    Story(
        "batch and a detach of its second at once",
        host(),
        (Together((attach_batch(1, *BOTH), detach(2, 2))),),
        (DONE, DONE),
        connected(VOLUMES[0]),
    ),
    Story(
        "batch waits for the detach of its second, of a stubborn guest",
        then(host(), lambda world: attached(world, 2, volume=2), guest_is("stubborn")),
        (Together((detach(1, 2), attach_batch(2, *BOTH))), let_pass(30), reset),
        (DONE, DONE),
        connected(*VOLUMES[:2]),
    ),
)

SEVERAL = BATCHES
