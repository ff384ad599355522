"""What the host itself does with a device is found, and what merely lies on it is not."""

from pathlib import Path

import pytest

from agent.host.host_use import use_by_host

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


def test_it_is_swap(host: Path) -> None:
    (host / "proc/swaps").write_text(
        "Filename Type Size Used Priority\n/dev/sda1 partition 9 0 -2\n"
    )
    assert use(host) == "swap (/dev/sda1)"
    assert use(host, "/dev/sdb") is None


def test_a_device_that_has_gone_is_not_used(host: Path) -> None:
    mounted(host, SDA)
    assert use(host, "/dev/sdz") is None
