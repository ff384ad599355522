"""The contract of ports.Connectors on os-brick itself with loop devices, and what these show."""

import os
import subprocess
import sys
import uuid
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from oslo_config import cfg

from agent.errors import Invalid
from agent.host.brick import BrickConnectors
from agent.host.brick_library import prepare_os_brick
from agent.host.mounts import Mounts
from agent.host.own_mounts import OwnMounts
from agent.model.attachment import Attachment
from tests.contract.connectors import Bench, ConnectorsContract
from tests.lab.loop_volume import LoopVolume
from tests.samples import attachment, local

pytestmark = pytest.mark.real

NVME_SETTINGS = Path("/etc/nvme")
"""os-brick makes it when it is asked for the initiator, on a host without NVMe too."""


@pytest.fixture(scope="module", autouse=True)
def os_brick() -> Iterator[None]:
    had_settings = NVME_SETTINGS.exists()
    prepare_os_brick(cfg.CONF)
    yield
    if not had_settings and NVME_SETTINGS.exists() and not list(NVME_SETTINGS.iterdir()):
        NVME_SETTINGS.rmdir()


def connectors(*allowed: str, **different: object) -> BrickConnectors:
    return BrickConnectors(
        host="hypervisor-1",
        my_ip="127.0.0.1",
        use_multipath=False,
        enforce_multipath=True,
        device_scan_attempts=1,
        nfs_mount_point_base="/nowhere/mounts",
        nfs_mount_options="",
        local_allowed_paths=allowed,
        **different,  # type: ignore[arg-type]
    )


class Volumes:
    """Makes loop volumes, and takes them away at the end."""

    def __init__(self, directory: Path, stack: ExitStack) -> None:
        self._directory = directory
        self._stack = stack
        self._made: dict[str, LoopVolume] = {}

    def make(self) -> LoopVolume:
        return self._stack.enter_context(LoopVolume(self._directory, str(uuid.uuid4()), size_mib=1))

    def attachment(self) -> Attachment:
        volume = self.make()
        self._made[volume.volume_id] = volume
        return attachment(volume_id=volume.volume_id, connection_info=volume.connection_info())

    def grow(self, volume: Attachment, size_bytes: int) -> None:
        self._made[volume.volume_id].grow(size_bytes >> 20)


@pytest.fixture
def volumes(tmp_path: Path) -> Iterator[Volumes]:
    with ExitStack() as stack:
        yield Volumes(tmp_path, stack)


def of(path: str) -> Attachment:
    return attachment(connection_info=local(path))


class TestLocal(ConnectorsContract):
    @pytest.fixture
    def bench(self, volumes: Volumes) -> Bench:
        return Bench(
            connectors=connectors("/dev"),
            make_volume=volumes.attachment,
            hidden_volume=lambda: of("/dev/no-such-device"),
            stays=True,
            grow=volumes.grow,
        )


class TestLoopDevices:
    def test_size_is_the_kernels_word(self, volumes: Volumes) -> None:
        volume = volumes.make()
        volume.grow(3)
        assert connectors("/dev").connect(of(volume.path)).size_bytes == 3 * 1024 * 1024

    def test_read_only_is_seen(self, volumes: Volumes) -> None:
        volume = volumes.make()
        assert not connectors("/dev").connect(of(volume.path)).read_only
        subprocess.run(["blockdev", "--setro", volume.path], check=True)
        try:
            assert connectors("/dev").connect(of(volume.path)).read_only
        finally:  # the flag outlives the volume, and the next one would have it
            subprocess.run(["blockdev", "--setrw", volume.path], check=True)

    def test_a_device_that_is_gone_is_not_present(self, volumes: Volumes) -> None:
        """Whoever may have its kernel name by now."""
        volume = volumes.make()
        device = connectors("/dev").connect(of(volume.path))
        volume.close()
        assert not connectors("/dev").present(device)

    def test_two_devices_of_one_file_are_one(self, volumes: Volumes) -> None:
        volume = volumes.make()
        shown = subprocess.run(
            ["losetup", "--find", "--show", str(volume.file)],
            check=True,
            capture_output=True,
            text=True,
        )
        second = shown.stdout.strip()
        try:
            names = connectors("/dev").names
            assert names(second) & names(volume.path)
            assert names(second) & names(str(volume.file))
        finally:
            subprocess.run(["losetup", "--detach", second], check=True)


class TestAllowedPaths:
    """[local] allowed_paths: what a request may name."""

    def refusal(self, path: str, *allowed: str) -> str:
        for call in (
            lambda: connectors(*allowed).check(of(path).connection),
            lambda: connectors(*allowed).connect(of(path)),
        ):
            with pytest.raises(Invalid, match="nothing was touched") as refused:
                call()
        return refused.value.detail

    def test_none_where_none_is_configured(self, volumes: Volumes) -> None:
        assert "allowed_paths of this host is empty" in self.refusal(volumes.make().path)

    def test_none_beside_them(self, volumes: Volumes, tmp_path: Path) -> None:
        path = volumes.make().path
        assert "is below none of" in self.refusal(path, str(tmp_path))
        assert "is below none of" in self.refusal(path, f"{path}0", path[:-1])

    def test_no_link_leads_out(self, volumes: Volumes, tmp_path: Path) -> None:
        link = tmp_path / "volume"
        link.symlink_to(volumes.make().path)
        assert "is below none of" in self.refusal(str(link), str(tmp_path))

    def test_no_directory_that_is_a_link_leads_out(self, volumes: Volumes, tmp_path: Path) -> None:
        (tmp_path / "dev").symlink_to("/dev")
        path = f"{tmp_path}/dev/{Path(volumes.make().path).name}"
        assert "is below none of" in self.refusal(path, str(tmp_path))

    def test_a_link_that_udev_made_is_what_it_is_below(self, volumes: Volumes) -> None:
        """As /dev/vg-volumes/lv, which leads to /dev/dm-3."""
        directory = Path("/dev", f"ua-test-{uuid.uuid4().hex[:8]}")
        directory.mkdir()
        link = directory / "volume"
        link.symlink_to(volumes.make().path)
        try:
            device = connectors(str(directory)).connect(of(str(link)))
            assert device.path == str(link)
            directory.chmod(0o777)
            self.refusal(str(link), str(directory))
        finally:
            link.unlink()
            directory.rmdir()

    def test_what_is_not_there(self) -> None:
        assert "there is no" in self.refusal("/dev/no-such-device", "/dev")

    def test_what_is_longer_than_any_path(self) -> None:
        assert "there is no" in self.refusal(f"/dev/{'a' * 300}", "/dev")

    @pytest.mark.parametrize("path", ["/dev/null", "/dev", "/dev/stdin"])
    def test_what_is_no_block_device(self, path: str) -> None:
        assert self.refusal(path, "/dev", "/proc", "/")


class TestMounts:
    """With tmpfs in the place of NFS: what counts is the kernel's table and open files."""

    EXPORT = "192.0.2.40:/vols"

    @pytest.fixture
    def base(self, tmp_path: Path) -> Iterator[Path]:
        directory = Mounts(str(tmp_path), None).directory_of(self.EXPORT)
        os.mkdir(directory)
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "none", directory], check=True)
        yield tmp_path
        if os.path.ismount(directory):
            subprocess.run(["umount", directory], check=True)

    def mounts(self, base: Path, *, needed: bool) -> Mounts:
        return Mounts(str(base), lambda directory: needed)

    def test_the_last_user_takes_the_mount_away(self, base: Path) -> None:
        mounts = self.mounts(base, needed=False)
        for _ in range(2):
            mounts.leave(self.EXPORT)
            assert list(base.iterdir()) == []

    def test_whose_it_is_the_kernels_own_table_tells(self, base: Path, tmp_path: Path) -> None:
        own = OwnMounts(tmp_path / "notes")
        directory = Mounts(str(base), None).directory_of(self.EXPORT)
        assert own.below(str(base)) == set()
        own.note(directory)
        assert own.below(str(base)) == {directory}
        subprocess.run(["umount", directory], check=True)
        assert own.below(str(base)) == set()
        assert list((tmp_path / "notes").iterdir()) == []

    def test_it_stays_while_a_disk_or_a_promise_needs_it(self, base: Path) -> None:
        mounts = self.mounts(base, needed=True)
        mounts.leave(self.EXPORT)
        assert mounts.is_mounted(mounts.directory_of(self.EXPORT))

    def test_it_stays_while_a_file_is_open(self, base: Path) -> None:
        mounts = self.mounts(base, needed=False)
        directory = mounts.directory_of(self.EXPORT)
        with open(f"{directory}/volume-1", "w"):
            mounts.leave(self.EXPORT)
            assert mounts.is_mounted(directory)
        mounts.leave(self.EXPORT)
        assert not mounts.is_mounted(directory)


def test_a_fresh_process_uses_threads_and_no_privsep_daemon(tmp_path: Path) -> None:
    """And os-brick's locks are where it and guard_connection both look."""
    program = f"""
from agent.host.brick_library import os_brick_connector, prepare_os_brick
from oslo_config import cfg
cfg.CONF.register_opts([cfg.StrOpt("state_path", default={str(tmp_path)!r})])
cfg.CONF([], project="a-test")
prepare_os_brick(cfg.CONF)
connector = os_brick_connector("ISCSI", use_multipath=False, device_scan_attempts=1)
print(connector._execute("id", "-u", run_as_root=True)[0].strip())
from oslo_service import backend
print(backend.get_backend_type().value)
print(cfg.CONF.os_brick.lock_path, cfg.CONF.oslo_concurrency.lock_path)
import threading
for helper in set(threading.enumerate()) - {{threading.main_thread()}}:
    helper.join(20)  # the timer of os-brick's command; a privsep daemon's reader would stay
print(threading.active_count())
"""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", program],
        check=True,
        capture_output=True,
        text=True,
        env={name: value for name, value in os.environ.items() if name != "OSLO_LOCK_PATH"},
    )
    locks = tmp_path / "os-brick"
    assert done.stdout.split("\n") == ["0", "threading", f"{locks} {locks}", "1", ""]
