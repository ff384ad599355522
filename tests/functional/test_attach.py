"""attach: every kind of guest, bus and disk policy, asked of libvirt, QEMU and the guest itself."""

import json
import subprocess
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import libvirt
import libvirt_qemu
import pytest

from agent.guest.xml import element, to_text
from agent.model.moment import rfc3339
from tests.functional.conftest import BARE, MakeVolume
from tests.functional.orchestrator import (
    Orchestrator,
    Wish,
    alias_of,
    assert_no_disk,
    disks_of,
    step_states,
    wish,
)
from tests.lab.guest import Guest, Shape, block_of
from tests.lab.lab import Lab
from tests.lab.loop_volume import LoopVolume
from tests.lab.patience import wait_until

pytestmark = pytest.mark.real

LIVE = libvirt.VIR_DOMAIN_AFFECT_LIVE
CONFIG = libvirt.VIR_DOMAIN_AFFECT_CONFIG

CROWDED = Shape(
    has_system=False,
    spare_ports=2,
    memory_mib=64,
    disks=[
        to_text(
            element(
                "disk",
                element("target", dev=f"sd{chr(97 + unit // 26)}{chr(97 + unit % 26)}", bus="scsi"),
                element("address", type="drive", controller=0, bus=0, target=0, unit=unit),
                type="file",
                device="cdrom",
            )
        )
        for unit in range(256)
    ],
)
"""Every unit of its SCSI controller has a drive without a medium."""


@pytest.fixture
def make_guest(lab: Lab) -> Iterator[Callable[..., Guest]]:
    """Guests of this test only: without a system, unless they are given one."""
    made: list[Guest] = []

    def make(shape: Shape = BARE, **how: bool) -> Guest:
        made.append(lab.guest(shape=shape, **how))
        return made[-1]

    yield make
    for guest in made:
        assert_no_disk([guest])
        guest.destroy()
        if guest.exists():
            guest.undefine()


@pytest.mark.parametrize("bus", ["virtio", "scsi"])
def test_a_running_guest_has_the_disk_at_one_place_in_both_halves(
    orchestrator: Orchestrator, guests: list[Guest], volume: LoopVolume, bus: str
) -> None:
    guest = guests[0]
    wanted = wish(guest, volume, disk={"bus": bus})
    result = orchestrator.attached(wanted)
    seen = guest.wait_for_disk(volume.volume_id)
    assert seen.size_bytes == volume.size_bytes
    assert not seen.read_only
    guest.write(seen.name, "hello", offset_mib=3)
    assert volume.read(offset_mib=3) == block_of("hello")

    assert result["device"]["path"] == volume.path
    assert result["device"]["size_bytes"] == volume.size_bytes
    disk = result["disk"]
    assert (disk["live"], disk["persistent"]) == (True, True)
    assert disk["alias"] == alias_of(wanted)
    live, inactive = disks_of(guest, wanted)
    for half in (live, inactive):
        assert half.find("target").get("dev") == disk["target_dev"]
        assert dict(half.find("address").attrib) == disk["address"]
        assert half.findtext("serial") == volume.volume_id
        assert half.find("source").get("dev") == volume.path
        assert half.find("driver").get("type") == "raw"
    assert inactive.find("backingStore") is not None
    orchestrator.detached(wanted)


def test_a_paused_guest_has_the_disk_when_it_goes_on(
    orchestrator: Orchestrator, guests: list[Guest], volume: LoopVolume
) -> None:
    guest = guests[1]
    wanted = wish(guest, volume)
    guest.pause()
    try:
        orchestrator.attached(wanted)
        assert guest.state == "paused"
    finally:
        guest.resume()
    assert guest.wait_for_disk(volume.volume_id)
    orchestrator.detached(wanted)


def test_a_guest_that_is_shut_off_has_the_disk_when_it_starts(
    orchestrator: Orchestrator, make_guest: Callable[..., Guest], volume: LoopVolume
) -> None:
    guest = make_guest(start=False)
    wanted = wish(guest, volume, disk={"bus": "scsi"})
    disk = orchestrator.attached(wanted)["disk"]
    assert (disk["live"], disk["persistent"]) == (False, True)
    volume.assert_unused()

    guest.start()
    assert len(volume.users()) == 1
    live, inactive = disks_of(guest, wanted)
    assert dict(live.find("address").attrib) == dict(inactive.find("address").attrib)
    orchestrator.detached(wanted)


def test_a_transient_guest_has_no_other_half(
    orchestrator: Orchestrator, make_guest: Callable[..., Guest], volume: LoopVolume
) -> None:
    guest = make_guest(is_persistent=False)
    wanted = wish(guest, volume, disk={"bus": "scsi"})
    disk = orchestrator.attached(wanted)["disk"]
    assert (disk["live"], disk["persistent"]) == (True, False)
    orchestrator.detached(wanted)


@pytest.mark.parametrize("start", [True, False], ids=["running", "shut-off"])
def test_another_controller_is_added_when_one_is_full(
    orchestrator: Orchestrator,
    make_guest: Callable[..., Guest],
    make_volume: MakeVolume,
    start: bool,
) -> None:
    guest = make_guest(CROWDED, start=start)
    wishes = [wish(guest, make_volume(), disk={"bus": "scsi"}) for _ in range(2)]
    places = [orchestrator.attached(wanted)["disk"]["address"] for wanted in wishes]
    assert [(place["controller"], place["unit"]) for place in places] == [("1", "0"), ("1", "1")]
    for wanted in wishes:
        orchestrator.detached(wanted)


def test_the_lowest_free_unit_is_used_again(
    orchestrator: Orchestrator, make_guest: Callable[..., Guest], make_volume: MakeVolume
) -> None:
    guest = make_guest()
    wishes = [wish(guest, make_volume(), disk={"bus": "scsi"}) for _ in range(3)]
    for wanted in wishes:
        orchestrator.attached(wanted)
    orchestrator.detached(wishes[1])
    wishes[1] = wish(guest, make_volume(), disk={"bus": "scsi"})
    assert orchestrator.attached(wishes[1])["disk"]["address"]["unit"] == "1"
    for wanted in wishes:
        orchestrator.detached(wanted)


def test_iothread_and_queues_are_what_qemu_uses(
    orchestrator: Orchestrator, guests: list[Guest], volume: LoopVolume
) -> None:
    guest = guests[0]
    wanted = wish(guest, volume, disk={"iothread": 2, "queues": 3, "io": "native"})
    orchestrator.attached(wanted)
    device = f"/machine/peripheral/{alias_of(wanted)}"
    assert ask_qemu(guest, "qom-get", path=device, property="num-queues") == 3
    thread = ask_qemu(guest, "qom-get", path=f"{device}/virtio-backend", property="iothread")
    assert thread == "/objects/iothread2"
    orchestrator.detached(wanted)


@pytest.mark.parametrize(
    "limits",
    [
        {
            "read_bytes_sec": 8_000_000,
            "write_bytes_sec": 4_000_000,
            "total_iops_sec": 900,
            "total_iops_sec_max": 1800,
            "total_iops_sec_max_length": 2,
        },
        {
            "total_iops_sec": 900,
            "total_iops_sec_max": 10**15 // 2,
            "total_iops_sec_max_length": 2,
        },
    ],
    ids=["usual", "largest-burst"],
)
def test_limits_are_in_force(
    orchestrator: Orchestrator, guests: list[Guest], volume: LoopVolume, limits: dict[str, int]
) -> None:
    wanted = wish(guests[0], volume, disk={"iotune": limits})
    answer = orchestrator.attach(wanted)
    assert (answer.state, answer.warnings) == ("done", ())
    target_dev = (answer.result or {})["disk"]["target_dev"]
    for half in (LIVE, CONFIG):
        assert limits.items() <= guests[0].domain.blockIoTune(target_dev, half).items()
    orchestrator.detached(wanted)


def test_block_sizes_and_discard_reach_the_guests_disk(
    orchestrator: Orchestrator, guests: list[Guest], volume: LoopVolume
) -> None:
    sizes = {"logical": 4096, "physical": 4096}
    wanted = wish(guests[0], volume, disk={"block_size": sizes, "discard": "unmap"})
    orchestrator.attached(wanted)
    device = f"/machine/peripheral/{alias_of(wanted)}"
    for name, size_bytes in sizes.items():
        found = ask_qemu(guests[0], "qom-get", path=device, property=f"{name}_block_size")
        assert found == size_bytes
    for disk in disks_of(guests[0], wanted):
        assert disk.find("driver").get("discard") == "unmap"
    orchestrator.detached(wanted)


def test_a_read_only_attachment_cannot_be_written(
    orchestrator: Orchestrator, guests: list[Guest], volume: LoopVolume
) -> None:
    wanted = wish(guests[0], volume, access_mode="ro", disk={"bus": "scsi"})
    orchestrator.attached(wanted)
    assert guests[0].wait_for_disk(volume.volume_id).read_only
    orchestrator.detached(wanted)


def test_a_loop_device_as_lun_is_refused_before_qemu_sees_it(
    orchestrator: Orchestrator, guests: list[Guest], volume: LoopVolume
) -> None:
    """type lun passes SCSI commands on, and a loop device takes none: the rest is for real LUNs."""
    answer = orchestrator.attach(wish(guests[0], volume, disk={"bus": "scsi", "type": "lun"}))
    assert answer.state == "undone"
    assert answer.error is not None
    assert answer.error.code == "unsupported"
    assert step_states(answer)["connect-volume"] == "reverted"
    assert step_states(answer)["plug-disk"] == "planned"


BOOTS_FROM_A_DRIVE = Shape(
    has_system=False,
    spare_ports=4,
    memory_mib=32,
    disks=[
        "<disk type='file' device='cdrom'><target dev='sda' bus='scsi'/><boot order='1'/></disk>"
    ],
)


def test_a_boot_order_is_the_guests_unless_it_is_taken(
    orchestrator: Orchestrator, volume: LoopVolume, make_guest: Callable[..., Guest]
) -> None:
    guest = make_guest(BOOTS_FROM_A_DRIVE)
    answer = orchestrator.attach(wish(guest, volume, disk={"bus": "scsi", "boot_order": 1}))
    assert answer.error is not None
    assert "boot_order 1 is disk sda's already" in answer.error.detail
    assert step_states(answer)["connect-volume"] == "planned"

    wanted = wish(guest, volume, disk={"bus": "scsi", "boot_order": 2})
    orchestrator.attached(wanted)
    orders = [disk.find("boot").get("order") for disk in disks_of(guest, wanted)]
    assert orders == ["2", "2"]
    orchestrator.detached(wanted)


def test_a_boot_order_beside_boot_devices_is_refused(
    orchestrator: Orchestrator, volume: LoopVolume, make_guest: Callable[..., Guest]
) -> None:
    """libvirt gives every domain a boot device that has no order: it would refuse the plug."""
    answer = orchestrator.attach(wish(make_guest(), volume, disk={"bus": "scsi", "boot_order": 1}))
    assert answer.error is not None
    assert (answer.state, answer.error.code) == ("undone", "invalid")
    assert step_states(answer)["connect-volume"] == "planned"


# --- a half that an earlier crash has left ------------------------------------------


@pytest.mark.parametrize("half", [LIVE, CONFIG], ids=["running guest", "definition"])
def test_a_disk_in_one_half_is_completed(
    orchestrator: Orchestrator, guests: list[Guest], volume: LoopVolume, half: int
) -> None:
    """Plugged by an agent that died, and whose journal is lost."""
    guest = guests[2]
    wanted = wish(guest, volume, disk={"bus": "scsi"})
    guest.domain.attachDeviceFlags(planned_xml(orchestrator, wanted), half)
    [before] = disks_of(guest, wanted)

    disk = orchestrator.attached(wanted)["disk"]
    assert (disk["live"], disk["persistent"]) == (True, True)
    live, inactive = disks_of(guest, wanted)
    for found in (live, inactive):
        assert dict(found.find("address").attrib) == dict(before.find("address").attrib)
    assert guest.wait_for_disk(volume.volume_id)
    orchestrator.detached(wanted)


@pytest.mark.parametrize("half", [LIVE, CONFIG], ids=["running guest", "definition"])
def test_attaching_again_completes_a_half_that_somebody_took_out(
    orchestrator: Orchestrator, guests: list[Guest], volume: LoopVolume, half: int
) -> None:
    guest = guests[2]
    wanted = wish(guest, volume, disk={"bus": "scsi"})
    before = orchestrator.attached(wanted)["disk"]
    guest.domain.detachDeviceAlias(alias_of(wanted), half)
    wait_until(lambda: len(disks_of(guest, wanted)) == 1, "one half is left", seconds=10)
    [finding] = orchestrator.client.audit()["findings"]
    assert finding["attachment_id"] == wanted["attachment_id"]

    assert orchestrator.attached(wanted)["disk"] == before
    assert len(disks_of(guest, wanted)) == 2
    orchestrator.detached(wanted)


# --- refusals: a clear error, and no storage call -----------------------------------


@pytest.mark.parametrize(
    ("disk", "said"),
    [
        ({"io": "native", "cache": "writeback"}, "io native needs disk.cache none or directsync"),
        ({"iotune": {"total_iops_sec": 9, "read_iops_sec": 9}}, "total_iops_sec cannot go with"),
        ({"type": "lun"}, "type lun needs bus scsi"),
        ({"bus": "scsi", "iothread": 1}, "iothread is a property of the controller"),
        ({"bus": "scsi", "queues": 2}, "queues needs bus virtio"),
        ({"target_dev": "sdb"}, "must start with vd"),
        ({"block_size": {"logical": 1000}}, "power of two"),
        ({"reservations": "managed"}, "reservations need type lun"),
        ({"colour": "red"}, "colour"),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else "",
)
def test_a_policy_that_cannot_be_is_refused(
    orchestrator: Orchestrator,
    guests: list[Guest],
    volume: LoopVolume,
    disk: dict[str, Any],
    said: str,
) -> None:
    assert_refused(orchestrator, wish(guests[0], volume, disk=disk), "invalid", said)


@pytest.mark.parametrize(
    ("different", "code", "said"),
    [
        ({"volume_id": "v" * 37}, "invalid", "at most 36"),
        ({"attachment_id": "with space"}, "invalid", "attachment_id"),
        ({"size_bytes": 0}, "invalid", "size_bytes"),
        (
            {"connection_info": {"driver_volume_type": "local", "device_path": "/dev/loop0"}},
            "invalid",
            "from_cinder",
        ),
        (
            {
                "connection_info": {
                    "driver_volume_type": "nfs",
                    "data": {"export": "127.0.0.1:/e", "name": "volume-1", "format": "qcow2"},
                },
                "multiattach": True,
            },
            "invalid",
            "qcow2",
        ),
        ({"connection_info": {"driver_volume_type": "carrier"}}, "invalid", "driver_volume_type"),
        (
            {
                "connection_info": {
                    "driver_volume_type": "local",
                    "data": {"device_path": "/etc/passwd"},
                }
            },
            "invalid",
            "allowed_paths",
        ),
        (
            {
                "connection_info": {
                    "driver_volume_type": "local",
                    "data": {"device_path": "/dev/loop999"},
                }
            },
            "invalid",
            "there is no /dev/loop999",
        ),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else "",
)
def test_an_attachment_that_cannot_be_is_refused(
    orchestrator: Orchestrator,
    guests: list[Guest],
    volume: LoopVolume,
    different: dict[str, Any],
    code: str,
    said: str,
) -> None:
    assert_refused(orchestrator, {**wish(guests[0], volume), **different}, code, said)


def test_an_instance_that_is_not_here_is_unknown(
    orchestrator: Orchestrator, guests: list[Guest], volume: LoopVolume
) -> None:
    wanted = {**wish(guests[0], volume), "instance_id": "11111111-2222-3333-4444-555555555555"}
    assert_undone(orchestrator, wanted, "unknown-instance", "no domain 11111111")


def test_no_file_holds_a_passphrase_unless_the_operator_says_so(
    orchestrator: Orchestrator, guests: list[Guest], volume: LoopVolume
) -> None:
    encryption = {"format": "luks", "secret_file": "/run/key"}
    wanted = wish(guests[0], volume, encryption=encryption)
    answer = orchestrator.attach(wanted)
    assert answer.error is not None
    assert (answer.state, answer.error.code) == ("undone", "unsupported")
    assert "secret_directories of this host is empty" in answer.error.detail
    assert step_states(answer)["connect-volume"] == "planned"


def test_an_iothread_that_is_not_there_is_named(
    orchestrator: Orchestrator, guests: list[Guest], volume: LoopVolume
) -> None:
    wanted = wish(guests[0], volume, disk={"iothread": 7})
    assert_undone(orchestrator, wanted, "invalid", "iothread 7: the domain has iothreads 1, 2")


def test_a_target_name_that_is_taken_is_named(
    orchestrator: Orchestrator, guests: list[Guest], make_volume: MakeVolume
) -> None:
    first = wish(guests[0], make_volume(), disk={"target_dev": "vdq"})
    assert orchestrator.attached(first)["disk"]["target_dev"] == "vdq"
    second = wish(guests[0], make_volume(), disk={"target_dev": "vdq"})
    assert_undone(orchestrator, second, "no-free-address", "vdq is taken")
    orchestrator.detached(first)


@pytest.mark.parametrize("bus", ["virtio", "scsi"])
def test_a_guest_that_is_full_is_told_so(
    orchestrator: Orchestrator, make_guest: Callable[..., Guest], volume: LoopVolume, bus: str
) -> None:
    shape = Shape(**{**vars(CROWDED), "spare_ports": 0})
    guest = make_guest(shape, start=False)
    assert_undone(
        orchestrator, wish(guest, volume, disk={"bus": bus}), "no-free-address", "no free PCI"
    )


def test_a_port_whose_hotplug_is_off_is_no_free_one(
    orchestrator: Orchestrator, make_guest: Callable[..., Guest], volume: LoopVolume
) -> None:
    guest = make_guest(Shape(has_system=False, spare_ports=0, closed_ports=2, memory_mib=32))
    planned = orchestrator.client.plan("attach", attach_request(wish(guest, volume)))
    assert planned["refusal"]["code"] == "no-free-address"
    assert_undone(orchestrator, wish(guest, volume), "no-free-address", "no free PCI")


def test_the_same_volume_twice_in_one_guest_is_refused(
    orchestrator: Orchestrator, guests: list[Guest], volume: LoopVolume
) -> None:
    there = wish(guests[0], volume, multiattach=True)
    orchestrator.attached(there)
    again = wish(guests[0], volume, multiattach=True)
    assert_refused(orchestrator, again, "sharing-conflict", there["attachment_id"])
    orchestrator.detached(there)


def test_what_the_host_itself_has_mounted_is_not_given_to_a_guest(
    orchestrator: Orchestrator, guests: list[Guest], volume: LoopVolume, tmp_path: Path
) -> None:
    subprocess.run(["mkfs.ext4", "-q", volume.path], check=True)
    subprocess.run(["mount", volume.path, str(tmp_path)], check=True)
    try:
        answer = orchestrator.attach(wish(guests[0], volume))
        assert (answer.state, step_states(answer)["plug-disk"]) == ("undone", "planned")
        assert answer.error is not None
        assert answer.error.code == "sharing-conflict"
        assert f"mounted at {tmp_path}" in answer.error.detail
    finally:
        subprocess.run(["umount", str(tmp_path)], check=True)
    again = wish(guests[0], volume)
    orchestrator.attached(again)
    orchestrator.detached(again)


@pytest.mark.parametrize(
    "different",
    [{"identity": {"wwn": "0x600140500000000000000000000000ff"}}, {"size_bytes": 1 << 30}],
    ids=["identity", "size"],
)
def test_a_device_that_is_not_the_volume_is_never_plugged(
    orchestrator: Orchestrator, guests: list[Guest], volume: LoopVolume, different: dict[str, Any]
) -> None:
    answer = orchestrator.attach({**wish(guests[0], volume), **different})
    assert answer.state == "undone"
    assert answer.error is not None
    assert answer.error.code == "wrong-device"
    assert step_states(answer)["plug-disk"] == "planned"
    volume.assert_unused()
    assert_refused(orchestrator, wish(guests[1], volume), "wrong-device", "quarantined")
    released = orchestrator.client.release_quarantine(volume.volume_id)
    assert released["released"]


def test_plan_tells_the_xml_and_does_nothing(
    orchestrator: Orchestrator, guests: list[Guest], volume: LoopVolume
) -> None:
    wanted = wish(guests[0], volume, multiattach=True)
    xml = planned_xml(orchestrator, wanted)
    assert alias_of(wanted) in xml
    assert "<shareable/>" in xml
    assert volume.path in xml


def planned_xml(orchestrator: Orchestrator, wanted: Wish) -> str:
    return str(orchestrator.client.plan("attach", attach_request(wanted))["disk_xml"])


def attach_request(wanted: Wish) -> dict[str, Any]:
    return {
        "request_id": wanted["attachment_id"],
        "not_after": rfc3339(datetime.now(UTC) + timedelta(hours=1)),
        "attachment": wanted,
    }


def assert_refused(orchestrator: Orchestrator, wanted: Wish, code: str, said: str) -> None:
    """By the call itself: nothing is in the journal."""
    before = len(orchestrator.client.list_operations())
    answer = orchestrator.client.attach(wanted)
    assert answer.state == "refused", answer
    assert answer.error is not None
    assert answer.error.code == code
    assert said in answer.error.detail
    assert answer.steps == ()
    assert len(orchestrator.client.list_operations()) == before


def assert_undone(orchestrator: Orchestrator, wanted: Wish, code: str, said: str) -> None:
    """By the guest's state, before any storage call."""
    answer = orchestrator.attach(wanted)
    assert answer.state == "undone", answer
    assert answer.error is not None
    assert answer.error.code == code
    assert said in answer.error.detail
    assert "nothing was touched" in answer.error.detail
    states = step_states(answer)
    assert states.pop("check-guest") == "reverted"
    assert set(states.values()) == {"planned"}


def ask_qemu(guest: Guest, command: str, **arguments: Any) -> Any:
    question = json.dumps({"execute": command, "arguments": arguments})
    return json.loads(libvirt_qemu.qemuMonitorCommand(guest.domain, question, 0))["return"]
