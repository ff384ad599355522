"""Limits of a disk change under a guest that runs, and stay over its next start."""

import pytest

from agent.model.outcome import Answer
from tests.functional.orchestrator import Orchestrator, disks_of, wish
from tests.lab.guest import Guest
from tests.lab.loop_volume import LoopVolume

pytestmark = pytest.mark.real


def done(orchestrator: Orchestrator, accepted: Answer) -> dict[str, object]:
    answer = orchestrator.finish(accepted)
    assert answer.state == "done", answer
    assert isinstance(answer.result, dict)
    return answer.result


def test_limits_are_changed_and_taken_away(
    orchestrator: Orchestrator, guests: list[Guest], volume: LoopVolume
) -> None:
    client, guest = orchestrator.client, guests[0]
    wanted = wish(guest, volume, disk={"iotune": {"read_iops_sec": 900}})
    orchestrator.attached(wanted)
    attachment_id = wanted["attachment_id"]
    limits = {"total_iops_sec": 500, "total_iops_sec_max": 1000}
    in_force = done(orchestrator, client.set_iotune(attachment_id, limits))
    assert {name: value for name, value in in_force.items() if name in limits} == limits
    assert in_force["read_iops_sec"] == 0
    for disk in disks_of(guest, wanted):
        assert disk.findtext("iotune/total_iops_sec") == "500"
        assert disk.find("iotune/read_iops_sec") is None
    unlimited = done(orchestrator, client.set_iotune(attachment_id, {}))
    assert {value for name, value in unlimited.items() if name.endswith("_sec")} == {0}
    for disk in disks_of(guest, wanted):
        assert disk.findtext("iotune/total_iops_sec") in (None, "0")
    name = guest.wait_for_disk(volume.volume_id).name
    guest.write(name, "still-there")
    assert guest.read(name) == "still-there"
    orchestrator.detached(wanted)


def test_what_qemu_does_not_take_is_refused_before_it_is_asked(
    orchestrator: Orchestrator, guests: list[Guest], volume: LoopVolume
) -> None:
    wanted = wish(guests[0], volume)
    orchestrator.attached(wanted)
    answer = orchestrator.client.set_iotune(
        wanted["attachment_id"], {"total_iops_sec": 9, "read_iops_sec": 9}
    )
    assert answer.error is not None
    assert (answer.state, answer.error.code) == ("refused", "invalid")
    orchestrator.detached(wanted)
