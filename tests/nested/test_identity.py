"""A device is the volume, or it is not used: LUNs that are given again, leftovers, what stays."""

import pytest

from tests.functional.orchestrator import Orchestrator
from tests.lab.guest import Guest
from tests.nested.inside.leftovers import run, scsi_disks, sessions
from tests.nested.inside.storage import Storage
from tests.nested.inside.wishes import wish

pytestmark = pytest.mark.usefixtures("single_path")


@pytest.mark.exhaustive
def test_what_the_device_says_of_itself_is_told(
    orchestrator: Orchestrator, guests: list[Guest], storage: Storage
) -> None:
    target, backing = storage.lun()
    wanted = wish(guests[0], backing, target.connection_info(0))
    device = orchestrator.attached(wanted)["device"]
    assert device["identity"]["wwn"] == backing.wwn
    assert device["path"].startswith("/dev/disk/by-id/")
    assert device["size_bytes"] == backing.size_bytes
    orchestrator.detached(wanted)


def test_a_lun_that_was_given_to_another_volume(
    orchestrator: Orchestrator, guests: list[Guest], storage: Storage
) -> None:
    target, ours, others = storage.target(), storage.backing(), storage.backing()
    target.map(4, others)
    wanted = wish(guests[0], ours, target.connection_info(4), identity={"wwn": ours.wwn})
    answer = orchestrator.attach(wanted)
    assert answer.error is not None
    assert (answer.state, answer.error.code) == ("undone", "wrong-device")
    assert guests[0].find_disk(ours.volume_id) is None
    [row] = orchestrator.client.list_quarantine()
    assert row["volume_id"] == ours.volume_id
    assert others.wwn in str(row["device"])
    shown = run("attachctl", "quarantine", "list", "--json")
    assert ours.volume_id in shown
    run("attachctl", "quarantine", "release", ours.volume_id)
    assert orchestrator.client.list_quarantine() == []
    # The operator has looked at it: it is nobody's, and goes by hand.
    run("iscsiadm", "-m", "node", "-T", target.iqn, "-u")
    run("iscsiadm", "-m", "node", "-T", target.iqn, "-o", "delete")


@pytest.mark.exhaustive
def test_a_leftover_of_an_earlier_life_is_not_used(
    orchestrator: Orchestrator, guests: list[Guest], storage: Storage
) -> None:
    """The storage gave the number away while the host still had the device (CVE-2023-2088)."""
    target, theirs, ours = storage.target(), storage.backing(), storage.backing()
    target.map(0, theirs)
    run("iscsiadm", "-m", "discovery", "-t", "st", "-p", "127.0.0.1")
    run("iscsiadm", "-m", "node", "-T", target.iqn, "-l")
    run("udevadm", "settle")
    assert len(scsi_disks()) == 1
    target.unmap(0)
    target.map(0, ours)
    wanted = wish(guests[0], ours, target.connection_info(0), identity={"wwn": ours.wwn})
    answer = orchestrator.attach(wanted)
    assert answer.error is not None
    assert answer.error.code == "wrong-device"
    orchestrator.client.release_quarantine(ours.volume_id)
    assert not any(theirs.read())
    run("iscsiadm", "-m", "node", "-T", target.iqn, "-u", check=False)
    run("iscsiadm", "-m", "node", "-T", target.iqn, "-o", "delete", check=False)


@pytest.mark.exhaustive
def test_a_device_that_does_not_go_is_no_success(
    orchestrator: Orchestrator, guests: list[Guest], storage: Storage
) -> None:
    """Somebody has it open: the detach is unsettled, says who, and ends when he lets go."""
    target, backing = storage.lun()
    wanted = wish(guests[0], backing, target.connection_info(0))
    orchestrator.attached(wanted)
    [disk] = scsi_disks()
    run("dmsetup", "create", "holder", "--table", f"0 1024 linear /dev/{disk} 0")
    try:
        accepted = orchestrator.ask_to_detach(wanted)
        waiting = orchestrator.wait_for_state(accepted, "unsettled", seconds=120)
        assert waiting.error is not None
        assert waiting.error.code == "connect-failed"
        assert sessions() == {target.iqn}
    finally:
        run("dmsetup", "remove", "holder")
    answer = orchestrator.finish(accepted)
    assert answer.state == "done"
    assert answer.result is not None
    assert answer.result["disconnected"] is True
