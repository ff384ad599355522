"""Paths that a request names itself, where a file system does not answer."""

import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from agent.errors import Invalid, Unavailable
from agent.host.block_devices import BlockDevices
from agent.host.far_files import FarFiles
from agent.host.local_paths import LocalPaths


@pytest.fixture
def table(tmp_path: Path) -> Path:
    """Of mounts: what is below ``far`` is another host's."""
    table = tmp_path / "mountinfo"
    table.write_text(f"40 25 0:53 / {tmp_path}/far rw master:7 - nfs4 nas:/vols rw\n")
    return table


def paths(table: Path, spawn: Callable[..., Any] = subprocess.Popen) -> LocalPaths:
    devices = BlockDevices(far=FarFiles(table))
    return LocalPaths([str(table.parent)], devices, spawn=spawn)


@pytest.mark.parametrize("way", ["{}/far/volume", "/dev/..{}/far/volume"])
def test_a_device_is_not_looked_for_on_another_hosts_disk(
    table: Path, way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who does waits for that host, and 16 who wait are all that take commands."""
    local = paths(table)
    monkeypatch.setattr(os.path, "realpath", lambda path: pytest.fail(f"{path} is touched"))
    with pytest.raises(Invalid, match="network file system; nothing was touched"):
        local.check_device(way.format(table.parent))


def test_a_file_system_that_does_not_tell_of_a_file(table: Path) -> None:
    class Silent:
        def __init__(self, command: list[str], **how: Any) -> None:
            self.child = subprocess.Popen(["true"])

        def communicate(self, timeout: float) -> None:
            raise subprocess.TimeoutExpired("realpath", timeout)

        def kill(self) -> None:
            self.child.wait()

        def wait(self) -> int:
            return self.child.wait()

        def __enter__(self) -> None: ...

        def __exit__(self, *error: object) -> None: ...

    with pytest.raises(Unavailable, match="has not answered for 10 s; nothing was touched"):
        paths(table, Silent).check_file("/gpfs/volume")


def test_a_file_is_one_that_is_allowed_and_plain(table: Path, tmp_path: Path) -> None:
    (tmp_path / "volume").write_bytes(bytes(512))
    (tmp_path / "link").symlink_to("/etc/hostname")
    local = paths(table)
    local.check_file(str(tmp_path / "volume"))
    for path, says in (
        ("link", "below none of"),
        ("gone", "no plain"),
        (".", "no plain"),
        ("../x\n/", "below none of"),
    ):
        with pytest.raises(Invalid, match=says):
            local.check_file(str(tmp_path / path))


def test_also_where_links_lead_to_what_is_allowed(table: Path, tmp_path: Path) -> None:
    """The directory is named by a link, and is on the other hosts' disk."""
    (tmp_path / "far" / "vols").mkdir(parents=True)
    (tmp_path / "far" / "vols" / "volume").write_bytes(bytes(512))
    (tmp_path / "short").symlink_to("far/vols")
    devices = BlockDevices(far=FarFiles(table))
    local = LocalPaths([str(tmp_path / "short")], devices)
    local.check_file(str(tmp_path / "short" / "volume"))
    local.check_file(str(tmp_path / "far" / "vols" / "volume"))
    with pytest.raises(Invalid, match="below none of"):
        local.check_file(str(tmp_path / "far" / "volume"))
