"""Stories of verbs that take several attachments; the rest of the table is in stories.py."""

from typing import Any

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
    destroy,
    device_stays,
    foreign_disk,
    guest_is,
    host,
    lose_half,
    meanwhile,
    plug_refused,
    plugged,
    reset,
    result,
    start,
    still_plugged,
    then,
    undefine,
    untouched,
)
from tests.world.story import (
    VOLUMES,
    Act,
    Story,
    Together,
    attach,
    attach_batch,
    attached,
    attachment,
    cancel,
    connect_instance,
    detach,
    disconnect_instance,
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


def is_undoing(world: World) -> None:
    """At once, unless a call failed."""
    while (record := world.record(request_id(1))).open and record.direction != "undoing":
        assert world.pass_time()


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
        (attach_batch(1, *BOTH), is_undoing, abandon(1)),
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

ROOT = {**SHARED, "disk": {"boot_order": 1}}


def connected_for(world: World, number: int = 1, **different: Any) -> None:
    """As an earlier connect_instance has left it."""
    instance = different.get("instance", 1)
    ask = connect_instance(900 + number, attachment(number, **different), instance=instance)
    ask(world)
    world.run()
    assert world.record(request_id(900 + number)).state == "done"


def volumes(world: World) -> None:
    volume(world, 1)
    volume(world, 2)


def boots(world: World) -> None:
    """Its domain is defined from what the first operation has answered, and started."""
    result = world.record(request_id(901)).result
    assert isinstance(result, list)
    world.domains.add(ONE, runs=False)
    for row in result:
        world.domains.define(ONE, row["disk_xml"])
    world.domains.start(ONE)


def handed_over(request: int, *attachments: str) -> Act:
    """Each with its device and the XML that names it."""

    def check(world: World) -> None:
        found = world.record(request_id(request)).result
        assert isinstance(found, list)
        assert [row["attachment_id"] for row in found] == list(attachments)
        for row in found:
            assert row["device"]["path"] in row["disk_xml"]
            assert f"ua-{row['attachment_id']}" in row["disk_xml"]
        assert len({row["disk"]["target_dev"] for row in found}) == len(found)

    return check


def gave_back(request: int, **disconnected: bool) -> Act:
    """{attachment, with _ for -: was it the last user?}"""

    def check(world: World) -> None:
        found = world.record(request_id(request)).result
        assert isinstance(found, list)
        given = {row["attachment_id"].replace("-", "_"): row["disconnected"] for row in found}
        assert given == disconnected

    return check


CONNECTS = (
    Story(
        "connect an instance that has no domain yet",
        volumes,
        (connect_instance(1, attachment(1, disk={"boot_order": 1}), attachment(2, volume=2)),),
        (DONE,),
        then(connected(*VOLUMES[:2]), handed_over(1, "att-1", "att-2")),
    ),
    Story(
        "connect of two instances that boot from one volume at once",
        volumes,
        (
            Together(
                (
                    connect_instance(1, attachment(1, **ROOT)),
                    connect_instance(2, attachment(2, instance=2, **ROOT), instance=2),
                )
            ),
        ),
        (DONE, DONE),
        then(connected(VOLUMES[0]), handed_over(1, "att-1"), handed_over(2, "att-2")),
    ),
    Story(
        "connect again, as after a boot of the host",
        then(volumes, connected_for),
        (connect_instance(1, attachment(1)),),
        (DONE,),
        then(connected(VOLUMES[0]), lambda world: _equal(world.storage.connects, 1)),
    ),
    Story(
        "connect again what the guest runs with",
        then(volumes, connected_for, boots),
        (connect_instance(1, attachment(1)),),
        (DONE,),
        still_plugged,
    ),
    Story(
        "connect of which the second volume is missing",
        lambda world: volume(world, 1),
        (connect_instance(1, attachment(1), attachment(2, volume=2)),),
        (UNDONE,),
        then(because(1, "lun-missing"), connected()),
    ),
    Story(
        "connect of which the second is another device",
        volumes,
        (
            connect_instance(
                1,
                attachment(1),
                attachment(2, volume=2, identity={"wwn": "600140500000000000000000000000ff"}),
            ),
        ),
        (UNDONE,),
        then(because(1, "wrong-device"), quarantined(VOLUMES[1]), connected(VOLUMES[1])),
    ),
    Story(
        "connect what somebody else uses",
        then(two_guests, foreign_disk),
        (connect_instance(1, attachment(1)),),
        (UNDONE,),
        because(1, "sharing-conflict"),
    ),
    Story(
        "connect is undone, and a second instance keeps what it shares",
        then(
            lambda world: volume(world, 1),
            lambda world: connected_for(world, 7, instance=2, **SHARED),
        ),
        (connect_instance(1, attachment(1, **SHARED), attachment(2, volume=2)),),
        (UNDONE,),
        connected(VOLUMES[0]),
    ),
    Story(
        "connect of nothing, and its end",
        volumes,
        (connect_instance(1), disconnect_instance(2)),
        (DONE, DONE),
        then(connected(), gave_back(2)),
    ),
    Story(
        "what was connected is a user when another guest leaves",
        then(two_guests, lambda world: attached(world, 2, instance=2, **SHARED)),
        (connect_instance(1, attachment(1, **SHARED)), detach(2, 2, instance=2)),
        (DONE, DONE),
        then(connected(VOLUMES[0]), result(2, disconnected=False)),
        is_timed=True,
    ),
    Story(
        "what was connected is detached from its running guest",
        then(volumes, connected_for, boots),
        (detach(1),),
        (DONE,),
        then(connected(), result(1, disconnected=True)),
    ),
    Story(
        "what was connected is detached, and no domain ever came",
        then(volumes, connected_for),
        (detach(1),),
        (DONE,),
        then(connected(), result(1, disconnected=True, instance_present=False)),
    ),
    Story(
        "what was connected is attached to the domain that came",
        then(volumes, connected_for, lambda world: world.domains.add(ONE)),
        (attach(1),),
        (DONE,),
        connected(VOLUMES[0]),
    ),
)

DISCONNECTS = (
    Story(
        "disconnect all of an instance that went",
        then(volumes, connected_for, lambda world: connected_for(world, 2, volume=2)),
        (disconnect_instance(1),),
        (DONE,),
        then(connected(), gave_back(1, att_1=True, att_2=True)),
    ),
    Story(
        "disconnect one of two",
        then(volumes, connected_for, lambda world: connected_for(world, 2, volume=2)),
        (disconnect_instance(1, 2),),
        (DONE,),
        then(connected(VOLUMES[0]), gave_back(1, att_2=True)),
    ),
    Story(
        "disconnect one of two instances, and the other",
        then(
            volumes,
            lambda world: connected_for(world, 1, **SHARED),
            lambda world: connected_for(world, 2, instance=2, **SHARED),
        ),
        (disconnect_instance(1), disconnect_instance(2, instance=2)),
        (DONE, DONE),
        then(connected(), gave_back(1, att_1=False), gave_back(2, att_2=True)),
        is_timed=True,
    ),
    Story(
        "disconnect both instances at once",
        then(
            volumes,
            lambda world: connected_for(world, 1, **SHARED),
            lambda world: connected_for(world, 2, instance=2, **SHARED),
        ),
        (Together((disconnect_instance(1), disconnect_instance(2, instance=2))),),
        (DONE, DONE),
        connected(),
    ),
    Story(
        "disconnect a running guest",
        then(volumes, connected_for, boots),
        (disconnect_instance(1),),
        (UNDONE,),
        then(because(1, "busy"), still_plugged, never_asked),
    ),
    Story(
        "disconnect an instance that is shut off, and still defined with its disks",
        then(volumes, connected_for, boots, destroy),
        (disconnect_instance(1),),
        (DONE,),
        then(connected(), gave_back(1, att_1=True)),
    ),
    Story(
        "disconnect an instance that is started meanwhile",
        then(volumes, connected_for, boots, destroy, meanwhile("before forget", start)),
        (disconnect_instance(1),),
        (DONE,),
        connected(),
    ),
    Story(
        "disconnect what was attached, of an instance that went",
        then(plugged(), undefine),
        (disconnect_instance(1, 1),),
        (DONE,),
        then(connected(), gave_back(1, att_1=True)),
    ),
    Story(
        "disconnect with a device that stays",
        then(
            volumes,
            connected_for,
            lambda world: connected_for(world, 2, volume=2),
            device_stays,
        ),
        (disconnect_instance(1), let_pass(30)),
        (DONE,),
        connected(),
    ),
    Story(
        "disconnect again, and what was never here",
        then(volumes, connected_for),
        (
            disconnect_instance(1, 1),
            disconnect_instance(2, 1),
            disconnect_instance(3, 1, 5, refused="unknown-attachment"),
        ),
        (DONE, DONE),
        then(connected(), gave_back(2, att_1=True)),
        is_timed=True,
    ),
    Story(
        "connect and disconnect at once",
        volumes,
        (
            Together(
                (
                    connect_instance(1, attachment(1), attachment(2, volume=2)),
                    disconnect_instance(2),
                )
            ),
        ),
        (DONE, DONE),
        connected(),
    ),
    Story(
        "disconnect is cancelled in time",
        then(volumes, connected_for),
        (away, disconnect_instance(1), cancel(1)),
        (CANCELLED,),
        connected(VOLUMES[0]),
        is_timed=True,
    ),
)

SEVERAL = (*BATCHES, *CONNECTS, *DISCONNECTS)


def _equal(found: object, wanted: object) -> None:
    assert found == wanted
