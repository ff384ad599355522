"""What the host itself does with a device is found, and what merely lies on it is not."""

from pathlib import Path
from typing import Any

import pytest

from agent.errors import ConnectFailed, SharingConflict
from agent.host.host_use import use_by_host
from tests.samples import attachment
from tests.unit.host.test_brick_calls import ISCSI, Bench, connected, wire
from tests.unit.host.test_brick_calls import bench as bench  # the fixture

SDA = "8:0"
SDA1 = "8:1"
LV = "253:4"


@pytest.fixture
def host(tmp_path: Path) -> Path:
    """sda has a partition, and that a logical volume; sdb has nothing."""
    for name, number in (("sda", SDA), ("sdb", "8:16"), ("dm-4", LV)):
        add(tmp_path, name, number)
    add(tmp_path, "sda/sda1", SDA1)
    (tmp_path / "sys/class/block/sda/sda1/partition").write_text("1\n")
    (tmp_path / "sys/class/block/sda1").symlink_to(tmp_path / "sys/class/block/sda/sda1")
    (tmp_path / "sys/class/block/sda1/holders/dm-4").touch()
    (tmp_path / "proc/self").mkdir(parents=True)
    return tmp_path


def add(root: Path, name: str, number: str) -> None:
    (root / "sys/class/block" / name / "holders").mkdir(parents=True)
    (root / "sys/class/block" / name / "dev").write_text(f"{number}\n")


def mounted(host: Path, number: str, source: str = "/dev/x") -> None:
    (host / "proc/self/mountinfo").write_text(
        "21 1 0:20 / /sys rw - sysfs sysfs rw\n"
        f"30 1 {number} / /srv rw,relatime shared:1 - xfs {source} rw\n"
    )


def use(host: Path, node: str = "/dev/sda") -> str | None:
    return use_by_host(node, host / "proc", host / "sys")


def test_what_lies_on_it_is_no_use(host: Path) -> None:
    assert use(host) is None


@pytest.mark.parametrize("number", [SDA, SDA1, LV])
def test_a_file_system_of_it_is_mounted(host: Path, number: str) -> None:
    mounted(host, number)
    assert use(host) == "mounted at /srv"
    assert use(host, "/dev/sdb") is None


def test_btrfs_is_known_by_its_source(host: Path) -> None:
    mounted(host, "0:45", source="/dev/sda1")
    assert use(host) == "mounted at /srv"


@pytest.mark.parametrize("source", ["//nas/sda", "/srv/disks/sda", "sshfs#nas:/sda"])
def test_what_only_ends_like_it_is_not_it(host: Path, source: str) -> None:
    mounted(host, "0:45", source=source)
    assert use(host) is None


def test_a_mount_point_may_have_any_name(host: Path) -> None:
    """The kernel escapes blanks and line feeds, and nothing else that ends a line or a word."""
    (host / "proc/self/mountinfo").write_text(
        "29 1 0:44 / /home/u/a\x0cb\u2028c rw - fuse.sshfs nas:/ rw\n"
        f"30 1 {SDA} / /srv\\040two rw shared:1 - xfs /dev/sda rw\n"
    )
    assert use(host) == "mounted at /srv two"


def test_it_is_swap(host: Path) -> None:
    (host / "proc/swaps").write_text(
        "Filename Type Size Used Priority\n/dev/sda1 partition 9 0 -2\n"
    )
    assert use(host) == "swap (/dev/sda1)"
    assert use(host, "/dev/sdb") is None


def test_a_device_that_has_gone_is_not_used(host: Path) -> None:
    mounted(host, SDA)
    assert use(host, "/dev/sdz") is None


def mounted_volume(bench: Bench, **different: Any) -> tuple[Any, Any]:
    _, device = connected(bench)
    bench.tree.mount("8:16", "/srv")
    return attachment(**{**wire(bench, ISCSI), **different}), device


def test_a_guest_must_not_write_to_it(bench: Bench) -> None:
    asked, _ = mounted_volume(bench)
    with pytest.raises(SharingConflict, match="is mounted at /srv on this host itself"):
        bench.connectors().connect(asked)


def test_a_guest_may_read_it(bench: Bench) -> None:
    asked, device = mounted_volume(bench, access_mode="ro")
    assert bench.connectors().connect(asked).identity == device.identity


def test_it_is_not_taken_off_the_host(bench: Bench) -> None:
    asked, device = mounted_volume(bench)
    bench.brick.calls.clear()
    with pytest.raises(ConnectFailed, match="mounted at /srv"):
        bench.connectors().disconnect(asked, device)
    assert "disconnect_volume" not in [call[0] for call in bench.brick.calls]
