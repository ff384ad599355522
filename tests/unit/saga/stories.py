"""The one table of what the sweeps tell: every verb in every situation that matters."""

from collections.abc import Callable
from typing import Any

from lxml import etree

from agent.errors import AuthFailed, ConnectFailed, PlugRefused
from agent.guest.domain_xml import parse_domain
from agent.journal.book import Book
from agent.model.outcome import CLOSED
from agent.ports import RESERVATIONS, SHARED_ENCRYPTION
from tests.world.domains import Attitude
from tests.world.storage import Lun
from tests.world.story import (
    INSTANCES,
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
    let_pass,
    moment,
    request_id,
    volume,
)
from tests.world.world import World

DONE = frozenset({"done"})
UNDONE = frozenset({"undone"})
CANCELLED = frozenset({"cancelled"})
EXPIRED = frozenset({"expired"})

ONE, TWO = INSTANCES[0], INSTANCES[1]

SHARED = {"multiattach": True}


def host(**guest: Any) -> Act:
    """Volumes 1 and 2 on one target, and one guest."""

    def begin(world: World) -> None:
        volume(world, 1)
        volume(world, 2)
        world.domains.add(ONE, **guest)

    return begin


def plugged(**different: Any) -> Act:
    """The guest has volume 1."""

    def begin(world: World) -> None:
        host(**different)(world)
        attached(world)

    return begin


def shared(world: World) -> None:
    """Two guests have volume 1; the first has volume 2 of the same target as well."""
    host()(world)
    world.domains.add(TWO)
    attached(world, 1, **SHARED)
    attached(world, 2, instance=2, **SHARED)
    attached(world, 3, volume=2)


def then(*changes: Callable[[World], Any]) -> Act:
    def begin(world: World) -> None:
        for change in changes:
            change(world)

    return begin


def meanwhile(instant: str, *acts: Act) -> Act:
    def plan(world: World) -> None:
        world.meanwhile[instant] = then(*acts)

    return plan


def guest_is(attitude: Attitude) -> Act:
    def change(world: World) -> None:
        world.domains.guests[ONE].attitude = attitude

    return change


def path_missing(world: World) -> None:
    world.storage.paths = 1


def leftover(world: World) -> None:
    world.storage.leftovers[TARGET, 1] = "6001405bbbb"


def away(world: World) -> None:
    world.domains.is_away = True


def back(world: World) -> None:
    world.domains.is_away = False
    world.agent.workers.stir_all()


def destroy(world: World) -> None:
    if ONE in world.domains.guests:
        world.domains.destroy(ONE)


def start(world: World) -> None:
    world.domains.start(ONE)


def undefine(world: World) -> None:
    world.domains.undefine(ONE)


def reset(world: World) -> None:
    world.domains.reset(ONE)


def occupy(world: World) -> None:
    world.domains.guests[ONE].job = "migration"


def leave_alone(world: World) -> None:
    world.domains.guests[ONE].job = None


def lose_journal(world: World) -> None:
    def forget_all(book: Book) -> None:
        for held in book.attachments():
            book.drop(held.attachment.attachment_id)
        book.prune(world.clock.seconds + 1, now=9e9)

    world.journal.write(forget_all)


def lose_half(half: str) -> Act:
    """As a crash of somebody else's tool has left it."""

    def change(world: World) -> None:
        guest = world.domains.guests[ONE]
        domain = etree.fromstring(getattr(guest, half))
        for disk in domain.findall("devices/disk"):
            domain.find("devices").remove(disk)
        setattr(guest, half, etree.tostring(domain, encoding="unicode"))

    return change


def point_elsewhere(half: str, path: str = "/dev/disk/by-id/wwn-old") -> Act:
    """The half names a device that the volume was once."""

    def change(world: World) -> None:
        guest = world.domains.guests[ONE]
        domain = etree.fromstring(getattr(guest, half))
        domain.find("devices/disk/source").set("dev", path)
        setattr(guest, half, etree.tostring(domain, encoding="unicode"))

    return change


def other_cache(world: World) -> None:
    guest = world.domains.guests[ONE]
    guest.live = (guest.live or "").replace('cache="none"', 'cache="writeback"')


def other_serial(world: World) -> None:
    guest = world.domains.guests[ONE]
    for half in ("live", "inactive"):
        domain = etree.fromstring(getattr(guest, half))
        domain.find("devices/disk/serial").text = VOLUMES[7]
        setattr(guest, half, etree.tostring(domain, encoding="unicode"))


def foreign_disk(world: World) -> None:
    """Somebody else has given volume 1 to the second guest, without us."""
    attached(world, 2, instance=2)
    lose_journal(world)
    for half in ("live", "inactive"):
        guest = world.domains.guests[TWO]
        text = getattr(guest, half)
        domain = etree.fromstring(text)
        disk = domain.find("devices/disk")
        disk.remove(disk.find("alias"))
        domain.remove(domain.find("metadata"))
        setattr(guest, half, etree.tostring(domain, encoding="unicode"))


def foreign_definition(world: World) -> None:
    """Somebody else writes the volume into the second guest's definition, without us."""
    [device] = world.storage.devices.values()
    guest = world.domains.guests[TWO]
    disk = f"<disk><source dev='{device.path}'/><target dev='vda'/></disk>"
    guest.inactive = (guest.inactive or "").replace("<devices>", f"<devices>{disk}")


LOCAL = {
    "connection_info": {"driver_volume_type": "local", "data": {"device_path": "/dev/vg/volume-1"}}
}


def local_volume(world: World) -> None:
    """Volume 1 is a device of this host, and known by that name before it is connected."""
    world.storage.luns["/dev/vg/volume-1", 0] = Lun(VOLUMES[0])


def boots_by_order(world: World) -> None:
    """As libvirt shows a domain of which a device has a boot order."""
    guest = world.domains.guests[ONE]
    for half in ("live", "inactive"):
        domain = etree.fromstring(getattr(guest, half))
        domain.remove(domain.find("os"))
        setattr(guest, half, etree.tostring(domain, encoding="unicode"))


def take_boot_order(half: str) -> Act:
    """Somebody else gives order 1 to another device of the first guest."""

    def change(world: World) -> None:
        guest = world.domains.guests[ONE]
        nic = "<interface type='user'><boot order='1'/></interface>"
        setattr(guest, half, getattr(guest, half).replace("<devices>", f"<devices>{nic}"))

    return change


def drop_limits(world: World) -> None:
    world.domains.drops_limits = True


def storage_fails(world: World) -> None:
    world.storage.connect_error = AuthFailed("the target refused our credentials")


def device_stays(world: World) -> None:
    world.storage.disconnect_error = ConnectFailed("the device could not be flushed")


def plug_refused(world: World) -> None:
    world.domains.plug_error = PlugRefused("QEMU does not like it")


def define_refused(world: World) -> None:
    world.domains.define_error = PlugRefused("libvirt does not like it")


def closed(request: int) -> Act:
    """Without any time passing, unless a call failed."""

    def check(world: World) -> None:
        if not world.instants.faults:
            assert not world.record(request_id(request)).open

    return check


def abandon(request: int) -> Act:
    def act(world: World) -> None:
        for _ in range(2):
            answer = world.agent.query("abandon_operation", {"operation_id": request_id(request)})
            if "state" in answer:
                break
            world.run()
        assert answer["state"] in CLOSED, answer

    return act


# what else must be true


def connected(*volumes: str) -> Act:
    def check(world: World) -> None:
        assert {device.volume_id for device in world.storage.devices.values()} == set(volumes)

    return check


def because(request: int, *codes: str) -> Act:
    """One of them; more than one where a death in between changes the way, and not the end."""

    def check(world: World) -> None:
        cause = world.record(request_id(request)).cause
        assert cause is not None
        assert cause.code in codes, cause

    return check


def result(request: int, **wanted: Any) -> Act:
    def check(world: World) -> None:
        found = world.record(request_id(request)).result
        assert found is not None
        assert {name: found[name] for name in wanted} == wanted

    return check


def quarantined(world: World) -> None:
    assert list(world.journal.read(lambda book: book.quarantined())) == [VOLUMES[0]]


def quarantined_or_gone(world: World) -> None:
    """By whether anybody counted on the volume still when it was found to be another."""
    if any(device.volume_id == VOLUMES[0] for device in world.storage.devices.values()):
        quarantined(world)


def still_defined(world: World) -> None:
    inactive = world.domains.guests[ONE].inactive
    assert inactive is not None
    assert parse_domain(inactive).disk_by_alias("ua-att-1") is not None


def still_plugged(world: World) -> None:
    """As if the operation had not been: the row, the disk, the device."""
    assert world.journal.read(lambda book: book.attachment("att-1")) is not None
    assert world.domains.in_use(next(iter(world.storage.devices.values())).names)


def warned(request: int, *words: str) -> Act:
    """One warning for each, and no other."""

    def check(world: World) -> None:
        found = world.record(request_id(request)).warnings
        assert len(found) == len(words), found
        assert all(word in warning for word, warning in zip(words, found, strict=True)), found

    return check


def untouched(world: World) -> None:
    assert world.storage.connects == 0


KEY_FILE, KEY = "/run/credentials/agent/volume-1", b"a passphrase"

LUKS = {"encryption": {"format": "luks", "secret_file": KEY_FILE}}

LUKS_BY_VALUE = {"encryption": {"format": "luks", "passphrase": KEY.decode()}}


def luks_volume(world: World) -> None:
    """Volume 1 is encrypted, and a file of this host has its passphrase."""
    volume(world, 1, passphrase=KEY)
    world.secrets.files[KEY_FILE] = KEY


def luks(**guest: Any) -> Act:
    return then(host(**guest), luks_volume)


def libvirtd_is_restarted(world: World) -> None:
    world.secrets.vanish()


def other_key(world: World) -> None:
    world.secrets.files[KEY_FILE] = b"another"


def no_key(world: World) -> None:
    del world.secrets.files[KEY_FILE]


def secrets(count: int) -> Act:
    def check(world: World) -> None:
        assert len(world.secrets.ours()) == count

    return check


RESERVING = {**SHARED, "disk": {"bus": "scsi", "type": "lun", "reservations": "managed"}}


def no_pr_helper(world: World) -> None:
    world.domains.missing = (*world.domains.missing, RESERVATIONS)


def shares_no_encryption(world: World) -> None:
    world.domains.missing = (*world.domains.missing, SHARED_ENCRYPTION)


def reserves(world: World) -> None:
    guest = world.domains.guests[ONE]
    for half in (guest.live, guest.inactive):
        assert [disk.reserves for disk in parse_domain(half or "").disks] == [True]


LIMITED = {"disk": {"iotune": {"total_iops_sec": 100}}}

BOOTABLE = {"disk": {"boot_order": 1}}

ATTACHES = (
    Story("attach to a running guest", host(), (attach(1),), (DONE,)),
    Story("attach by virtio-scsi", host(), (attach(1, disk={"bus": "scsi"}),), (DONE,)),
    Story("attach with a path missing", then(host(), path_missing), (attach(1),), (DONE,)),
    Story(
        "attach finds a leftover",
        then(host(), leftover),
        (attach(1),),
        (UNDONE,),
        because(1, "wrong-device"),
    ),
    Story("attach to a paused guest", host(is_paused=True), (attach(1),), (DONE,)),
    Story(
        "attach to a guest that is shut off",
        host(runs=False),
        (attach(1),),
        (DONE,),
    ),
    Story("attach to a transient guest", host(is_persistent=False), (attach(1),), (DONE,)),
    Story(
        "attach to a guest that is started meanwhile",
        then(host(runs=False), meanwhile("before define", start)),
        (attach(1),),
        (DONE,),
    ),
    Story(
        "attach what a second guest has",
        then(host(), lambda world: world.domains.add(TWO), lambda w: attached(w, **SHARED)),
        (attach(1, 2, instance=2, **SHARED),),
        (DONE,),
    ),
    Story(
        "attach what is in place",
        plugged(),
        (attach(1),),
        (DONE,),
        lambda world: _equal(world.storage.connects, 1),
    ),
    Story(
        "attach completes the running half",
        then(plugged(), lose_half("live")),
        (attach(1),),
        (DONE,),
    ),
    Story(
        "attach completes the defined half, and the journal knows nothing",
        then(plugged(), lose_half("inactive"), lose_journal),
        (attach(1),),
        (DONE,),
    ),
    Story(
        "attach to a definition that names an old device",
        then(plugged(), destroy, point_elsewhere("inactive"), lose_journal),
        (attach(1),),
        (DONE,),
    ),
    Story(
        "attach to a running guest that has another device by that name",
        then(plugged(), point_elsewhere("live"), lose_journal),
        (attach(1),),
        (UNDONE,),
        because(1, "sharing-conflict"),
    ),
    Story(
        "attach with the storage refusing",
        then(host(), storage_fails),
        (attach(1),),
        (UNDONE,),
        then(because(1, "auth-failed"), connected()),
    ),
    Story(
        "attach finds no LUN",
        lambda world: world.domains.add(ONE),
        (attach(1),),
        (UNDONE,),
        then(because(1, "lun-missing"), connected()),
    ),
    Story(
        "attach finds another device",
        host(),
        (attach(1, identity={"wwn": "600140500000000000000000000000ff"}),),
        (UNDONE,),
        then(because(1, "wrong-device"), quarantined, connected(VOLUMES[0])),
    ),
    Story(
        "attach to write finds a device that cannot be written",
        then(lambda world: volume(world, read_only=True), lambda world: world.domains.add(ONE)),
        (attach(1),),
        (UNDONE,),
        then(because(1, "read-only-device"), connected()),
    ),
    Story(
        "attach with the plug refused",
        then(host(), plug_refused),
        (attach(1),),
        (UNDONE,),
        then(because(1, "plug-refused"), connected()),
    ),
    Story(
        "attach again with the plug refused",
        then(plugged(), lose_half("live"), plug_refused),
        (attach(1),),
        (UNDONE,),
        then(still_defined, connected(VOLUMES[0])),
    ),
    Story(
        "attach with the plug refused, half of it left by somebody",
        then(plugged(), lose_half("live"), lose_journal, plug_refused),
        (attach(1),),
        (UNDONE,),
        connected(),
    ),
    Story(
        "attach with the definition refused", then(host(), define_refused), (attach(1),), (DONE,)
    ),
    Story(
        "attach to nobody",
        lambda world: volume(world),
        (attach(1),),
        (UNDONE,),
        then(because(1, "unknown-instance"), untouched),
    ),
    Story(
        "attach to a guest that migrates",
        then(host(), occupy),
        (attach(1),),
        (UNDONE,),
        then(because(1, "busy"), untouched),
    ),
    Story(
        "attach to a guest that begins to migrate",
        then(host(), meanwhile("before plug", occupy)),
        (attach(1), let_pass(5)),
        (UNDONE,),
        then(because(1, "busy"), connected()),
        is_timed=True,
    ),
    Story(
        "attach to a transient guest that goes before it is plugged",
        then(host(is_persistent=False), meanwhile("before plug", destroy)),
        (attach(1),),
        (UNDONE,),
        connected(),
    ),
    Story(
        "attach to a guest that stops before it is plugged",
        then(host(), meanwhile("before plug", destroy)),
        (attach(1),),
        (DONE,),
    ),
    Story(
        "attach to a guest that stops when it is plugged",
        then(host(), meanwhile("after plug", destroy)),
        (attach(1),),
        (DONE,),
    ),
    Story(
        "attach to a guest that goes when it is plugged",
        then(host(), meanwhile("before define", undefine)),
        (attach(1),),
        (DONE,),
        connected(VOLUMES[0]),
    ),
    Story(
        "attach what somebody else uses",
        then(host(), lambda world: world.domains.add(TWO), foreign_disk),
        (attach(1),),
        (UNDONE,),
        because(1, "sharing-conflict"),
    ),
    Story(
        "attach what somebody else defines while it is connected",
        then(
            host(),
            local_volume,
            lambda world: world.domains.add(TWO),
            meanwhile("after connect", foreign_definition),
        ),
        (attach(1, **LOCAL),),
        (UNDONE,),
        then(because(1, "sharing-conflict"), connected(VOLUMES[0])),
    ),
    Story("attach with reservations", host(), (attach(1, **RESERVING),), (DONE,), reserves),
    Story(
        "attach with reservations that this host cannot make",
        then(host(), no_pr_helper),
        (attach(1, **RESERVING),),
        (UNDONE,),
        then(because(1, "unsupported"), untouched),
    ),
    *(
        Story(
            f"attach with limits{name}", then(host(), *begin), (attach(1, **LIMITED),), (DONE,), end
        )
        for name, begin, end in (
            ("", (), warned(1)),
            (" that QEMU drops", (drop_limits,), warned(1, "total_iops_sec is 0")),
        )
    ),
    Story(
        "attach with a boot order",
        then(host(), boots_by_order),
        (attach(1, **BOOTABLE),),
        (DONE,),
        warned(1),
    ),
    Story(
        "attach with a boot order that is taken while the volume is connected",
        then(host(), boots_by_order, meanwhile("after connect", take_boot_order("inactive"))),
        (attach(1, **BOOTABLE),),
        (UNDONE,),
        then(because(1, "invalid"), connected()),
    ),
    Story(
        "attach with a boot order that is taken just before the definition",
        then(host(), boots_by_order, meanwhile("before define", take_boot_order("inactive"))),
        (attach(1, **BOOTABLE),),
        (DONE,),
        then(warned(1, "the definition has the disk without a boot order"), connected(VOLUMES[0])),
    ),
    Story(
        "attach while libvirt is away",
        then(host(), meanwhile("before plug", away)),
        (attach(1), let_pass(5), back),
        (DONE,),
    ),
    Story(
        "attach is cancelled while libvirt is away",
        host(),
        (away, attach(1), cancel(1)),
        (CANCELLED,),
        connected(),
        is_timed=True,
    ),
    Story(
        "attach is cancelled when it may have been plugged",
        then(host(), meanwhile("after plug", away)),
        (attach(1), cancel(1)),
        (DONE,),
        is_timed=True,
    ),
    Story(
        "attach is cancelled when it may have been plugged, and was not",
        then(host(), meanwhile("before plug", away)),
        (attach(1), cancel(1)),
        (CANCELLED,),
        connected(),
        is_timed=True,
    ),
    Story(
        "attach past its deadline",
        then(host(), meanwhile("before plug", away)),
        (attach(1, envelope={"deadline_seconds": 5}), let_pass(10)),
        (UNDONE,),
        then(because(1, "deadline"), connected()),
        is_timed=True,
    ),
    Story(
        "attach that expires before anything is touched",
        host(),
        (away, attach(1, envelope={"not_after": moment(5)}), let_pass(10)),
        (EXPIRED,),
        untouched,
        is_timed=True,
    ),
    Story(
        "attach goes on past its not_after when something was touched",
        then(host(), meanwhile("before plug", away)),
        (attach(1, envelope={"not_after": moment(5)}), let_pass(10), back),
        (DONE,),
        is_timed=True,
    ),
    Story(
        "attach is undone, and the guest does not let go",
        then(
            host(attitude="stubborn"),
            meanwhile("after plug", other_cache),
        ),
        (attach(1),),
        (UNDONE | DONE,),
    ),
)

ENCRYPTED = (
    *(
        Story(
            f"attach what is encrypted, {name}", luks(**guest), (attach(1, **LUKS),), (DONE,), end
        )
        for name, guest, end in (
            ("to a running guest", {}, secrets(1)),
            ("to a guest that is shut off", {"runs": False}, secrets(1)),
        )
    ),
    Story(
        "attach what is encrypted by a passphrase in the request",
        luks(),
        (attach(1, **LUKS_BY_VALUE),),
        (DONE | UNDONE,),
        is_timed=True,
    ),
    Story(
        "attach what is encrypted, and libvirtd is restarted before the plug",
        then(luks(), meanwhile("before plug", libvirtd_is_restarted)),
        (attach(1, **LUKS), let_pass(5)),
        (DONE,),
        secrets(1),
    ),
    Story(
        "attach what is encrypted to a guest that is started when libvirtd has been restarted",
        then(luks(runs=False), meanwhile("before define", libvirtd_is_restarted, start)),
        (attach(1, **LUKS), let_pass(5)),
        (DONE,),
        secrets(1),
    ),
    Story(
        "attach what is encrypted with another passphrase",
        then(luks(), other_key),
        (attach(1, **LUKS),),
        (UNDONE,),
        then(because(1, "auth-failed"), connected(), secrets(0)),
    ),
    Story(
        "attach what is encrypted by a file that is not there",
        then(luks(), no_key),
        (attach(1, **LUKS),),
        (UNDONE,),
        then(because(1, "invalid"), untouched),
    ),
    *(
        Story(
            f"attach {name}",
            then(luks(), lambda world, different=different: volume(world, **different)),
            (attach(1, **LUKS),),
            (UNDONE,),
            then(
                because(1, "not-encrypted", "wrong-device"),
                quarantined,
                connected(VOLUMES[0]),
                secrets(0),
            ),
        )
        for name, different in (
            ("what is not encrypted", {}),
            ("what is encrypted otherwise", {"passphrase": KEY, "luks_version": 2}),
        )
    ),
    Story(
        "attach what is encrypted as luks2",
        luks(),
        (attach(1, encryption={**LUKS["encryption"], "format": "luks2"}),),
        (UNDONE,),
        then(because(1, "unsupported"), untouched),
    ),
    Story(
        "attach what is encrypted and shared where libvirt does not do that",
        then(luks(), shares_no_encryption),
        (attach(1, **LUKS, multiattach=True),),
        (UNDONE,),
        then(because(1, "unsupported"), untouched),
    ),
    Story(
        "attach what is encrypted with the plug refused",
        then(luks(), plug_refused),
        (attach(1, **LUKS),),
        (UNDONE,),
        then(because(1, "plug-refused"), connected(), secrets(0)),
    ),
    Story(
        "attach what a second guest has decrypted, with the plug refused",
        then(
            luks(),
            lambda world: world.domains.add(TWO),
            lambda world: attached(world, 2, instance=2, **LUKS, **SHARED),
            plug_refused,
        ),
        (attach(1, **LUKS, **SHARED),),
        (UNDONE,),
        then(connected(VOLUMES[0]), secrets(1)),
    ),
    Story(
        "detach what is encrypted",
        then(luks(), lambda world: attached(world, **LUKS)),
        (detach(1),),
        (DONE,),
        then(connected(), secrets(0)),
    ),
    Story(
        "detach what is encrypted from both",
        then(
            luks(),
            lambda world: world.domains.add(TWO),
            lambda world: attached(world, 1, **LUKS, **SHARED),
            lambda world: attached(world, 2, instance=2, **LUKS, **SHARED),
        ),
        (detach(1), secrets(1), detach(2, 2, instance=2)),
        (DONE, DONE),
        then(connected(), secrets(0)),
    ),
)

DETACHES = (
    *(
        Story(
            f"detach from a {attitude} guest",
            then(plugged(), guest_is(attitude)),
            (detach(1), closed(1)),
            (DONE,),
            then(connected(), result(1, disconnected=True, instance_present=True)),
        )
        for attitude in ("prompt", "cooperative", "late")
    ),
    *(
        Story(
            f"detach from a {attitude} guest",
            then(plugged(), guest_is(attitude)),
            (detach(1),),
            (DONE,),
            then(connected(), result(1, disconnected=True, instance_present=True)),
        )
        for attitude in ("refusing", "stubborn")
    ),
    Story(
        "detach by virtio-scsi",
        then(host(), lambda world: attached(world, disk={"bus": "scsi"})),
        (detach(1),),
        (DONE,),
        connected(),
    ),
    Story(
        "detach from a paused guest", plugged(is_paused=True), (detach(1),), (DONE,), connected()
    ),
    Story(
        "detach from a guest that is shut off",
        plugged(runs=False),
        (detach(1),),
        (DONE,),
        connected(),
    ),
    Story(
        "detach from a transient guest",
        plugged(is_persistent=False),
        (detach(1),),
        (DONE,),
        connected(),
    ),
    Story(
        "detach from a stubborn guest that is reset",
        then(plugged(), guest_is("stubborn")),
        (detach(1), let_pass(100), still_defined, reset),
        (DONE,),
        connected(),
    ),
    Story(
        "detach from a stubborn guest that stops",
        then(plugged(), guest_is("stubborn")),
        (detach(1), destroy),
        (DONE,),
        connected(),
    ),
    Story(
        "detach from a stubborn guest that is started again with the disk",
        then(plugged(), guest_is("stubborn")),
        (detach(1), then(destroy, start), let_pass(30)),
        (DONE,),
        connected(),
    ),
    Story(
        "detach from a guest that is started again before its definition forgets",
        then(plugged(), meanwhile("before forget", destroy, start)),
        (detach(1),),
        (DONE,),
        connected(),
    ),
    Story(
        "detach from a guest that is shut off and started meanwhile",
        then(plugged(runs=False), meanwhile("before forget", start)),
        (detach(1),),
        (DONE,),
        connected(),
    ),
    Story(
        "detach from a stubborn guest that goes",
        then(plugged(), guest_is("stubborn")),
        (detach(1), undefine),
        (DONE,),
        then(connected(), result(1, instance_present=False)),
    ),
    Story(
        "detach from a guest that went",
        then(plugged(), undefine),
        (detach(1),),
        (DONE,),
        then(connected(), result(1, instance_present=False)),
    ),
    Story(
        "detach from one of two",
        shared,
        (detach(1),),
        (DONE,),
        then(connected(VOLUMES[0], VOLUMES[1]), result(1, disconnected=False)),
    ),
    Story(
        "detach from both",
        shared,
        (Together((detach(1), detach(2, 2, instance=2))),),
        (DONE, DONE),
        connected(VOLUMES[1]),
    ),
    Story(
        "detach completes a half",
        then(plugged(), lose_half("live")),
        (detach(1),),
        (DONE,),
        connected(),
    ),
    Story(
        "detach what this agent never saw",
        then(plugged(), lose_journal),
        (detach(1, attachment=attachment()),),
        (DONE,),
        connected(),
    ),
    Story(
        "detach what is detached",
        plugged(),
        (detach(1), detach(2)),
        (DONE, DONE),
        connected(),
    ),
    Story(
        "detach what is detached, of a volume that others use",
        shared,
        (detach(1), detach(2), detach(3, 2, instance=2), detach(4)),
        (DONE, DONE, DONE, DONE),
        then(connected(VOLUMES[1]), result(2, disconnected=False), result(4, disconnected=True)),
        is_timed=True,
    ),
    Story(
        "detach of nothing",
        host(),
        (detach(1, refused="unknown-attachment"), detach(2, attachment=attachment())),
        (DONE,),
        connected(),
    ),
    Story(
        "detach is cancelled too late",
        then(plugged(), guest_is("stubborn")),
        (detach(1), cancel(1)),
        (DONE,),
        connected(),
        is_timed=True,
    ),
    Story(
        "detach is cancelled in time",
        plugged(),
        (away, detach(1), cancel(1)),
        (CANCELLED,),
        still_plugged,
        is_timed=True,
    ),
    Story(
        "detach past its deadline stays waiting",
        then(plugged(), guest_is("stubborn")),
        (detach(1, deadline_seconds=60), let_pass(100)),
        (DONE,),
        connected(),
    ),
    Story(
        "detach from a guest that migrates",
        then(plugged(), occupy),
        (detach(1),),
        (UNDONE,),
        then(because(1, "busy"), still_plugged),
    ),
    Story(
        "detach from a stubborn guest that begins to migrate",
        then(plugged(), guest_is("stubborn")),
        (detach(1), occupy, let_pass(30), leave_alone),
        (DONE,),
        connected(),
        is_timed=True,
    ),
    Story(
        "detach of a disk with another serial",
        then(plugged(), other_serial),
        (detach(1),),
        (UNDONE,),
        then(because(1, "wrong-device"), still_plugged),
    ),
    Story(
        "detach with a device that stays",
        then(plugged(), device_stays),
        (detach(1), let_pass(30)),
        (DONE,),
        connected(),
    ),
)

CHAINS = (
    Story(
        "attach and detach at once",
        host(),
        (Together((attach(1), detach(2))),),
        (DONE, DONE),
        connected(),
    ),
    Story(
        "detach and attach at once, of a stubborn guest",
        then(plugged(), guest_is("stubborn")),
        (Together((detach(1), attach(2))), let_pass(30), reset),
        (DONE, DONE),
        connected(VOLUMES[0]),
    ),
    Story(
        "detach and attach at once, and the guest goes",
        then(plugged(), guest_is("stubborn")),
        (Together((detach(1), attach(2))), undefine),
        (DONE, UNDONE),
        connected(),
    ),
    Story(
        "detach and attach at once, and the attach is cancelled while it waits",
        then(plugged(), guest_is("stubborn")),
        (Together((detach(1), attach(2))), cancel(2), reset),
        (DONE, CANCELLED | DONE),
        is_timed=True,
    ),
    Story(
        "attach of the volume is refused while the guest does not let go",
        then(plugged(), guest_is("stubborn")),
        (detach(1), attach(2, refused="busy"), attach(3, 7, refused="busy"), reset, attach(4)),
        (DONE, DONE),
        connected(VOLUMES[0]),
        is_timed=True,
    ),
    Story(
        "detach is abandoned and asked again",
        then(plugged(), guest_is("stubborn")),
        (detach(1), abandon(1), detach(2), reset),
        (UNDONE, DONE),
        connected(),
        is_timed=True,
    ),
    Story(
        "detach with a device that stays is abandoned",
        then(plugged(), device_stays),
        (detach(1), abandon(1)),
        (DONE,),
        then(quarantined, connected(VOLUMES[0])),
        is_timed=True,
    ),
    Story(
        "attach fails while another detaches the shared volume",
        then(shared, lambda world: world.domains.add(INSTANCES[2])),
        (
            Together(
                (
                    detach(1),
                    detach(2, 2, instance=2),
                    attach(3, 4, instance=3, size_bytes=7, **SHARED),
                )
            ),
        ),
        (DONE, DONE, UNDONE),
        quarantined_or_gone,
    ),
)

STORIES = (*ATTACHES, *ENCRYPTED, *DETACHES, *CHAINS)


def _equal(found: object, wanted: object) -> None:
    assert found == wanted
