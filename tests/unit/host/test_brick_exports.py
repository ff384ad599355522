"""A password within the name of an export (vzstorage): os-brick needs it, and nobody sees it."""

import hashlib
import logging
import subprocess
from pathlib import Path
from typing import Any

import pytest
from oslo_concurrency.processutils import ProcessExecutionError

from agent.errors import ConnectFailed
from agent.host.brick_library import os_brick_connector
from agent.host.mounts import Mounts
from agent.model.attachment import Attachment
from tests.samples import attachment
from tests.unit.host.test_brick_calls import Bench
from tests.unit.host.test_brick_calls import bench as bench  # the fixture

EXPORT = "vz1:hunter2"
DIRECTORY = hashlib.md5(EXPORT.encode()).hexdigest()


def volume() -> Attachment:
    data = {"export": EXPORT, "name": "volume-1"}
    return attachment(connection_info={"driver_volume_type": "vzstorage", "data": data})


def test_os_brick_gets_it_and_logs_it_nowhere(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    """It logs what it is given, and its own masks know passwords by the names of their fields."""
    caplog.set_level(logging.DEBUG)
    commands: list[tuple[str, ...]] = []
    told: list[str] = []

    def execute(*command: str, **how: Any) -> tuple[str, str]:
        commands.append(command)
        told.append(how.get("process_input", ""))
        if "pstorage-mount" in command:
            raise ProcessExecutionError(exit_code=1, stderr="no such cluster")
        return "", ""

    connectors = bench.connectors(execute=execute, factory=os_brick_connector)
    with pytest.raises(ConnectFailed, match=r"^vz1 did not") as caught:
        connectors.connect(volume())
    assert "hunter2" in told
    assert commands[-1][-1] == str(bench.mounts / DIRECTORY)
    assert "connect_volume: call" in caplog.text
    assert "hunter2" not in caplog.text + str(caught.value) + str(commands)


def test_it_is_left_where_os_brick_has_mounted_it(bench: Bench) -> None:
    directory = bench.mounts / DIRECTORY
    directory.mkdir(parents=True)
    connectors = bench.connectors(mount_needed=lambda directory: False)
    connectors.disconnect(volume(), None)
    assert not directory.exists()


def test_a_mount_that_stays_is_told_without_it(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    table = tmp_path / "mounts"
    mounts = Mounts("/mnt", lambda directory: False, table=table, spawn=_busy)
    table.write_text(f"pstorage://vz1 {mounts.directory_of(EXPORT)} fuse.pstorage rw 0 0\n")
    caplog.set_level(logging.INFO)
    mounts.leave(EXPORT, "vz1")
    assert "(vz1) stays mounted" in caplog.text
    assert "hunter2" not in caplog.text


def _busy(command: list[str], **how: Any) -> "subprocess.Popen[str]":
    return subprocess.Popen(["sh", "-c", "echo target is busy >&2; exit 32"], **how)
