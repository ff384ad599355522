"""Stories of disks that move to another volume under their guest; the rest is in stories.py."""

from typing import Literal

from agent.guest.domain_xml import parse_domain
from agent.ports import COPY_TO_ENCRYPTED
from tests.unit.saga.stories import (
    CANCELLED,
    DONE,
    KEY,
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
    host,
    libvirtd_is_restarted,
    luks,
    meanwhile,
    plugged,
    secrets,
    start,
    then,
    undefine,
    untouched,
    warned,
)
from tests.unit.saga.stories_of_changes import GIB, attached_with
from tests.unit.saga.stories_of_several import two_guests
from tests.world.storage import PAYLOAD_OFFSET_BYTES
from tests.world.story import (
    EARLIER,
    VOLUMES,
    Act,
    Story,
    Together,
    attach,
    attached,
    cancel,
    detach,
    extend,
    let_pass,
    request_id,
    set_iotune,
    swap,
    volume,
)
from tests.world.world import World


def place(number: int = 2, **different: object) -> Act:
    """A volume to swap to."""
    return lambda world: volume(world, number, **different)


def copies_past_encryption(world: World) -> None:
    world.domains.missing = (*world.domains.missing, COPY_TO_ENCRYPTED)


def swapped(world: World) -> None:
    """What was att-1 on volume 1 is att-2 on volume 2."""
    READY(world)
    swap(EARLIER + 50)(world)
    world.run()
    assert world.record(request_id(EARLIER + 50)).state == "done"


def stalls(world: World) -> None:
    world.copies.pace = "stalls"


def goes_on(world: World) -> None:
    world.copies.pace = "goes"


def breaks(world: World) -> None:
    world.copies.breaks = True


def loses_definition(world: World) -> None:
    world.copies.loses_definition = True


def loses_track(belief: Literal["back", "pivoting"]) -> Act:
    def change(world: World) -> None:
        world.copies.loses_track = belief

    return change


def kept_from_leaving(world: World) -> None:
    """Nothing may go that QEMU has, or that libvirt would give it."""
    for guest in world.domains.guests.values():
        if guest.astray:
            assert len(world.storage.devices) == 2


def copied_by_hand(world: World) -> None:
    """Somebody's own backup of the disk."""
    world.copies.pace = "stalls"
    guest = world.domains.guests[ONE]
    assert guest.live is not None
    mirror = (
        "<mirror type='block' job='copy'><format type='raw'/><source dev='/dev/backup'>"
        f"<slices><slice type='storage' offset='0' size='{GIB}'/></slices></source></mirror>"
    )
    guest.live = guest.live.replace("</disk>", f"{mirror}</disk>")
    guest.copies["vda"] = 0


def on(number: int, instance: str = ONE, *, slice_bytes: int | None = None) -> Act:
    """Every half of the guest has volume so-and-so, by the alias and serial of the first."""

    def check(world: World) -> None:
        (device,) = [
            one for one in world.storage.devices.values() if one.volume_id == VOLUMES[number - 1]
        ]
        guest = world.domains.guests[instance]
        for xml in (guest.live, guest.inactive):
            if xml is None:
                continue
            (disk,) = parse_domain(xml).disks
            assert disk.source in device.names, f"it is at {disk.source}"
            assert (disk.alias, disk.serial) == ("ua-att-1", VOLUMES[0])
            assert disk.copies_to is None
            assert disk.slice_bytes == (slice_bytes if xml is guest.live else None)

    return check


def listed(request: int, number: int = 2) -> Act:
    """The new attachment is in place, and found by what the disk was plugged with."""

    def check(world: World) -> None:
        (row,) = world.journal.read(lambda book: book.attachments())
        assert row.attachment.attachment_id == f"att-{number}"
        assert row.disk["alias"] == row.attachment.alias == "ua-att-1"
        assert row.disk["target_dev"] == "vda"
        result = world.record(request_id(request)).result
        assert isinstance(result, dict)
        assert result["device"]["path"] == row.device.path if row.device else False

    return check


def shared_by_hand(world: World) -> None:
    """Another guest has the new volume, and would let anybody else have it."""
    guest = world.domains.guests[TWO]
    disk = (
        f"<disk type='block'><driver type='raw'/><source dev='/dev/sdx'/><serial>{VOLUMES[1]}"
        "</serial><target dev='vdx'/><shareable/></disk></devices>"
    )
    for half in ("live", "inactive"):
        setattr(guest, half, str(getattr(guest, half)).replace("</devices>", disk))


SOLE = {"sole_user": True}

LUKS_BYTES = GIB + PAYLOAD_OFFSET_BYTES
"""Behind its header there is as much as on a plain volume."""

READY = then(plugged(), place())

MOVED = then(on(2), listed(1), connected(VOLUMES[1]))

STAYED = then(on(1), connected(VOLUMES[0]))

SWAPS = (
    Story("swap", READY, (swap(1),), (DONE,), MOVED),
    Story(
        "swap of a transient domain",
        then(host(is_persistent=False), attached_with(), place()),
        (swap(1),),
        (DONE,),
        MOVED,
    ),
    Story(
        "detach after a swap, by the old id and by the new one",
        swapped,
        (detach(1, 1), detach(2, 2)),
        (DONE, DONE),
        connected(),
    ),
    Story(
        "swap back",
        swapped,
        (swap(1, 2, 3, volume=1),),
        (DONE,),
        then(on(1), connected(VOLUMES[0])),
    ),
    Story(
        "other limits and another size after a swap",
        swapped,
        (set_iotune(1, {"total_iops_sec": 9}, 2), extend(2, GIB, volume=2)),
        (DONE, DONE),
        then(on(2), connected(VOLUMES[1])),
    ),
    Story(
        "swap to a larger volume",
        then(plugged(), place(size_bytes=2 * GIB)),
        (swap(1),),
        (DONE,),
        then(on(2, slice_bytes=GIB), listed(1), warned(1, "not-grown")),
    ),
    Story(
        "swap to a volume that turns out smaller",
        then(plugged(), place(size_bytes=GIB // 2)),
        (swap(1),),
        (UNDONE,),
        then(STAYED, because(1, "connect-failed")),
    ),
    Story(
        "swap to a volume that is told to be smaller",
        READY,
        (swap(1, size_bytes=GIB // 2, refused="invalid"),),
        (),
        STAYED,
    ),
    Story(
        "swap whose copy fails",
        then(READY, breaks),
        (swap(1),),
        (UNDONE,),
        then(STAYED, because(1, "copy-failed")),
        is_timed=True,
    ),
    Story(
        "swap whose copy stands still",
        then(READY, stalls),
        (swap(1), let_pass(30)),
        (UNDONE,),
        then(STAYED, because(1, "copy-failed")),
        is_timed=True,
    ),
    Story(
        "swap is cancelled while it copies",
        then(READY, stalls),
        (swap(1), cancel(1), goes_on),
        (CANCELLED,),
        STAYED,
        is_timed=True,
    ),
    Story(
        "swap past its deadline",
        then(READY, stalls),
        (swap(1, envelope={"deadline_seconds": 8}), let_pass(15), goes_on),
        (UNDONE,),
        then(STAYED, because(1, "deadline")),
        is_timed=True,
    ),
    Story(
        "swap of a guest that is shut off",
        then(READY, destroy),
        (swap(1),),
        (UNDONE,),
        then(STAYED, because(1, "unsupported")),
    ),
    Story(
        "swap of a guest that stops while it copies",
        then(READY, stalls),
        (swap(1), destroy, goes_on),
        (UNDONE,),
        then(STAYED, because(1, "copy-failed", "unsupported")),
        is_timed=True,
    ),
    Story(
        "swap of a guest that stops and starts while it copies",
        then(READY, stalls),
        (swap(1), then(destroy, start), goes_on),
        (UNDONE,),
        then(STAYED, because(1, "copy-failed")),
        is_timed=True,
    ),
    Story(
        "swap of a guest that stops right after the pivot",
        then(READY, meanwhile("after pivot", destroy)),
        (swap(1),),
        (DONE,),
        then(on(2), connected(VOLUMES[1])),
    ),
    Story(
        "swap of a domain that goes while it copies",
        then(READY, stalls),
        (swap(1), undefine, goes_on),
        (UNDONE,),
        connected(VOLUMES[0]),
        is_timed=True,
    ),
    Story(
        "swap of which libvirtd loses the pivot",
        then(READY, loses_definition),
        (swap(1),),
        (DONE,),
        MOVED,
    ),
    Story(
        "swap in whose pivot libvirtd dies, and takes the disk to be back",
        then(READY, loses_track("back")),
        (swap(1), then(kept_from_leaving, destroy, start)),
        (DONE,),
        MOVED,
        is_timed=True,
    ),
    Story(
        "swap in whose pivot libvirtd dies, and waits for its end",
        then(READY, loses_track("pivoting")),
        (swap(1), then(kept_from_leaving, destroy, start)),
        (DONE,),
        MOVED,
        is_timed=True,
    ),
    Story(
        "swap of a transient domain in whose pivot libvirtd dies",
        then(host(is_persistent=False), attached_with(), place(), loses_track("back")),
        (swap(1), destroy),
        (DONE,),
        is_timed=True,
    ),
    Story(
        "swap while libvirt is away",
        READY,
        (away, swap(1), back),
        (DONE,),
        MOVED,
    ),
    Story(
        "swap while libvirtd is restarted",
        then(READY, stalls),
        (swap(1), libvirtd_is_restarted, goes_on),
        (DONE,),
        MOVED,
    ),
    Story(
        "swap of a disk with another block job",
        then(READY, copied_by_hand),
        (swap(1),),
        (UNDONE,),
        because(1, "busy"),
        is_timed=True,
    ),
    Story(
        "swap of a shared volume by its only user",
        then(host(), place(), attached_with(**SHARED)),
        (swap(1, refused="sharing-conflict", **SHARED), swap(2, envelope=SOLE, **SHARED)),
        (DONE,),
        then(on(2), connected(VOLUMES[1])),
    ),
    Story(
        "swap of a volume that two guests have",
        then(two_guests, place(), attached_with(**SHARED)),
        (
            attach(1, 3, instance=2, **SHARED),
            swap(2, envelope=SOLE, refused="sharing-conflict", **SHARED),
        ),
        (DONE,),
        connected(VOLUMES[0]),
    ),
    Story(
        "attach of either volume, detach and extend are refused while it copies",
        then(two_guests, place(), attached_with(**SHARED), stalls),
        (
            swap(1, envelope=SOLE, **SHARED),
            attach(2, 3, instance=2, refused="busy", **SHARED),
            attach(3, 3, instance=2, volume=2, refused="busy", **SHARED),
            detach(4, refused="busy"),
            extend(5, 2 * GIB, refused="busy"),
            goes_on,
        ),
        (DONE,),
        then(on(2), connected(VOLUMES[1])),
        is_timed=True,
    ),
    Story(
        "attach of another volume while it copies",
        then(READY, place(3), stalls),
        (swap(1), attach(2, 3, volume=3), goes_on),
        (DONE, DONE),
        connected(VOLUMES[1], VOLUMES[2]),
    ),
    Story(
        "swap and detach at once",
        READY,
        (Together((swap(1), detach(2))),),
        (DONE, DONE),
        is_timed=True,
    ),
    Story(
        "swap of what is not attached",
        then(host(), place()),
        (swap(1, refused="unknown-attachment"),),
        (),
        untouched,
    ),
    Story(
        "swap to what is another disk already",
        then(READY, lambda world: attached(world, 2, volume=2)),
        (swap(1, new=3, refused="sharing-conflict"),),
        (),
    ),
    Story(
        "swap to what another guest shares by no attachment",
        then(two_guests, place(), attached_with(**SHARED), shared_by_hand),
        (swap(1, envelope=SOLE, **SHARED),),
        (UNDONE,),
        then(because(1, "sharing-conflict"), on(1)),
    ),
    Story(
        "swap is abandoned while it copies",
        then(READY, stalls),
        (swap(1), abandon(1), goes_on),
        (UNDONE,),
        is_timed=True,
    ),
    Story(
        "swap of an encrypted volume to one with another key",
        then(luks(), attached_with(**LUKS), place(passphrase=KEY)),
        (swap(1, **LUKS),),
        (DONE,),
        then(on(2), listed(1), secrets(1)),
    ),
    Story(
        "swap from plain to encrypted",
        then(luks(), place(1), attached_with(), place(size_bytes=LUKS_BYTES, passphrase=KEY)),
        (swap(1, **LUKS),),
        (DONE,),
        then(on(2), listed(1), secrets(1)),
    ),
    Story(
        "swap to what is encrypted where libvirt copies past that",
        then(
            luks(),
            place(1),
            attached_with(),
            place(size_bytes=LUKS_BYTES, passphrase=KEY),
            copies_past_encryption,
        ),
        (swap(1, **LUKS),),
        (UNDONE,),
        then(STAYED, because(1, "unsupported")),
    ),
    Story(
        "swap from encrypted to plain",
        then(luks(), attached_with(**LUKS), place(size_bytes=GIB - PAYLOAD_OFFSET_BYTES)),
        (swap(1, size_bytes=GIB - PAYLOAD_OFFSET_BYTES),),
        (DONE,),
        then(on(2), listed(1), secrets(0)),
    ),
)
