"""Guests of one host, each an initiator of its own, at a target in user space (tgtd)."""

import shutil
import uuid
from collections.abc import Iterator

import pytest

from agent.model.guest_iscsi import initiator_name
from tests.functional.cluster import RESERVING, Member, fence_each_other
from tests.functional.conftest import MakeVolume
from tests.functional.orchestrator import Orchestrator, Wish, disks_of
from tests.functional.orchestrator import wish as loop_wish
from tests.lab.guest import Guest, block_of
from tests.lab.iscsi_target import IscsiTarget
from tests.lab.lab import Lab

pytestmark = [
    pytest.mark.real,
    pytest.mark.skipif(shutil.which("tgtd") is None, reason="tgt is not installed"),
]


@pytest.fixture
def target(lab: Lab, orchestrator: Orchestrator) -> Iterator[IscsiTarget]:
    if "guest-initiator" in orchestrator.client.describe()["missing"]:
        pytest.skip("qemu-block-extra is not installed")
    directory = lab.directory / "targets"
    directory.mkdir(exist_ok=True)
    with IscsiTarget(lab.libvirtd.enclosure, directory, str(uuid.uuid4())) as target:
        yield target


def wish(guest: Guest, target: IscsiTarget, **other: object) -> Wish:
    return {
        "attachment_id": str(uuid.uuid4()),
        "instance_id": guest.uuid,
        "volume_id": target.volume_id,
        "connection_info": target.connection_info(),
        "initiator": "instance",
        "multiattach": True,
        "size_bytes": target.size_bytes,
        "disk": RESERVING,
        **other,
    }


def test_two_guests_of_one_host_fence_each_other(
    orchestrator: Orchestrator, guests: list[Guest], target: IscsiTarget
) -> None:
    wishes = [wish(guest, target) for guest in guests[:2]]
    for wanted in wishes:
        connector = orchestrator.client.get_connector(wanted["instance_id"])
        assert connector["initiator"] == initiator_name(wanted["instance_id"])
        orchestrator.attached(wanted)
    assert target.initiators() == {initiator_name(guest.uuid) for guest in guests[:2]}
    first, second = (
        Member(guest, target.volume_id, key)
        for guest, key in zip(guests, ("0xa", "0xb"), strict=False)
    )
    fence_each_other(first, second)
    assert [guest.state for guest in guests[:2]] == ["running", "running"]
    second.clear()
    assert orchestrator.detached(wishes[0])["disconnected"] is True
    assert target.initiators() == {initiator_name(guests[1].uuid)}
    second.write("alone")
    assert orchestrator.detached(wishes[1])["disconnected"] is True
    assert target.initiators() == set()


def test_a_disk_that_is_no_lun_goes_the_same_way(
    orchestrator: Orchestrator, guests: list[Guest], target: IscsiTarget
) -> None:
    wanted = wish(guests[0], target, disk={})
    orchestrator.attached(wanted)
    name = guests[0].wait_for_disk(target.volume_id).name
    guests[0].write(name, "by-virtio")
    assert guests[0].read(name) == "by-virtio"
    live, defined = disks_of(guests[0], wanted)
    for disk in (live, defined):
        assert disk.get("type") == "network"
    orchestrator.detached(wanted)


def test_a_disk_goes_over_to_an_initiator_of_the_guests_own_and_back(
    orchestrator: Orchestrator, guests: list[Guest], target: IscsiTarget, make_volume: MakeVolume
) -> None:
    guest, first, last = guests[0], make_volume(), make_volume()
    own = wish(guest, target, disk={}, multiattach=False)
    wanted = loop_wish(guest, first)
    orchestrator.attached(wanted)
    disk = guest.wait_for_disk(first.volume_id).name
    guest.write(disk, "before", offset_mib=3)
    info = target.connection_info()
    info["data"]["auth_password"] = "another-secret"
    refused = orchestrator.swap(wanted, {**own, "connection_info": info})
    assert (refused.state, refused.error and refused.error.code) == ("undone", "auth-failed")
    assert target.initiators() == set()

    answer = orchestrator.swap(wanted, own)
    assert answer.state == "done", answer
    assert target.initiators() == {initiator_name(guest.uuid)}
    assert guest.read(disk, offset_mib=3) == "before"
    guest.write(disk, "by-itself", offset_mib=4)
    assert target.file.read_bytes()[4 << 20 :].startswith(block_of("by-itself"))
    first.assert_unused()

    wanted = loop_wish(guest, last)
    answer = orchestrator.swap(own, wanted)
    assert answer.state == "done", answer
    assert target.initiators() == set()
    assert [last.read(3), last.read(4)] == [block_of("before"), block_of("by-itself")]
    orchestrator.detached(wanted)


@pytest.mark.parametrize(
    ("wrong", "code"),
    [
        ({"auth_password": "another-secret"}, "auth-failed"),
        ({"target_portal": "127.0.0.1:1"}, "connect-failed"),
        ({"target_iqn": "iqn.2026-01.org.example:nobody"}, "connect-failed"),
        ({"target_lun": 9}, "connect-failed"),
    ],
    ids=["password", "portal", "target", "lun"],
)
def test_what_the_target_refuses_leaves_nothing(
    orchestrator: Orchestrator,
    guests: list[Guest],
    target: IscsiTarget,
    wrong: dict[str, object],
    code: str,
) -> None:
    info = target.connection_info()
    info["data"].update(wrong)
    undone = orchestrator.attach(wish(guests[0], target, connection_info=info))
    assert (undone.state, undone.error and undone.error.code) == ("undone", code), undone.error
    assert undone.error is not None
    assert "secret" not in undone.error.detail
    assert target.initiators() == set()
