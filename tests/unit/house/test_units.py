"""etc/systemd: what is started is installed, in an order that holds, and systemd takes it."""

import configparser
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from agent.conf import OPTIONS
from agent.service.main import ALARM_MISSED_SECONDS, LAST_SECONDS
from tests.unit.house.source import ROOT

UNITS = sorted((ROOT / "etc" / "systemd").glob("*.service"))
PREFIX = "/opt/attachment-agent/bin"


def lines(unit: str, key: str) -> list[str]:
    text = (ROOT / "etc" / "systemd" / unit).read_text()
    return [word for found in re.findall(rf"^{key}=(.*)$", text, re.M) for word in found.split()]


def programs() -> set[str]:
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    scripts = setup["entry_points"]["console_scripts"].strip().splitlines()
    return {script.split("=")[0].strip() for script in scripts}


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.name)
class TestEach:
    def test_it_starts_a_program_of_ours(self, unit: Path) -> None:
        assert lines(unit.name, "ExecStart")[0] in {f"{PREFIX}/{name}" for name in programs()}

    def test_no_mount_of_it_is_hidden_from_qemu(self, unit: Path) -> None:
        """Options that give a mount namespace (systemd.exec(5))."""
        namespaced = r"^(Private(Tmp|Devices|Mounts)|Protect\w+|ReadOnly\w+|Bind\w+|Root\w+)="
        assert not re.search(namespaced, unit.read_text(), re.M)

    @pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="systemd-analyze is missing")
    def test_systemd_takes_it(self, unit: Path, tmp_path: Path) -> None:
        for name in programs():
            program = tmp_path / name
            program.touch(mode=0o755)
        for other in UNITS:
            text = other.read_text().replace(PREFIX, str(tmp_path))
            (tmp_path / other.name).write_text(text)
        said = subprocess.run(
            ["systemd-analyze", "verify", "--man=no", tmp_path / unit.name],
            capture_output=True,
            text=True,
            timeout=60,
        )
        ours = [line for line in said.stderr.splitlines() if "attachment-agent" in line]
        assert ours == []


def test_volumes_are_back_before_anybody_opens_them() -> None:
    before = set(lines("attachment-agent-reconnect.service", "Before"))
    assert {"libvirtd.service", "virtqemud.service", "libvirt-guests.service"} <= before
    assert "attachment-agent.service" in before


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.name)
def test_it_comes_after_the_storage_and_goes_before_it(unit: Path) -> None:
    storage = {"iscsid.service", "open-iscsi.service", "multipathd.service"}
    assert storage | {"network-online.target"} <= set(lines(unit.name, "After"))
    assert "network-online.target" in lines(unit.name, "Wants")


def test_the_boot_waits_longer_than_the_command_and_not_for_ever() -> None:
    [total] = [option for option in OPTIONS["reconnect"] if option.name == "total_seconds"]
    [limit] = lines("attachment-agent-reconnect.service", "TimeoutStartSec")
    assert total.default < int(limit) < 2 * total.default


def test_systemd_waits_longer_for_the_end_than_the_agent_does() -> None:
    [stop] = [option for option in OPTIONS["DEFAULT"] if option.name == "stop_seconds"]
    [limit] = lines("attachment-agent.service", "TimeoutStopSec")
    assert stop.default + 4 * LAST_SECONDS < int(limit) < 3 * stop.default


def test_an_overloaded_host_has_time_to_start_the_agent_and_to_let_it_turn() -> None:
    """systemd's own 90 seconds were too few: killed and begun again, it never came to its end."""
    [start] = lines("attachment-agent.service", "TimeoutStartSec")
    [watchdog] = lines("attachment-agent.service", "WatchdogSec")
    assert int(start) >= 600
    assert int(watchdog) >= 4 * ALARM_MISSED_SECONDS
