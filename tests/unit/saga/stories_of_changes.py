"""Stories of verbs that change what is attached and attach nothing; the rest is in stories.py."""

from typing import Any

from agent.guest.xml import parse
from agent.model.disk import IoTune
from tests.unit.saga.stories import (
    CANCELLED,
    DONE,
    LUKS,
    ONE,
    SHARED,
    TWO,
    UNDONE,
    abandon,
    away,
    back,
    because,
    connected,
    destroy,
    guest_is,
    host,
    lose_half,
    luks,
    meanwhile,
    plugged,
    reset,
    shared,
    start,
    then,
    undefine,
    untouched,
    warned,
)
from tests.unit.saga.stories_of_several import connected_for, two_guests, volumes
from tests.world.storage import PAYLOAD_OFFSET_BYTES
from tests.world.story import (
    TARGET,
    VOLUMES,
    Act,
    Story,
    Together,
    attach,
    attached,
    attachment,
    cancel,
    detach,
    extend,
    request_id,
    set_iotune,
)
from tests.world.world import World

GIB = 1 << 30


def grown(size_bytes: int, number: int = 1) -> Act:
    """By the storage side."""

    def change(world: World) -> None:
        world.storage.luns[TARGET, number].size_bytes = size_bytes

    return change


def lags(world: World) -> None:
    world.storage.lags = True


def catches_up(world: World) -> None:
    world.storage.lags = False


def sizes(request: int, *guests: int | None, errors: tuple[str | None, ...] | None = None) -> Act:
    """What the answer says of each attachment's guest, and what these see."""

    def check(world: World) -> None:
        rows = world.record(request_id(request)).result
        assert isinstance(rows, list)
        assert [row["guest_size_bytes"] for row in rows] == list(guests)
        codes = tuple(row["error"] and row["error"]["code"] for row in rows)
        assert codes == (errors or (None,) * len(guests))
        for row in rows:
            guest = world.domains.guests.get(row["instance_id"])
            if row["guest_size_bytes"] is not None and guest and guest.live:
                assert row["guest_size_bytes"] in guest.sizes.values()

    return check


def kept(size_bytes: int) -> Act:
    """Whoever has volume 1 has it with this size from now on."""

    def check(world: World) -> None:
        rows = world.journal.read(lambda book: book.attachments(volume_id=VOLUMES[0]))
        assert rows
        for row in rows:
            assert row.device is not None
            assert (row.device.size_bytes, row.attachment.size_bytes) == (size_bytes,) * 2

    return check


def sees(size_bytes: int, instance: str = ONE) -> Act:
    def check(world: World) -> None:
        assert size_bytes in world.domains.guests[instance].sizes.values()

    return check


def occupied(instance: str) -> Act:
    def change(world: World) -> None:
        world.domains.guests[instance].job = "migration"

    return change


def reader_and_writer(world: World) -> None:
    two_guests(world)
    attached(world, 1, access_mode="ro", **SHARED)
    attached(world, 2, instance=2, **SHARED)


def attached_with(**different: Any) -> Act:
    def begin(world: World) -> None:
        attached(world, **different)

    return begin


def free(instance: str) -> Act:
    def change(world: World) -> None:
        world.domains.guests[instance].job = None

    return change


EXTENDS = (
    Story(
        "extend for one guest",
        then(plugged(), grown(2 * GIB)),
        (extend(1, 2 * GIB),),
        (DONE,),
        then(sizes(1, 2 * GIB), kept(2 * GIB)),
    ),
    Story(
        "extend for two guests",
        then(shared, grown(2 * GIB)),
        (extend(1, 2 * GIB),),
        (DONE,),
        then(sizes(1, 2 * GIB, 2 * GIB), kept(2 * GIB), sees(2 * GIB, TWO)),
    ),
    Story(
        "extend for a guest that is shut off, which then starts",
        then(plugged(), destroy, grown(2 * GIB)),
        (extend(1, 2 * GIB), start),
        (DONE,),
        then(sizes(1, None), sees(2 * GIB), kept(2 * GIB)),
        is_timed=True,
    ),
    Story(
        "extend to what the volume has",
        plugged(),
        (extend(1, GIB),),
        (DONE,),
        then(sizes(1, GIB), kept(GIB)),
    ),
    Story(
        "extend twice, the second time to the same",
        then(plugged(), grown(2 * GIB)),
        (extend(1, 2 * GIB), extend(2, 2 * GIB)),
        (DONE, DONE),
        then(sizes(2, 2 * GIB), kept(2 * GIB)),
    ),
    Story(
        "extend twice at once, and once to less",
        then(plugged(), grown(3 * GIB)),
        (Together((extend(1, 2 * GIB), extend(2, 3 * GIB))), extend(3, GIB, refused="invalid")),
        (DONE, DONE),
        then(sizes(2, 3 * GIB), sees(3 * GIB)),
    ),
    Story(
        "extend with a path that lags, and again when it has caught up",
        then(shared, grown(2 * GIB), lags),
        (extend(1, 2 * GIB), catches_up, extend(2, 2 * GIB)),
        (UNDONE, DONE),
        then(because(1, "not-all-paths"), sizes(2, 2 * GIB, 2 * GIB)),
        is_timed=True,
    ),
    Story(
        "extend that the storage side has not made",
        plugged(),
        (extend(1, 2 * GIB),),
        (UNDONE,),
        then(because(1, "connect-failed"), sees(GIB)),
    ),
    Story(
        "extend while one of two guests migrates, and again after it",
        then(shared, grown(2 * GIB), occupied(TWO)),
        (extend(1, 2 * GIB), free(TWO), extend(2, 2 * GIB)),
        (DONE, DONE),
        then(
            sizes(1, 2 * GIB, None, errors=(None, "busy")),
            warned(1, "attachment att-2: grow-disk: "),
            sizes(2, 2 * GIB, 2 * GIB),
        ),
        is_timed=True,
    ),
    Story(
        "extend of what one guest reads only",
        then(reader_and_writer, grown(2 * GIB)),
        (extend(1, 2 * GIB),),
        (DONE,),
        then(sizes(1, None, 2 * GIB, errors=("unsupported", None)), kept(2 * GIB)),
    ),
    Story(
        "extend for a guest that somebody took the disk from",
        then(plugged(), lose_half("live"), grown(2 * GIB)),
        (extend(1, 2 * GIB),),
        (DONE,),
        then(sizes(1, None, errors=("wrong-device",)), kept(2 * GIB)),
    ),
    Story(
        "extend for a domain that has gone",
        then(plugged(), undefine, grown(2 * GIB)),
        (extend(1, 2 * GIB),),
        (DONE,),
        then(sizes(1, None), kept(2 * GIB)),
    ),
    Story(
        "extend for a guest that stops before it is told",
        then(plugged(), grown(2 * GIB), meanwhile("before resize", destroy)),
        (extend(1, 2 * GIB),),
        (DONE,),
        kept(2 * GIB),
    ),
    Story(
        "extend of an encrypted volume",
        then(luks(), attached_with(**LUKS), grown(2 * GIB)),
        (extend(1, 2 * GIB),),
        (DONE,),
        then(sizes(1, 2 * GIB - PAYLOAD_OFFSET_BYTES), kept(2 * GIB)),
    ),
    Story(
        "extend of a volume that was connected for a domain to come",
        then(volumes, connected_for, grown(2 * GIB)),
        (extend(1, 2 * GIB),),
        (DONE,),
        then(sizes(1, None), kept(2 * GIB)),
    ),
    Story(
        "extend by a new way to the volume",
        then(plugged(), grown(2 * GIB)),
        (extend(1, 2 * GIB, connection_info=attachment(1)["connection_info"]),),
        (DONE,),
        kept(2 * GIB),
    ),
    Story(
        "extend of what is not here",
        host(),
        (extend(1, 2 * GIB, refused="unknown-attachment"),),
        (),
        untouched,
    ),
    Story(
        "extend while libvirt is away",
        then(shared, grown(2 * GIB)),
        (away, extend(1, 2 * GIB), back),
        (DONE,),
        sizes(1, 2 * GIB, 2 * GIB),
    ),
    Story(
        "extend is cancelled in time",
        then(plugged(), grown(2 * GIB)),
        (away, extend(1, 2 * GIB), cancel(1), back),
        (CANCELLED,),
        sees(GIB),
        is_timed=True,
    ),
    Story(
        "extend is abandoned",
        then(plugged(), grown(2 * GIB)),
        (away, extend(1, 2 * GIB), abandon(1), back, extend(2, 2 * GIB)),
        (UNDONE, DONE),
        then(sizes(2, 2 * GIB), kept(2 * GIB)),
        is_timed=True,
    ),
    Story(
        "attach and extend at once",
        then(host(), grown(2 * GIB)),
        (Together((attach(1), extend(2, 2 * GIB))),),
        (DONE, DONE),
        then(sees(2 * GIB), kept(2 * GIB)),
    ),
    Story(
        "extend and detach at once",
        then(shared, grown(2 * GIB)),
        (Together((extend(1, 2 * GIB), detach(2))),),
        (DONE, DONE),
        then(sees(2 * GIB, TWO), kept(2 * GIB)),
    ),
    Story(
        "extend while one guest does not let go",
        then(shared, guest_is("stubborn"), grown(2 * GIB)),
        (detach(1), extend(2, 2 * GIB), reset),
        (DONE, DONE),
        then(sizes(2, 2 * GIB), sees(2 * GIB, TWO)),
        is_timed=True,
    ),
    Story(
        "extend while the last guest is to let go",
        then(plugged(), guest_is("stubborn"), grown(2 * GIB)),
        (detach(1), extend(2, 2 * GIB, refused="busy"), reset),
        (DONE,),
        connected(),
        is_timed=True,
    ),
    Story(
        "attach of the volume is refused while it is extended",
        then(two_guests, attached_with(**SHARED), grown(2 * GIB)),
        (
            away,
            extend(1, 2 * GIB),
            attach(2, 2, instance=2, refused="busy", **SHARED),
            back,
            attach(3, 2, instance=2, **SHARED),
        ),
        (DONE, DONE),
        then(sees(2 * GIB), sees(2 * GIB, TWO)),
        is_timed=True,
    ),
)

SLOW = {"total_iops_sec": 100, "read_bytes_sec": 1_000_000}
SLOWER = {"write_iops_sec": 50}


def limits(request: int, **wanted: int) -> Act:
    """What the answer says, and what whoever plugs the disk anew will give it; no other limit."""

    def check(world: World) -> None:
        found = world.record(request_id(request)).result
        assert isinstance(found, dict)
        assert {name: value for name, value in found.items() if value} == {
            **wanted,
            **({"group_name": "ua-att-1"} if wanted else {}),
        }
        assert IoTune(**wanted).not_in(found) == []

    return check


def limited(*halves: str, **wanted: int) -> Act:
    """These halves of the guest have just these limits, and so has the row."""

    def check(world: World) -> None:
        for half in halves:
            assert IoTune(**wanted).not_in(shown(world, half)) == []
        row = world.journal.read(lambda book: book.attachment("att-1"))
        assert row is not None
        assert row.attachment.disk.iotune == IoTune(**wanted)

    return check


def shown(world: World, half: str) -> dict[str, int | str]:
    """In the XML of one half; asks no port."""
    found = parse(getattr(world.domains.guests[ONE], half)).iterfind("devices/disk/iotune/*")
    texts = {str(limit.tag): limit.text or "" for limit in found}
    return {name: int(text) if text.isdecimal() else text for name, text in texts.items()}


def not_limited(world: World) -> None:
    assert (shown(world, "live"), shown(world, "inactive")) == ({}, {})


BOTH_HALVES = ("live", "inactive")

LIMITS = (
    Story(
        "limits of a running guest",
        plugged(),
        (set_iotune(1, SLOW),),
        (DONE,),
        then(limits(1, **SLOW), limited(*BOTH_HALVES, **SLOW)),
    ),
    Story(
        "limits of a transient guest",
        plugged(is_persistent=False),
        (set_iotune(1, SLOW),),
        (DONE,),
        then(limits(1, **SLOW), limited("live", **SLOW)),
    ),
    Story(
        "limits of a guest that is shut off, which then starts",
        then(plugged(), destroy),
        (set_iotune(1, SLOW), start),
        (DONE,),
        limited(*BOTH_HALVES, **SLOW),
        is_timed=True,
    ),
    Story(
        "limits are replaced, and taken away",
        then(host(), attached_with(disk={"iotune": SLOW})),
        (set_iotune(1, SLOWER), set_iotune(2, {})),
        (DONE, DONE),
        then(limits(1, **SLOWER), limits(2), limited(*BOTH_HALVES)),
    ),
    Story(
        "limits twice at once",
        plugged(),
        (Together((set_iotune(1, SLOW), set_iotune(2, SLOWER))),),
        (DONE, DONE),
        limited(*BOTH_HALVES, **SLOWER),
    ),
    Story(
        "limits for a guest that is started meanwhile",
        then(plugged(), destroy, meanwhile("before define limits", start)),
        (set_iotune(1, SLOW),),
        (DONE,),
        limited(*BOTH_HALVES, **SLOW),
    ),
    Story(
        "limits for a guest that stops meanwhile",
        then(plugged(), meanwhile("before limit", destroy)),
        (set_iotune(1, SLOW),),
        (DONE,),
        limited("inactive", **SLOW),
    ),
    Story(
        "limits for a disk that somebody took away",
        then(plugged(), lose_half("live")),
        (set_iotune(1, SLOW),),
        (UNDONE,),
        because(1, "wrong-device"),
    ),
    Story(
        "limits for a disk that only runs",
        then(plugged(), lose_half("inactive")),
        (set_iotune(1, SLOW),),
        (DONE,),
        limited("live", **SLOW),
    ),
    Story(
        "limits for a domain that has gone",
        then(plugged(), undefine),
        (set_iotune(1, SLOW),),
        (UNDONE,),
        because(1, "unknown-instance"),
    ),
    Story(
        "limits for a guest that migrates",
        then(plugged(), occupied(ONE)),
        (set_iotune(1, SLOW),),
        (UNDONE,),
        because(1, "busy"),
    ),
    Story(
        "limits while libvirt is away",
        plugged(),
        (away, set_iotune(1, SLOW), back),
        (DONE,),
        limited(*BOTH_HALVES, **SLOW),
    ),
    Story(
        "limits are cancelled in time",
        plugged(),
        (away, set_iotune(1, SLOW), cancel(1), back),
        (CANCELLED,),
        not_limited,
        is_timed=True,
    ),
    Story(
        "limits and detach at once",
        plugged(),
        (Together((set_iotune(1, SLOW), detach(2))),),
        (DONE, DONE),
        connected(),
    ),
    Story(
        "limits of what is not here",
        host(),
        (set_iotune(1, SLOW, refused="unknown-attachment"),),
        (),
        untouched,
    ),
    Story(
        "limits while the guest is to let go",
        then(plugged(), guest_is("stubborn")),
        (detach(1), set_iotune(2, SLOW, refused="busy"), reset),
        (DONE,),
        connected(),
        is_timed=True,
    ),
)

CHANGES = (*EXTENDS, *LIMITS)
