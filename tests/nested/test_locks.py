"""Another program with os-brick on this host is excluded by us, and excludes us.

It stands for a compute or volume service, and takes os-brick's locks by os-brick's own functions.
"""

import select
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from agent.host.brick_locks import holder_of
from tests.functional.orchestrator import Orchestrator
from tests.lab.guest import Guest
from tests.lab.patience import wait_until
from tests.nested.inside.agent import LOCK_PATH
from tests.nested.inside.leftovers import run
from tests.nested.inside.storage import Storage
from tests.nested.inside.wishes import wish

pytestmark = pytest.mark.usefixtures("single_path")

SERVICE = "5f1c1a6e-3c47-4a2f-9d6c-1f0e8a6b7c11"

NEIGHBOUR = f"""
import sys
from oslo_service import backend
backend.init_backend(backend.BackendType.THREADING)
from oslo_concurrency import lockutils
import os_brick
from os_brick.initiator import utils
from oslo_config import cfg
lockutils.set_defaults("{LOCK_PATH}")
cfg.CONF([], project="neighbour")
os_brick.setup(cfg.CONF)
def connector():
    return lockutils.external_lock("connect_volume", "os-brick-", "{LOCK_PATH}")
def guard():
    return utils.guard_connection({{"service_uuid": "{SERVICE}", "shared_targets": None}})
print("ready", flush=True)
sys.stdin.readline()
with WHAT():
    print("has it", flush=True)
    sys.stdin.read()
"""


@contextmanager
def neighbour(what: str) -> Iterator[subprocess.Popen[str]]:
    """A process that takes ``connector`` or ``guard`` when it is told to, and holds it until the
    end.

    os-brick locks its guard for ``shared_targets`` None; not for True, where iscsiadm can be told
    not to scan."""
    process = subprocess.Popen(
        ["/opt/attachment-agent/bin/python", "-c", NEIGHBOUR.replace("WHAT", what)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        yield process
    finally:
        process.communicate()


def tell(process: subprocess.Popen[str]) -> None:
    assert process.stdin is not None
    process.stdin.write("\n")
    process.stdin.flush()


def assert_has_it(process: subprocess.Popen[str]) -> None:
    assert process.stdout is not None
    assert process.stdout.readline() == "has it\n"


@pytest.mark.parametrize("what", [pytest.param("connector", marks=pytest.mark.exhaustive), "guard"])
def test_the_neighbour_excludes_us(
    orchestrator: Orchestrator,
    guests: list[Guest],
    storage: Storage,
    what: str,
) -> None:
    target, backing = storage.lun()
    shared = {"service_uuid": SERVICE, "shared_targets": None}
    wanted = wish(guests[0], backing, target.connection_info(0), **shared)
    with neighbour(what) as process:
        tell(process)
        assert_has_it(process)
        accepted = orchestrator.client.attach(wanted)
        wait_until(
            lambda: target.iqn in run("attachctl", "locks", "--json"),
            "the target's lock is held",
            seconds=30,
        )
        assert orchestrator.client.wait(accepted.operation_id or "", 5).state == "running"
        assert target.iqn in run("attachctl", "locks")
    assert orchestrator.finish(accepted).state == "done"
    orchestrator.detached(wanted)


@pytest.mark.exhaustive
def test_we_exclude_the_neighbour(
    orchestrator: Orchestrator, guests: list[Guest], storage: Storage
) -> None:
    """While we wait for a LUN that does not show; our undo then waits for the neighbour."""
    target, backing = storage.lun()
    ours = Path(LOCK_PATH) / "os-brick-connect_volume"
    with neighbour("connector") as process:  # begun first: that alone may take as long as ours
        accepted = orchestrator.client.attach(wish(guests[0], backing, target.connection_info(9)))
        wait_until(
            lambda: target.iqn in f"{orchestrator.client.list_locks()}",
            "the target's lock is held",
            seconds=30,
        )
        wait_until(lambda: holder_of(ours), "os-brick's lock is held", seconds=30)
        tell(process)
        assert select.select([process.stdout], [], [], 10)[0] == []
        assert orchestrator.client.get_operation(accepted.operation_id or "").state == "running"
        assert select.select([process.stdout], [], [], 200)[0] == [process.stdout]
        assert_has_it(process)
    assert orchestrator.finish(accepted).state == "undone"
