"""NVMe over TCP: a subsystem per volume and one that volumes share, in both forms."""

import pytest

from agent.service.watch import WATCH_SECONDS
from tests.functional.orchestrator import Orchestrator
from tests.lab.guest import Guest
from tests.lab.patience import wait_until
from tests.nested.inside.iscsi import Firewall
from tests.nested.inside.leftovers import controllers, live_controllers, namespaces_shown
from tests.nested.inside.nvme import ADDRESSES, PORT
from tests.nested.inside.storage import Storage
from tests.nested.inside.wishes import ORDERS, outage, share_between, wish


@ORDERS
@pytest.mark.parametrize("form", ["new", pytest.param("old", marks=pytest.mark.exhaustive)])
def test_one_subsystem_per_volume(
    orchestrator: Orchestrator,
    guests: list[Guest],
    storage: Storage,
    form: str,
    order: tuple[int, int],
) -> None:
    subsystem, namespace = storage.subsystem(), storage.namespace()
    subsystem.map(1, namespace)
    made = subsystem.connection_info if form == "new" else subsystem.old_connection_info
    share_between(orchestrator, guests, namespace, made(1), order)


@pytest.mark.exhaustive
def test_an_outage_takes_no_disk_from_who_has_it(
    orchestrator: Orchestrator, guests: list[Guest], storage: Storage, firewall: Firewall
) -> None:
    subsystem, namespace = storage.subsystem(), storage.namespace()
    subsystem.map(1, namespace)
    portals = [f"{ADDRESSES[0]}:{PORT}"]
    info = subsystem.connection_info(1)
    outage(orchestrator, guests, namespace, info, firewall, portals, lambda: not live_controllers())


@ORDERS
def test_a_subsystem_that_volumes_share(
    orchestrator: Orchestrator,
    guests: list[Guest],
    storage: Storage,
    order: tuple[int, int],
) -> None:
    """The neighbour's namespace keeps the controller; ours is flushed, and awaits its unmap."""
    subsystem = storage.subsystem(addresses=ADDRESSES)
    ours, neighbours = storage.namespace(), storage.namespace()
    subsystem.map(1, neighbours)
    subsystem.map(7, ours)
    neighbour = wish(guests[0], neighbours, subsystem.connection_info(1))
    orchestrator.attached(neighbour)
    disk = guests[0].wait_for_disk(neighbours.volume_id).name
    guests[0].write(disk, "before")
    info = subsystem.connection_info(7)
    share_between(orchestrator, guests, ours, info, order, is_clean=False)
    guests[0].write(disk, "after")
    assert guests[0].read(disk) == "after"
    assert controllers() == {subsystem.nqn}
    subsystem.unmap(7)
    wait_until(lambda: namespaces_shown() == {1}, "the host sees that it is gone", seconds=60)
    assert orchestrator.detached(neighbour)["disconnected"] is True
    wait_until(lambda: controllers() == set(), "the controllers are gone", seconds=30)


@pytest.mark.exhaustive
def test_controllers_go_with_the_last_namespace_of_a_shared_subsystem(
    orchestrator: Orchestrator, guests: list[Guest], storage: Storage
) -> None:
    """Each detach leaves them to the other volume; the storage side unmaps both afterwards."""
    subsystem = storage.subsystem(addresses=ADDRESSES)
    for number in (1, 2):
        subsystem.map(number, storage.namespace())
    wishes = [
        wish(guests[0], subsystem.namespaces[number], subsystem.connection_info(number))
        for number in (1, 2)
    ]
    for wanted in wishes:
        path = orchestrator.attached(wanted)["device"]["path"]
        assert path == f"/dev/disk/by-id/nvme-uuid.{wanted['volume_id']}"
    for wanted in wishes:
        assert orchestrator.detached(wanted)["awaiting_unmap"] is True
    for number in (1, 2):
        subsystem.unmap(number)
    wait_until(
        lambda: controllers() == set(),
        "the controllers are gone",
        seconds=4 * WATCH_SECONDS,
        pause_seconds=1,
    )
