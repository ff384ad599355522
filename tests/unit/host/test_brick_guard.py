"""os-brick's guard is held around its calls exactly where os-brick says so."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from oslo_concurrency import lockutils
from oslo_config import cfg

from tests.samples import attachment
from tests.unit.host.test_brick_calls import ISCSI, Bench, scsi, wire
from tests.unit.host.test_brick_calls import bench as bench  # the fixture

SERVICE = "11111111-0000-4000-8000-000000000001"

IS_FREE = """
import fcntl, sys
with open(sys.argv[1], "w") as file:
    fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
"""


@pytest.fixture
def lock_file(tmp_path: Path) -> Iterator[Path]:
    lockutils.set_defaults(str(tmp_path / "locks"))
    yield tmp_path / "locks" / f"os-brick-{SERVICE}"
    cfg.CONF.clear_default("lock_path", "oslo_concurrency")


def is_held(lock_file: Path) -> bool:
    """By the word of another process, which is what the lock is for."""
    if not lock_file.exists():
        return False
    asked = subprocess.run(
        [sys.executable, "-c", IS_FREE, str(lock_file)], capture_output=True, check=False
    )
    return asked.returncode != 0


@pytest.mark.parametrize(
    ("said", "holds"),
    [
        ({"service_uuid": SERVICE, "shared_targets": None}, True),
        ({"service_uuid": SERVICE}, True),
        ({"service_uuid": SERVICE, "shared_targets": False}, False),
        ({"shared_targets": None}, False),
        ({}, False),
    ],
    ids=str,
)
def test_guarded_as_os_brick_decides(
    bench: Bench, lock_file: Path, said: dict[str, Any], holds: bool
) -> None:
    seen: list[bool] = []
    scsi(bench)
    bench.brick.on_connect = lambda execute: seen.append(is_held(lock_file))

    def disconnect() -> None:
        seen.append(is_held(lock_file))
        bench.tree.remove("sdb")

    bench.brick.on_disconnect = disconnect
    asked = attachment(**wire(bench, ISCSI, **said))
    device = bench.connectors().connect(asked)
    bench.connectors().disconnect(asked, device)
    assert seen == [holds, holds]
    assert not is_held(lock_file)
