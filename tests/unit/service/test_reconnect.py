"""The volumes of guests are back before they start, or named; and nothing holds up the boot."""

import io
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from math import inf
from pathlib import Path
from typing import Any

import pytest

from agent.errors import ConnectFailed
from agent.journal.record import Held
from agent.journal.store import Journal
from agent.model.attachment import Attachment
from agent.model.connection import NfsConnection, NfsData
from agent.model.device import Device
from agent.model.outcome import Problem
from agent.service.begin import EXIT_JOURNAL, SystemClock
from agent.service.reconnect import EXIT_NOT_ALL, Outcome, Reconnection, Report, run
from agent.steps.reconnect import Lost, counted_on, lost_of, prove_back
from tests.world.storage import Lun, SimulatedCalls, SimulatedConnectors
from tests.world.story import (
    INSTANCES,
    TARGET,
    VOLUMES,
    attached,
    attachment,
    detach,
    volume,
)
from tests.world.world import World

LOCAL = {"driver_volume_type": "local", "data": {"device_path": "/dev/vg/volume-3"}}


@pytest.fixture
def world() -> Iterator[World]:
    """A guest with volumes 1 and 2 of one target and 3, which is this host's own; no power."""
    world = World()
    world.domains.add(INSTANCES[0])
    volume(world, 1)
    volume(world, 2)
    world.storage.luns["/dev/vg/volume-3", 0] = Lun(VOLUMES[2])
    world.start()
    attached(world, 1)
    attached(world, 2, volume=2)
    attached(world, 3, volume=3, connection_info=LOCAL)
    world.lose_power()
    yield world
    world.close()


def lost(world: World) -> list[Lost]:
    world.start()
    found = lost_of(world.storage, world.journal.read(counted_on))
    world.die()
    return found


class TestWhatComesBack:
    def test_all_of_it_and_the_guest_starts(self, world: World) -> None:
        said = world.reconnect()
        assert world.domains.autostart() == []
        assert said.count("back: volume") == 3
        assert said.endswith("all of them are back\n")
        assert "3 of 3 volumes" in said

    def test_a_second_time_there_is_nothing_to_do(self, world: World) -> None:
        world.reconnect()
        before = world.storage.connects
        assert world.reconnect() == (
            "nothing to do: all 3 volumes that attachments count on are here\n"
        )
        assert world.storage.connects == before

    def test_with_fewer_paths_than_the_attach_had_asked_for(self, world: World) -> None:
        each = lost(world)[0]
        wanted = each.counted[0].attachment.model_copy(update={"require_all_paths": True})
        stricter = replace(each, counted=(replace(each.counted[0], attachment=wanted),))
        assert not stricter.attachment.require_all_paths

    def test_a_detach_that_was_under_way_gets_its_volume_too(self, world: World) -> None:
        """The definition has the disk still: the guest must be able to start."""
        world.boot()
        world.start()
        world.domains.guests[INSTANCES[0]].attitude = "stubborn"
        detach(1)(world)
        world.run()
        world.lose_power()
        assert {each.volume_id for each in lost(world)} == set(VOLUMES[:3])

    def test_what_is_withdrawn_stays_away(self, world: World) -> None:
        world.start()
        world.journal.withdraw("att-1")
        world.die()
        assert {each.volume_id for each in lost(world)} == {VOLUMES[1], VOLUMES[2]}

    def test_what_is_quarantined_is_named_and_left_alone(self, world: World) -> None:
        world.start()
        device = world.journal.device_of("att-1")
        assert device is not None
        world.journal.quarantine(VOLUMES[0], device, "nobody knows whose it is")
        world.die()
        said = world.reconnect()
        assert f"volume {VOLUMES[0]} is quarantined and is left alone: nobody knows" in said
        assert VOLUMES[0] not in {each.volume_id for each in world.storage.devices.values()}

    def test_a_volume_that_has_grown_meanwhile_is_itself(self, world: World) -> None:
        world.storage.luns[TARGET, 1].size_bytes *= 2
        assert "all of them are back" in world.reconnect()


class TestWhatDoesNot:
    def test_another_device_is_quarantined_and_no_guest_gets_it(self, world: World) -> None:
        world.storage.luns[TARGET, 1].exports += 1
        said = world.reconnect()
        assert f"WRONG DEVICE: volume {VOLUMES[0]} (attachment att-1 of instance" in said
        assert "was wwn 6001405" in said
        assert "1 of 3 volumes are not back" in said
        world.start()
        assert world.journal.quarantined(VOLUMES[0]) is not None
        assert world.domains.autostart() == ["guest-1"]

    def test_what_the_storage_refuses_is_told_with_its_code(self, world: World) -> None:
        del world.storage.luns[TARGET, 2]
        said = world.reconnect()
        assert f"NOT BACK: volume {VOLUMES[1]}" in said
        assert "lun-missing: " in said
        assert said.count("back: volume") == 2

    def test_a_device_under_another_name_is_no_help_to_a_guest(self, world: World) -> None:
        each = lost(world)[0]
        device = each.counted[0].device.model_copy(update={"path": "/dev/disk/by-id/other"})
        world.start()
        with pytest.raises(ConnectFailed, match="its disks name"):
            prove_back(world.journal, world.storage, each, device)


class TimedCalls:
    """service.reconnect.Calls. Each of a volume's attempts takes so many seconds of ``now``; those
    that ``durations`` does not name take none. What is killed has no end. Of ``start_seconds``,
    which the first of them begins with, it waits no longer than it is let."""

    def __init__(self, durations: dict[str, list[float]], start_seconds: float = 0.0) -> None:
        self._start_seconds = start_seconds
        self._durations = {volume_id: list(those) for volume_id, those in durations.items()}
        self._ends: dict[str, float] = {}
        self.seconds = 0.0
        self.begun: list[str] = []

    def now(self) -> float:
        return self.seconds

    def begin(self, attachment: Attachment, timeout_seconds: float) -> None:
        volume_id = attachment.volume_id
        waited_seconds = min(self._start_seconds, timeout_seconds)
        self._start_seconds -= waited_seconds
        self.seconds += waited_seconds
        self.begun.append(volume_id)
        durations = self._durations.get(volume_id)
        self._ends[volume_id] = self.seconds + (durations.pop(0) if durations else 0.0)

    def ended(self, timeout_seconds: float) -> dict[str, Device | Problem]:
        self.seconds = min(self.seconds + timeout_seconds, *self._ends.values(), inf)
        over = [volume_id for volume_id, end in self._ends.items() if end <= self.seconds]
        for volume_id in over:
            del self._ends[volume_id]
        return {each: Device(path=f"/dev/{each}", identity={}, size_bytes=1) for each in over}

    def kill(self) -> bool:
        self._ends.clear()
        return True


def of_two_exports(those: list[Lost]) -> list[Lost]:
    """Files of NFS: the third is of an export of its own."""
    return [
        replace(each, counted=(replace(one, attachment=in_export(one.attachment)),))
        for each in those
        for one in each.counted
    ]


def in_export(wanted: Attachment) -> Attachment:
    export = "nas:/other" if wanted.volume_id == VOLUMES[2] else "nas:/volumes"
    data = NfsData(export=export, name=wanted.volume_id)
    return wanted.reached_by(NfsConnection(driver_volume_type="nfs", data=data))


class TestTime:
    """One volume may take 10 seconds, all together 25."""

    def try_all(self, world: World, **durations: list[float]) -> tuple[dict[str, Any], TimedCalls]:
        calls = TimedCalls({VOLUMES[int(name[1:]) - 1]: those for name, those in durations.items()})
        reconnection = Reconnection(calls, calls.now, volume_seconds=10, total_seconds=25)
        ended = {each.volume_id: answer for each, answer in reconnection.run(lost(world))}
        return ended, calls

    def test_what_hangs_is_killed_and_the_others_come_back(self, world: World) -> None:
        ended, calls = self.try_all(world, v1=[inf])
        assert "no answer within 10 s" in ended[VOLUMES[0]].detail
        assert all(isinstance(ended[each], Device) for each in VOLUMES[1:3])
        assert calls.seconds == 10

    def test_who_is_killed_along_with_it_begins_anew(self, world: World) -> None:
        """A lane has room for four: the fifth begins at 4, and is at work when time 10 comes."""
        world.domains.add(INSTANCES[1])
        world.start()
        for number in (4, 5, 6, 7):
            path = f"/dev/vg/volume-{number}"
            world.storage.luns[path, 0] = Lun(VOLUMES[number - 1])
            info = {"driver_volume_type": "local", "data": {"device_path": path}}
            attached(world, number, volume=number, instance=2, connection_info=info)
        world.lose_power()
        ended, calls = self.try_all(world, v1=[inf], v3=[4], v4=[4], v5=[4], v6=[4], v7=[9, 1])
        assert isinstance(ended[VOLUMES[6]], Device)
        assert calls.begun.count(VOLUMES[6]) == 2
        assert calls.seconds == 11

    def test_the_whole_is_bounded(self, world: World) -> None:
        """What has not had its turn by then is named, too."""
        world.domains.add(INSTANCES[1])
        world.start()
        for number in (4, 5, 6):
            volume(world, number)
            attached(world, number, volume=number, instance=2)
        world.lose_power()
        hung = {f"v{number}": [inf] for number in range(1, 7)}
        ended, calls = self.try_all(world, **hung)
        assert set(ended) == set(VOLUMES[:6])
        assert calls.seconds == 25
        assert "no answer within 10 s" in ended[VOLUMES[0]].detail
        assert "the time for all volumes is over" in ended[VOLUMES[5]].detail

    def test_who_shares_a_target_waits_where_the_lane_has_room(self, world: World) -> None:
        """He would wait for the target's lock, and spend his own time with it."""
        calls = TimedCalls({VOLUMES[0]: [6], VOLUMES[1]: [6], VOLUMES[2]: [6]})
        reconnection = Reconnection(calls, calls.now, volume_seconds=10, total_seconds=25)
        begun = [
            (each.volume_id, list(calls.begun))
            for each, _ in reconnection.run(of_two_exports(lost(world)))
        ]
        assert begun[0] == (VOLUMES[0], [VOLUMES[0], VOLUMES[2]])
        assert calls.begun == [VOLUMES[0], VOLUMES[2], VOLUMES[1]]
        assert calls.seconds == 12

    def test_a_storage_call_whose_start_takes_long_is_in_the_whole(self, world: World) -> None:
        calls = TimedCalls({}, start_seconds=60)
        reconnection = Reconnection(calls, calls.now, volume_seconds=10, total_seconds=25)
        assert {each.volume_id for each, _ in reconnection.run(lost(world))} == set(VOLUMES[:3])
        assert calls.seconds == 25

    def test_a_healthy_target_does_not_wait_for_a_sick_one(self, world: World) -> None:
        world.start()
        other = {
            "driver_volume_type": "iscsi",
            "data": {
                "target_portal": "p.example:3260",
                "target_iqn": "iqn.sim:other",
                "target_lun": 4,
            },
        }
        world.storage.luns["iqn.sim:other", 4] = Lun(VOLUMES[3])
        attached(world, 4, volume=4, connection_info=other)
        world.lose_power()
        _, calls = self.try_all(world, v1=[inf])
        begun = [each for each in calls.begun if each != VOLUMES[2]]
        assert begun == [VOLUMES[0], VOLUMES[3], VOLUMES[1]]


class TestReport:
    def outcome(self, world: World, **device: Any) -> Outcome:
        each = lost(world)[0]
        return Outcome(each, each.counted[0].device.model_copy(update=device), None)

    def test_missing_paths_are_told(self, world: World) -> None:
        out = io.StringIO()
        Report(out, is_journal=True).volume(self.outcome(world, paths_found=1, paths_expected=2))
        assert out.getvalue().startswith("<3>back: ")
        assert "degraded 1/2" in out.getvalue()

    def test_systemd_is_told_how_bad_it_is(self, world: World) -> None:
        out = io.StringIO()
        report = Report(out, is_journal=True)
        world.start()
        connectors: SimulatedConnectors = world.storage
        connectors.connect_error = ConnectFailed("no portal answered")
        calls = SimulatedCalls(world.locks, connectors)
        run(world.journal, connectors, Reconnection(calls, world.clock.now, 10, 25), report)
        marks = [line[:3] for line in out.getvalue().splitlines()]
        assert marks == ["<6>", "<3>", "<3>", "<3>", "<3>"]


COMMAND = (sys.executable, "-c", "from agent.service.reconnect import main; main()")


@pytest.mark.skipif(os.geteuid() != 0, reason="os-brick locks as root")
class TestCommand:
    """The real one, with a real journal and child process, on a host that has not the device."""

    @pytest.fixture
    def journal(self, tmp_path: Path) -> Iterator[Journal]:
        (tmp_path / "agent.conf").write_text(
            f"[DEFAULT]\nstate_path = {tmp_path}/state\n[local]\nallowed_paths = {tmp_path}\n"
        )
        journal = Journal(tmp_path / "state", SystemClock())
        yield journal
        journal.close()

    def hold(self, journal: Journal, path: Path) -> None:
        info = {"driver_volume_type": "local", "data": {"device_path": str(path)}}
        wanted = Attachment.model_validate(attachment(1, connection_info=info))
        device = Device(path=str(path), identity={"path": str(path)}, size_bytes=1)
        journal.write(lambda book: book.keep(Held(wanted, "earlier", device, {})))

    def command(self, tmp_path: Path) -> subprocess.CompletedProcess[str]:
        argv = [*COMMAND, "--config-file", str(tmp_path / "agent.conf")]
        return subprocess.run(argv, capture_output=True, text=True, timeout=120)

    def test_what_is_not_back_is_named(self, journal: Journal, tmp_path: Path) -> None:
        self.hold(journal, tmp_path / "volume")
        journal.close()
        ended = self.command(tmp_path)
        assert ended.returncode == EXIT_NOT_ALL, ended.stderr
        lines = said(ended)
        assert lines[0].startswith("1 of 1 volumes that attachments count on are not on this host")
        assert lines[1].startswith(f"NOT BACK: volume {VOLUMES[0]} (attachment att-1 of instance")
        assert str(tmp_path / "volume") in lines[1]
        assert lines[2].startswith("1 of 1 volumes are not back")
        assert len(lines) == 3

    def test_nothing_attached_is_nothing_to_do(self, journal: Journal, tmp_path: Path) -> None:
        journal.close()
        ended = self.command(tmp_path)
        assert ended.returncode == 0
        assert said(ended) == ["nothing to do: no attachment counts on a volume"]

    def test_beside_the_agent_it_does_nothing(self, journal: Journal, tmp_path: Path) -> None:
        self.hold(journal, tmp_path / "volume")
        ended = self.command(tmp_path)
        assert ended.returncode == EXIT_JOURNAL
        assert "another attachment-agent uses" in ended.stderr
        assert said(ended) == []


def said(ended: subprocess.CompletedProcess[str]) -> list[str]:
    """Without what libraries log."""
    return [line for line in ended.stdout.splitlines() if not line[:4].isdecimal()]
