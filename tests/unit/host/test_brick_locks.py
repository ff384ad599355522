"""os-brick's locks: what of this host excludes what, by the word of other processes."""

import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
from oslo_concurrency import processutils

from agent.errors import Unavailable
from agent.host.brick import BrickConnectors
from agent.host.brick_library import os_brick_connector
from agent.host.brick_locks import OsBrickLocks, beneath_lock, holder_of
from agent.model.device import Device
from tests.lab.patience import wait_until
from tests.samples import attachment
from tests.unit.host.test_brick_calls import ONE_PATH, locking_in

ROOT = Path(__file__).parents[3]

ENOUGH_SECONDS = 60

SERVICE = "11111111-0000-4000-8000-000000000001"

INSIDE_A_CONNECTOR = """
import sys
from oslo_config import cfg
from agent.host.brick_library import os_brick_connector, prepare_os_brick
cfg.CONF([], project="compute")
cfg.CONF.set_override("lock_path", sys.argv[1], "oslo_concurrency")
prepare_os_brick(cfg.CONF)
from oslo_concurrency.processutils import ProcessExecutionError
said = []
def execute(*command, **how):
    if not said:
        said.append(print("inside", flush=True))
        sys.stdin.read()
    raise ProcessExecutionError(exit_code=8)
connector = os_brick_connector("ISCSI", device_scan_attempts=1, execute=execute)
volume = {"target_portal": "192.0.2.1:3260", "target_iqn": "iqn.2010-10.org:1", "target_lun": 1}
connector.disconnect_volume(volume, {})
"""
"""A compute service: os-brick takes its lock, and is kept in it until standard input ends."""

INSIDE_AN_EXTEND = """
import sys
from oslo_config import cfg
from agent.host.brick_library import prepare_os_brick
cfg.CONF([], project="compute")
cfg.CONF.set_override("lock_path", sys.argv[1], "oslo_concurrency")
prepare_os_brick(cfg.CONF)
from os_brick.initiator.connectors import base
@base.synchronized("extend_volume", external=True)
def extend_volume():
    print("inside", flush=True)
    sys.stdin.read()
extend_volume()
"""

INSIDE_THE_GUARD = """
import sys
from oslo_config import cfg
from os_brick.initiator.utils import guard_connection
cfg.CONF([], project="compute")
from oslo_concurrency import lockutils
lockutils.set_defaults(sys.argv[1])
with guard_connection({"service_uuid": sys.argv[2], "shared_targets": None}):
    print("inside", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def lock_path(tmp_path: Path) -> Iterator[Path]:
    directory = tmp_path / "locks"
    with locking_in(directory):
        yield directory


@contextmanager
def compute_service(program: str, *arguments: str) -> Iterator[int]:
    """Another process that is inside meanwhile; gives its pid."""
    process = subprocess.Popen(
        [sys.executable, "-W", "ignore", "-c", program, *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        cwd=ROOT,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        assert process.stdout.readline() == b"inside\n"
        yield process.pid
    finally:
        process.stdin.close()
        process.wait(ENOUGH_SECONDS)
        process.stdout.close()


def compute_service_gets_in(lock_path: Path) -> bool:
    """Does os-brick of another process get its lock now?"""
    program = (
        "import sys\n"
        "from oslo_concurrency import lockutils\n"
        "lock = lockutils.external_lock('connect_volume', 'os-brick-', sys.argv[1])\n"
        "sys.exit(not lock.acquire(blocking=False))\n"
    )
    argv = [sys.executable, "-W", "ignore", "-c", program, str(lock_path)]
    return subprocess.run(argv, cwd=ROOT, timeout=ENOUGH_SECONDS, check=False).returncode == 0


NO_RECORDS = 21
"""iscsiadm(8), exit status ISCSI_ERR_NO_OBJS_FOUND."""


class Machine:
    """Runs os-brick's commands for it: each fails, or finds nothing, after the test has looked
    around."""

    def __init__(self, look: Any = lambda: None) -> None:
        self._look = look
        self.commands: list[str] = []

    def execute(self, *command: str, **how: Any) -> tuple[str, str]:
        self.commands.append(command[0])
        self._look()
        borne = how.get("check_exit_code")
        if borne is False or (borne and NO_RECORDS in borne):
            return "", "no records found"
        raise processutils.ProcessExecutionError(exit_code=8, stderr="no route to host")


def connectors(machine: Machine, timeout_seconds: float = ENOUGH_SECONDS) -> BrickConnectors:
    return BrickConnectors(
        host="hypervisor-1",
        my_ip="192.0.2.10",
        use_multipath=False,
        enforce_multipath=False,
        device_scan_attempts=1,
        nfs_mount_point_base="/nowhere/mounts",
        nfs_mount_options="",
        local_allowed_paths=(),
        lock_timeout_seconds=timeout_seconds,
        execute=machine.execute,
        which=lambda tool: tool,
    )


def nvme_volume() -> Any:
    data = {
        "target_nqn": "nqn.2014-08.org.example:subsystem-1",
        "vol_uuid": "5b1f8a3e-2c47-4d0a-9e61-7f0c2b9d1a34",
        "portals": [["192.0.2.20", 4420, "tcp"]],
    }
    return attachment(connection_info={"driver_volume_type": "nvmeof", "data": data})


def scsi_volume(**different: Any) -> Any:
    info = {"driver_volume_type": "iscsi", "data": ONE_PATH}
    return attachment(connection_info=info, **different)


@pytest.mark.parametrize("protocol", ["ISCSI", "ISER", "FIBRE_CHANNEL", "NVMEOF"])
@pytest.mark.parametrize("call", ["connect_volume", "disconnect_volume"])
def test_os_brick_still_locks_where_we_look_for_its_lock(
    lock_path: Path, protocol: str, call: str
) -> None:
    """A newer os-brick that locks in another way would serialise NVMe with SCSI again."""
    connector = os_brick_connector(
        protocol, use_multipath=False, device_scan_attempts=1, execute=Machine().execute
    )
    unlocked = beneath_lock(getattr(connector, call))
    assert unlocked is not None
    assert unlocked.__self__ is connector
    assert beneath_lock(unlocked) is None


def test_the_lock_of_the_host_is_os_bricks_own_file(lock_path: Path) -> None:
    locks = OsBrickLocks(ENOUGH_SECONDS)
    with locks.hold("scsi"):
        assert [file.name for file in lock_path.iterdir()] == ["os-brick-connect_volume"]
        assert not compute_service_gets_in(lock_path)
    assert compute_service_gets_in(lock_path)


def test_how_long_who_asks_has_waited_is_told(lock_path: Path) -> None:
    told: list[tuple[str, float]] = []
    hasty = OsBrickLocks(0.2, on_wait=lambda *wait: told.append(wait))
    with inside(hasty, "scsi"):
        assert [kind for kind, _ in told] == ["os-brick"]
        with pytest.raises(Unavailable), hasty.hold("scsi"):
            pass
        assert told[1:] == [("os-brick", 0.2)], "who gives up has waited, too"
        with hasty.guard(scsi_volume(service_uuid=SERVICE, shared_targets=None)):
            assert len(told) == 3


class TestWithinTheProcess:
    def test_nvme_goes_on_while_scsi_waits_for_a_lun(self, lock_path: Path) -> None:
        locks = OsBrickLocks(ENOUGH_SECONDS)
        with inside(locks, "scsi"), inside(locks, "nvme"), inside(locks, "nvme"):
            assert not compute_service_gets_in(lock_path)
        assert compute_service_gets_in(lock_path)

    def test_scsi_goes_one_at_a_time(self, lock_path: Path) -> None:
        hasty = OsBrickLocks(0.2)
        with inside(hasty, "scsi"):
            with pytest.raises(Unavailable, match="another storage call of this agent"):
                hasty.call("scsi", os_brick_connector("ISCSI").connect_volume, {})
            with pytest.raises(Unavailable), hasty.hold("other"):
                pass
        with hasty.hold("scsi"):
            pass

    def test_in_the_guard_nobody_waits_for_ever(self, lock_path: Path) -> None:
        hasty, volume = OsBrickLocks(0.2), scsi_volume(service_uuid=SERVICE, shared_targets=None)
        for _ in range(2):
            with (
                hasty.guard(volume),
                pytest.raises(Unavailable, match=f"{SERVICE}.*another storage call of this agent"),
                hasty.guard(volume),
            ):
                pass

    def test_the_file_is_held_until_the_last_has_left(self, lock_path: Path) -> None:
        locks = OsBrickLocks(ENOUGH_SECONDS)
        with ExitStack() as nvme:
            nvme.enter_context(inside(locks, "nvme"))
            with inside(locks, "scsi"):
                pass
            assert not compute_service_gets_in(lock_path)
        assert compute_service_gets_in(lock_path)

    def test_an_error_lets_go(self, lock_path: Path) -> None:
        locks = OsBrickLocks(ENOUGH_SECONDS)
        for lane in ("scsi", "nvme"):
            with pytest.raises(KeyError), locks.hold(lane):  # type: ignore[arg-type]
                raise KeyError
        assert compute_service_gets_in(lock_path)


class TestComputeService:
    """Another program of this host that uses os-brick."""

    def test_it_is_excluded_by_our_calls(self, lock_path: Path) -> None:
        seen: list[bool] = []
        machine = Machine(lambda: seen.append(compute_service_gets_in(lock_path)))
        connectors(machine).disconnect(scsi_volume(), None)
        assert machine.commands[0] == "iscsiadm"
        assert seen[0] is False
        assert compute_service_gets_in(lock_path)

    @pytest.mark.parametrize("make", [scsi_volume, nvme_volume])
    def test_it_excludes_us_and_is_named(self, lock_path: Path, make: Callable[[], Any]) -> None:
        machine, volume = Machine(), make()
        with compute_service(INSIDE_A_CONNECTOR, str(lock_path)) as pid:
            with pytest.raises(Unavailable, match=rf"connect_volume.*python.*\(pid {pid}\)"):
                connectors(machine, timeout_seconds=0.3).disconnect(volume, None)
            assert machine.commands == []
        connectors(machine).disconnect(volume, None)

    def test_we_go_on_when_it_has_let_go(self, lock_path: Path) -> None:
        locks, got_in = OsBrickLocks(ENOUGH_SECONDS), threading.Event()

        def ask() -> None:
            with locks.hold("nvme"):
                got_in.set()

        with compute_service(INSIDE_A_CONNECTOR, str(lock_path)):
            asking = threading.Thread(target=ask)
            asking.start()
            assert not got_in.wait(0.3)
        assert got_in.wait(ENOUGH_SECONDS)
        asking.join(ENOUGH_SECONDS)

    def test_in_an_extend_it_excludes_ours_and_is_named(self, lock_path: Path) -> None:
        """os-brick itself would wait for as long as that takes."""
        machine, volume = Machine(), scsi_volume()
        device = Device(path="/dev/sdb", identity={"wwn": "0x6001"}, size_bytes=1)
        with compute_service(INSIDE_AN_EXTEND, str(lock_path)) as pid:
            with pytest.raises(Unavailable, match=rf"extend_volume.*python.*\(pid {pid}\)"):
                connectors(machine, timeout_seconds=0.3).extend(volume, device)
            assert machine.commands == []

    def test_in_the_guard_it_excludes_us_and_is_named(self, lock_path: Path) -> None:
        machine = Machine()
        volume = scsi_volume(service_uuid=SERVICE, shared_targets=None)
        with compute_service(INSIDE_THE_GUARD, str(lock_path), SERVICE) as pid:
            with pytest.raises(Unavailable, match=rf"os-brick-{SERVICE}.*\(pid {pid}\)"):
                connectors(machine, timeout_seconds=0.3).disconnect(volume, None)
            assert machine.commands == []
            own_target = scsi_volume(service_uuid=SERVICE, shared_targets=False)
            connectors(machine, timeout_seconds=0.3).disconnect(own_target, None)
        connectors(machine).disconnect(volume, None)


class TestWhatTheOperatorSees:
    """ports.Connectors.held_locks: the rows of ``attachctl locks``."""

    def test_our_calls_and_since_when(self, lock_path: Path) -> None:
        locks = OsBrickLocks(ENOUGH_SECONDS, who=lambda: "attach 6f1e")
        assert locks.held() == []
        with locks.hold("scsi"), locks.hold("nvme"):
            (row,) = locks.held()
        since = row.pop("since")
        assert since.endswith("Z")
        assert row == {
            "name": "os-brick-connect_volume",
            "holder": f"attach 6f1e, attach 6f1e (pid {os.getpid()})",
            "overdue": False,
            "waiters": [],
        }
        assert locks.held() == []

    def test_who_takes_too_long_is_marked(self, lock_path: Path) -> None:
        locks = OsBrickLocks(0.0)
        with locks.hold("scsi"):
            assert locks.held()[0]["overdue"]

    def test_another_program_and_who_waits_for_it(self, lock_path: Path) -> None:
        locks = OsBrickLocks(ENOUGH_SECONDS, who=lambda: "detach 6f1e")
        volume = scsi_volume(service_uuid=SERVICE, shared_targets=None)

        def ask() -> None:
            with locks.guard(volume):
                pass

        asking = threading.Thread(target=ask)
        with compute_service(INSIDE_THE_GUARD, str(lock_path), SERVICE) as pid:
            (row,) = locks.held()
            assert (row["name"], row["since"], row["waiters"]) == (f"os-brick-{SERVICE}", None, [])
            assert f"(pid {pid})" in row["holder"]
            asking.start()
            wait_until(lambda: locks.held()[0]["waiters"], "it waits", seconds=ENOUGH_SECONDS)
            (waiter,) = locks.held()[0]["waiters"]
            assert waiter["who"] == "detach 6f1e"
        asking.join(ENOUGH_SECONDS)
        assert locks.held() == []

    def test_ours_in_the_guard(self, lock_path: Path) -> None:
        locks = OsBrickLocks(ENOUGH_SECONDS, who=lambda: "attach 6f1e")
        with locks.guard(scsi_volume(service_uuid=SERVICE, shared_targets=None)):
            (row,) = locks.held()
            assert row["holder"] == f"attach 6f1e (pid {os.getpid()})"
        with locks.guard(scsi_volume(service_uuid=SERVICE, shared_targets=False)):
            assert locks.held() == []


@contextmanager
def inside(locks: OsBrickLocks, lane: Any) -> Iterator[None]:
    """A thread of a lane is in os-brick meanwhile."""
    is_in, over = threading.Event(), threading.Event()

    def call() -> None:
        with locks.hold(lane):
            is_in.set()
            assert over.wait(ENOUGH_SECONDS)

    thread = threading.Thread(target=call)
    thread.start()
    try:
        assert is_in.wait(ENOUGH_SECONDS), f"{lane} had to wait"
        yield
    finally:
        over.set()
        thread.join(ENOUGH_SECONDS)


def test_the_kernels_table_names_only_others(tmp_path: Path) -> None:
    file = tmp_path / "lock"
    file.touch()
    found = file.stat()
    inode = f"{os.major(found.st_dev):02x}:{os.minor(found.st_dev):02x}:{found.st_ino}"
    line = "1: {kind}POSIX  ADVISORY  WRITE {pid} {inode} 0 EOF\n"
    ours, waits, others = (
        [line.format(kind=kind, pid=pid, inode=inode)]
        for kind, pid in (("", os.getpid()), ("-> ", 1), ("", 1))
    )
    assert holder_of(file, ours) is None
    assert holder_of(file, waits) is None
    assert str(holder_of(file, others)).endswith("(pid 1)")
    assert holder_of(tmp_path / "nowhere", others) is None
