"""Real iSCSI sessions to real targets: every layout of the arrays that matter."""

import shutil
from pathlib import Path

import pytest

from agent.service.watch import WATCH_SECONDS
from tests.functional.orchestrator import Orchestrator
from tests.lab.guest import Guest
from tests.lab.patience import wait_until
from tests.nested.inside.iscsi import PORTAL, SECOND_PORTAL, Firewall
from tests.nested.inside.leftovers import (
    NODE_RECORDS,
    assert_clean,
    maps,
    run,
    scsi_disks,
    sessions,
    slaves,
)
from tests.nested.inside.storage import Storage
from tests.nested.inside.wishes import ORDERS, outage, share_between, wish

BOTH = {"portals": (PORTAL, SECOND_PORTAL)}
PATH_STATES = ("multipathd", "show", "paths", "raw", "format", "%t")


@pytest.mark.usefixtures("single_path")
class TestSinglePath:
    @ORDERS
    def test_one_target_per_volume(
        self,
        orchestrator: Orchestrator,
        guests: list[Guest],
        storage: Storage,
        order: tuple[int, int],
    ) -> None:
        """LVM with LIO, SolidFire: LUN 0, and CHAP."""
        target, backing = storage.lun(chap=("user", "secret-of-chap"))
        identity = {"wwn": backing.wwn}
        info = target.connection_info(0)
        share_between(orchestrator, guests, backing, info, order, identity=identity)

    @ORDERS
    def test_one_target_that_many_volumes_share(
        self,
        orchestrator: Orchestrator,
        guests: list[Guest],
        storage: Storage,
        order: tuple[int, int],
    ) -> None:
        """NetApp, ZFSSA: any LUN; the session stays while a neighbour needs it."""
        target = storage.target()
        neighbours, ours = storage.backing(), storage.backing()
        target.map(3, neighbours)
        target.map(11, ours)
        neighbour = wish(guests[0], neighbours, target.connection_info(3))
        orchestrator.attached(neighbour)
        assert len(scsi_disks()) == 1, "what nobody has asked for was scanned"
        disk = guests[0].wait_for_disk(neighbours.volume_id).name
        guests[0].write(disk, "before")
        info = target.connection_info(11)
        share_between(orchestrator, guests, ours, info, order, is_clean=False)
        guests[0].write(disk, "after")
        assert guests[0].read(disk) == "after"
        assert sessions() == {target.iqn}
        assert len(scsi_disks()) == 1
        assert orchestrator.detached(neighbour)["disconnected"] is True

    @pytest.mark.exhaustive
    def test_a_session_whose_node_record_is_gone_goes_too(
        self, orchestrator: Orchestrator, guests: list[Guest], storage: Storage
    ) -> None:
        """iscsiadm finds nothing to log out of, and os-brick takes that for done."""
        target, backing = storage.lun(1)
        asked = wish(guests[0], backing, target.connection_info(1))
        orchestrator.attached(asked)
        shutil.rmtree(NODE_RECORDS / target.iqn)
        assert orchestrator.detached(asked)["disconnected"] is True
        assert_clean()


@pytest.mark.usefixtures("multipath")
class TestMultipath:
    @ORDERS
    def test_two_portals(
        self,
        orchestrator: Orchestrator,
        guests: list[Guest],
        storage: Storage,
        order: tuple[int, int],
    ) -> None:
        target, backing = storage.lun(5, **BOTH)
        info = target.connection_info(5, multipath=True)
        share_between(orchestrator, guests, backing, info, order)

    @pytest.mark.exhaustive
    def test_a_list_of_one_portal_is_not_widened(
        self, orchestrator: Orchestrator, guests: list[Guest], storage: Storage
    ) -> None:
        """The array says one: what discovery would find besides is not ours to use."""
        target, backing = storage.lun(**BOTH)
        data = {"target_portals": [PORTAL], "target_iqns": [target.iqn], "target_luns": [0]}
        wanted = wish(guests[0], backing, target.connection_info(0, **data))
        answer = orchestrator.attach(wanted)
        assert (answer.state, answer.warnings) == ("done", ())
        assert len(scsi_disks()) == 1
        orchestrator.detached(wanted)

    def test_an_outage_takes_no_disk_from_who_has_it(
        self,
        orchestrator: Orchestrator,
        guests: list[Guest],
        storage: Storage,
        firewall: Firewall,
    ) -> None:
        target, backing = storage.lun(**BOTH)
        info = target.connection_info(0, multipath=True)
        outage(
            orchestrator,
            guests,
            backing,
            info,
            firewall,
            BOTH["portals"],
            lambda: set(run(*PATH_STATES).split()) == {"failed"},
        )

    def test_a_portal_that_lets_nobody_in_at_first(
        self,
        orchestrator: Orchestrator,
        guests: list[Guest],
        storage: Storage,
        firewall: Firewall,
    ) -> None:
        """Degraded, and told when it no longer is; the path that came late goes with the others."""
        target, backing = storage.lun(**BOTH)
        info = target.connection_info(0, multipath=True)
        firewall.reject(SECOND_PORTAL)
        first, second = (wish(guest, backing, info) for guest in guests)
        answer = orchestrator.attach(first)
        assert (answer.state, len(scsi_disks())) == ("done", 1)
        [warning] = answer.warnings
        assert warning.startswith(f"degraded 1/2: no path by {SECOND_PORTAL}")
        assert "degraded 1/2" in run("attachctl", "list")
        [finding] = orchestrator.client.audit()["findings"]
        assert finding["kind"] == "paths-missing"
        firewall.open()
        assert orchestrator.attach(second).warnings == ()
        assert len(scsi_disks()) == 2
        wait_until(
            lambda: all(row["paths_found"] == 2 for row in orchestrator.client.list_attachments()),
            "the agent has seen the path",
            seconds=2 * WATCH_SECONDS,
        )
        for wanted in (first, second):
            orchestrator.detached(wanted)

    @pytest.mark.exhaustive
    def test_a_path_that_fails_under_a_guest_that_writes(
        self, orchestrator: Orchestrator, guests: list[Guest], storage: Storage
    ) -> None:
        target, backing = storage.lun(**BOTH)
        wanted = wish(guests[0], backing, target.connection_info(0, multipath=True))
        orchestrator.attached(wanted)
        [name] = maps()
        disk = guests[0].wait_for_disk(backing.volume_id).name
        for number, path in enumerate(sorted(scsi_disks())):
            run("multipathd", "fail", "path", path)
            guests[0].write(disk, f"without-{path}", offset_mib=number)
            assert guests[0].read(disk, offset_mib=number) == f"without-{path}"
            run("multipathd", "reinstate", "path", path)
        assert maps() == {name}
        orchestrator.detached(wanted)

    @pytest.mark.exhaustive
    def test_a_path_that_the_request_does_not_name(
        self, orchestrator: Orchestrator, guests: list[Guest], storage: Storage
    ) -> None:
        """Somebody has logged in to another target that shows the volume: a third path."""
        target, backing = storage.lun(**BOTH)
        other = storage.target()
        other.map(0, backing)
        wanted = wish(guests[0], backing, target.connection_info(0, multipath=True))
        orchestrator.attached(wanted)
        record = ("iscsiadm", "-m", "node", "-T", other.iqn, "-p", PORTAL)
        run(*record, "-o", "new")
        run(*record, "--login")
        wait_until(lambda: len(slaves(maps())) == 3, "the map has its third path", seconds=60)
        assert orchestrator.detached(wanted)["disconnected"] is True
        assert (scsi_disks(), maps()) == (set(), set())
        assert sessions() == {other.iqn}, "a session that is not ours was ended"
        run(*record, "--logout")
        run(*record, "-o", "delete")

    @pytest.mark.exhaustive
    def test_a_map_that_has_outlived_its_paths(
        self, orchestrator: Orchestrator, guests: list[Guest], storage: Storage
    ) -> None:
        """They went under the guest, which holds the map open: nothing leads to it any more."""
        target, backing = storage.lun(**BOTH)
        wanted = wish(guests[0], backing, target.connection_info(0, multipath=True))
        orchestrator.attached(wanted)
        kept = maps()
        for path in scsi_disks():
            Path(f"/sys/block/{path}/device/delete").write_text("1")
        wait_until(lambda: not scsi_disks(), "the paths have gone", seconds=60)
        assert maps() == kept
        assert orchestrator.detached(wanted)["disconnected"] is True
