"""Volumes that QEMU reaches by itself: this host has no device of them, and keeps their secrets."""

from base64 import b64encode
from typing import Any

from agent.guest.domain_xml import parse_domain
from agent.model.guest_iscsi import initiator_name
from agent.ports import GUEST_INITIATOR
from tests.unit.saga.stories import (
    DONE,
    ONE,
    SHARED,
    TWO,
    UNDONE,
    because,
    connected,
    host,
    plugged,
    result,
    secrets,
    then,
    untouched,
)
from tests.unit.saga.stories_of_changes import GIB, attached_with, sizes
from tests.unit.saga.stories_of_swaps import on, place
from tests.world.storage import Lun
from tests.world.story import (
    TARGET,
    VOLUMES,
    Act,
    Story,
    Together,
    attach,
    attached,
    attachment,
    connect_instance,
    detach,
    disconnect_instance,
    extend,
    swap,
)
from tests.world.world import World

OWN: dict[str, Any] = {
    **SHARED,
    "initiator": "instance",
    "disk": {"bus": "scsi", "type": "lun", "reservations": "managed"},
}
"""Volume 1, which each guest reaches by an initiator of its own, and reserves."""

PASSWORD = "the password of CHAP"


def own(instance: int = 1, password: str | None = None) -> dict[str, Any]:
    data = {"target_portal": "127.0.0.1:3260", "target_iqn": TARGET, "target_lun": 1}
    if password is not None:
        chap = {"auth_method": "CHAP", "auth_username": "agent", "auth_password": password}
        data = {**data, **chap}
    return {
        **OWN,
        "instance": instance,
        "connection_info": {"driver_volume_type": "iscsi", "data": data},
    }


def with_chap(instance: int = 1) -> dict[str, Any]:
    """Each guest has a password of its own."""
    return own(instance, f"{PASSWORD} {instance}")


def fabric(*, chap: bool = False) -> Act:
    """Volume 1 is shown to two guests."""

    def begin(world: World) -> None:
        host()(world)
        world.domains.add(TWO)
        for number, instance_id in enumerate((ONE, TWO), start=1):
            place = f"iscsi:{TARGET}/1?initiator={initiator_name(instance_id)}"
            password = f"{PASSWORD} {number}".encode() if chap else None
            world.storage.luns[place, 0] = Lun(VOLUMES[0], credentials=password)

    return begin


def own_grown(size_bytes: int) -> Act:
    """By the storage side."""

    def change(world: World) -> None:
        for lun in world.storage.luns.values():
            lun.size_bytes = size_bytes

    return change


def own_disk(volume: int, **different: Any) -> dict[str, Any]:
    """A volume that the first guest reaches by its own initiator: no lun, and nobody else's."""
    info = with_chap()["connection_info"]
    data = {**info["data"], "target_lun": volume}
    return {
        "initiator": "instance",
        "connection_info": {**info, "data": data},
        **different,
    }


def own_place(volume: int) -> str:
    return f"iscsi:{TARGET}/{volume}?initiator={initiator_name(ONE)}"


def shown_to_guest(volume: int) -> Act:
    def change(world: World) -> None:
        password = f"{PASSWORD} 1".encode()
        world.storage.luns[own_place(volume), 0] = Lun(VOLUMES[volume - 1], credentials=password)

    return change


def reaches(volume: int) -> Act:
    """The guest itself, in both halves, by the disk that it had."""

    def check(world: World) -> None:
        guest = world.domains.guests[ONE]
        for xml in (guest.live, guest.inactive):
            assert xml is not None
            (disk,) = parse_domain(xml).disks
            assert (disk.source, disk.alias) == (own_place(volume), "ua-att-1")

    return check


def two_own(world: World) -> None:
    fabric(chap=True)(world)
    attached(world, 1, **with_chap(1))
    attached(world, 2, **with_chap(2))


CEPH_KEY = b"a key of Ceph"

KEPT_SECRET = "457eb676-33da-42ec-9a8c-9293d545c337"


def rbd(**data: Any) -> dict[str, Any]:
    """Volume 1 in Ceph."""
    image = {"name": "volumes/volume-1", "auth_enabled": True, "auth_username": "agent"}
    return {"connection_info": {"driver_volume_type": "rbd", "data": {**image, **data}}}


RBD = rbd(keyring=f"[client.agent]\n\tkey = {b64encode(CEPH_KEY).decode()}\n")


def ceph(world: World) -> None:
    host()(world)
    world.storage.luns["rbd:volumes/volume-1", 0] = Lun(VOLUMES[0], credentials=CEPH_KEY)


def keep_secret(world: World) -> None:
    world.secrets.operators.add(KEPT_SECRET)


def no_initiator(world: World) -> None:
    world.domains.missing = (*world.domains.missing, GUEST_INITIATOR)


def no_session(world: World) -> None:
    """Of this host: the target knows the guest alone."""
    assert world.storage.sessions == set()


NETWORK = (
    Story(
        "attach by an initiator of the guest's own",
        fabric(),
        (attach(1, **own()),),
        (DONE,),
        then(no_session, secrets(0)),
    ),
    Story(
        "attach to two guests that both reserve",
        fabric(chap=True),
        (
            Together(
                (
                    attach(1, 1, **with_chap(1)),
                    attach(2, 2, **with_chap(2)),
                )
            ),
        ),
        (DONE, DONE),
        then(no_session, secrets(2)),
    ),
    Story(
        "attach by the guest's initiator with a wrong password",
        fabric(chap=True),
        (attach(1, **own(password="another")),),
        (UNDONE,),
        then(because(1, "auth-failed"), connected(), secrets(0)),
    ),
    Story(
        "attach by the guest's initiator where QEMU has none",
        then(fabric(), no_initiator),
        (attach(1, **own()),),
        (UNDONE,),
        then(because(1, "unsupported"), untouched),
    ),
    Story(
        "detach one of two that have initiators of their own",
        two_own,
        (detach(1),),
        (DONE,),
        then(result(1, disconnected=True, instance_present=True), secrets(1)),
    ),
    Story(
        "detach both that have initiators of their own",
        two_own,
        (Together((detach(1), detach(2, 2, instance=2))),),
        (DONE, DONE),
        then(connected(), secrets(0), result(2, disconnected=True)),
    ),
    Story(
        "connect an instance by its own initiator, and disconnect it",
        fabric(chap=True),
        (
            connect_instance(1, attachment(1, **with_chap(1))),
            disconnect_instance(2, 1),
        ),
        (DONE, DONE),
        then(connected(), secrets(0)),
    ),
    Story(
        "extend of what two guests reach by initiators of their own",
        then(two_own, own_grown(2 * GIB)),
        (extend(1, 2 * GIB),),
        (DONE,),
        then(sizes(1, 2 * GIB, 2 * GIB), no_session),
    ),
    Story(
        "extend of what a guest reaches by itself, which the storage side has not made",
        two_own,
        (extend(1, 2 * GIB),),
        (DONE,),
        sizes(1, None, None, errors=("plug-refused", "plug-refused")),
    ),
    Story(
        "swap to an initiator of the guest's own",
        then(plugged(), shown_to_guest(2)),
        (swap(1, **own_disk(2)),),
        (DONE,),
        then(reaches(2), connected(), secrets(1)),
    ),
    Story(
        "swap from one volume that the guest reaches by itself to another",
        then(host(), shown_to_guest(1), shown_to_guest(2), attached_with(**own_disk(1))),
        (swap(1, **own_disk(2)),),
        (DONE,),
        then(reaches(2), connected(), secrets(1)),
    ),
    Story(
        "swap from an initiator of the guest's own to the host's",
        then(host(), shown_to_guest(1), place(), attached_with(**own_disk(1))),
        (swap(1),),
        (DONE,),
        then(on(2), connected(VOLUMES[1]), secrets(0)),
    ),
    Story("attach from Ceph with its key", ceph, (attach(1, **RBD),), (DONE,), secrets(1)),
    Story(
        "attach from Ceph with a key that is refused",
        ceph,
        (attach(1, **rbd(keyring=b64encode(b"another").decode())),),
        (UNDONE,),
        then(because(1, "auth-failed"), connected(), secrets(0)),
    ),
    Story(
        "attach from Ceph with a secret that the operator keeps",
        then(ceph, keep_secret),
        (attach(1, **rbd(secret_uuid=KEPT_SECRET)),),
        (DONE,),
        secrets(0),
    ),
    Story(
        "attach from Ceph with a secret that the operator does not keep",
        ceph,
        (attach(1, **rbd(secret_uuid=KEPT_SECRET)),),
        (UNDONE,),
        then(because(1, "invalid"), untouched),
    ),
    Story(
        "detach what is Ceph's",
        then(ceph, lambda world: attached(world, **RBD)),
        (detach(1),),
        (DONE,),
        then(connected(), secrets(0)),
    ),
)
