"""Disks plugged by plain libvirt calls are taken over, and then they are as the agent's own."""

import uuid
from typing import Any

import libvirt
import pytest

from tests.functional.conftest import MakeVolume
from tests.functional.orchestrator import Orchestrator, Wish, halves, wish
from tests.lab.guest import Guest
from tests.lab.loop_volume import LoopVolume

pytestmark = pytest.mark.real

BOTH = libvirt.VIR_DOMAIN_AFFECT_LIVE | libvirt.VIR_DOMAIN_AFFECT_CONFIG


def plug_as_nova(guest: Guest, volume: LoopVolume, target_dev: str) -> None:
    """As a compute service does it: serial and alias are of the volume's id."""
    plug(
        guest,
        volume,
        target_dev,
        f"<serial>{volume.volume_id}</serial><alias name='ua-{volume.volume_id}'/>",
    )


def plug_by_hand(guest: Guest, volume: LoopVolume, target_dev: str) -> None:
    """As 'virsh attach-disk --persistent' does it: libvirt chooses everything else."""
    plug(guest, volume, target_dev, "")


def plug(guest: Guest, volume: LoopVolume, target_dev: str, more: str) -> None:
    bus = "virtio" if target_dev.startswith("vd") else "scsi"
    guest.domain.attachDeviceFlags(
        f"<disk type='block' device='disk'><driver name='qemu' type='raw' cache='none'/>"
        f"<source dev='{volume.path}'/><target dev='{target_dev}' bus='{bus}'/>{more}</disk>",
        BOTH,
    )


def disks_at(guest: Guest, target_dev: str) -> list[bool]:
    return [f"<target dev='{target_dev}'" in xml for xml in halves(guest)]


def imported(orchestrator: Orchestrator, *wanted: Wish, state: str = "imported") -> list[Any]:
    entries = [{"attachment": one} for one in wanted]
    looked = orchestrator.client.import_attachments(entries)
    assert looked["dry_run"]
    rows = orchestrator.client.import_attachments(entries, dry_run=False)["entries"]
    assert [row["state"] for row in rows] == [state] * len(wanted), rows
    return list(rows)


@pytest.mark.parametrize(
    ("plug_it", "target_dev"),
    [(plug_as_nova, "vdz"), (plug_by_hand, "vdz"), (plug_by_hand, "sdz")],
    ids=["as a compute service", "by hand", "by hand on scsi"],
)
def test_a_disk_is_taken_over_grows_is_limited_and_goes(
    orchestrator: Orchestrator,
    guests: list[Guest],
    volume: LoopVolume,
    plug_it: Any,
    target_dev: str,
) -> None:
    client, guest = orchestrator.client, guests[0]
    plug_it(guest, volume, target_dev)
    before = halves(guest)
    wanted = wish(guest, volume)
    [row] = imported(orchestrator, wanted)
    assert (row["disk"]["target_dev"], row["device"]["path"]) == (target_dev, volume.path)
    assert halves(guest) == before, "nothing in the guest changes"
    assert imported(orchestrator, wanted, state="already")
    assert client.audit()["findings"] == []

    volume.grow(128)
    grown = orchestrator.finish(client.extend(volume.volume_id, volume.size_bytes))
    assert isinstance(grown.result, list)
    assert grown.result[0]["guest_size_bytes"] == volume.size_bytes, grown
    limited = orchestrator.finish(
        client.set_iotune(wanted["attachment_id"], {"total_iops_sec": 500})
    )
    assert limited.state == "done", limited
    assert client.audit()["findings"] == []

    assert orchestrator.detached(wanted)["disconnected"]
    assert disks_at(guest, target_dev) == [False, False]


def test_a_disk_by_hand_is_found_after_the_next_start(
    orchestrator: Orchestrator, guests: list[Guest], volume: LoopVolume
) -> None:
    """What libvirt calls it may have changed, and so may its address."""
    guest = guests[1]
    plug_by_hand(guest, volume, "vdz")
    wanted = wish(guest, volume)
    imported(orchestrator, wanted)
    guest.destroy()
    guest.start()
    guest.wait_ready()
    assert orchestrator.client.audit()["findings"] == []
    orchestrator.detached(wanted)
    assert disks_at(guest, "vdz") == [False, False]


@pytest.mark.parametrize("plug_it", [plug_as_nova, plug_by_hand])
def test_a_disk_moves_to_another_volume(
    orchestrator: Orchestrator, guests: list[Guest], make_volume: MakeVolume, plug_it: Any
) -> None:
    guest, volume, other = guests[0], make_volume(), make_volume()
    plug_it(guest, volume, "vdz")
    wanted, new = wish(guest, volume), wish(guest, other)
    imported(orchestrator, wanted)
    swapped = orchestrator.finish(orchestrator.client.swap(wanted["attachment_id"], new))
    assert swapped.state == "done", swapped
    assert orchestrator.client.audit()["findings"] == []
    for xml in halves(guest):
        assert (volume.path in xml, other.path in xml) == (False, True)
    orchestrator.detached(new)
    assert disks_at(guest, "vdz") == [False, False]


def test_the_agents_next_life_has_what_was_imported(
    orchestrator: Orchestrator, guests: list[Guest], volume: LoopVolume, agent: Any
) -> None:
    guest = guests[0]
    plug_as_nova(guest, volume, "vdz")
    wanted = wish(guest, volume)
    imported(orchestrator, wanted)
    agent.kill()
    agent.start()
    agent.wait_connected()
    assert orchestrator.client.audit()["findings"] == []
    orchestrator.detached(wanted)


def test_what_is_another_disk_is_refused_and_stays(
    orchestrator: Orchestrator, guests: list[Guest], make_volume: MakeVolume
) -> None:
    """And harms no other entry."""
    guest, volume, other = guests[0], make_volume(), make_volume()
    plug_as_nova(guest, volume, "vdz")
    elsewhere = {**wish(guest, other), "volume_id": volume.volume_id}
    entries = [
        {"attachment": elsewhere},
        {"attachment": {**wish(guest, volume), "instance_id": str(uuid.uuid4())}},
        {"attachment": wish(guest, volume, multiattach=True)},
        {"attachment": (wanted := wish(guest, volume))},
    ]
    rows = orchestrator.client.import_attachments(entries, dry_run=False)["entries"]
    codes = [row["error"] and row["error"]["code"] for row in rows]
    assert codes == ["wrong-device", "unknown-instance", "wrong-device", None]
    assert disks_at(guest, "vdz") == [True, True]
    orchestrator.detached(wanted)
