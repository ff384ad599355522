"""What storage leaves on a host: sessions, devices, maps, controllers, mounts, node records."""

import subprocess
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from tests.lab.patience import PATIENCE, LabError, wait_until

MOUNTED = ("nfs", "nfs4", "fuse.quobyte")
NODE_RECORDS = Path("/etc/iscsi/nodes")
CONTROLLERS = Path("/sys/class/nvme-fabrics/ctl")


def run(*argv: str, seconds: float = 60 * PATIENCE, check: bool = True) -> str:
    done = subprocess.run(argv, capture_output=True, text=True, timeout=seconds, check=False)
    assert not check or done.returncode == 0, f"{' '.join(argv)}: {done.stdout}{done.stderr}"
    return done.stdout


def _said(paths: Iterable[Path]) -> set[str]:
    """What stands in these files, but for those that have gone since they were found."""
    found = set()
    for path in paths:
        with suppress(OSError):
            found.add(path.read_text().strip())
    return found


def sessions() -> set[str]:
    """IQNs of the iSCSI sessions, by the kernel's word."""
    return _said(Path("/sys/class/iscsi_session").glob("session*/targetname"))


def node_records() -> set[str]:
    return {path.name for path in NODE_RECORDS.glob("*")}


def scsi_disks() -> set[str]:
    return {path.name for path in Path("/sys/block").glob("sd*")}


def maps() -> set[str]:
    """Of device-mapper: multipath's."""
    return _said(path / "dm/name" for path in Path("/sys/block").glob("dm-*"))


def slaves(names: Iterable[str]) -> set[str]:
    """What those maps are on: their paths."""
    return {
        slave.name
        for path in Path("/sys/block").glob("dm-*")
        if (path / "dm/name").read_text().strip() in names
        for slave in (path / "slaves").iterdir()
    }


def controllers() -> set[str]:
    """Of NVMe over fabrics: the subsystems they belong to."""
    return _said(CONTROLLERS.glob("nvme*/subsysnqn"))


def live_controllers() -> set[str]:
    """The kernel's names of those that reach their storage."""
    return {
        path.parent.name for path in CONTROLLERS.glob("nvme*/state") if _said([path]) == {"live"}
    }


def namespaces_shown() -> set[int]:
    """How many a controller shows."""
    return {len(list(path.parent.glob("nvme*n*"))) for path in CONTROLLERS.glob("nvme*/state")}


def mounts() -> set[str]:
    """What exports are mounted."""
    lines = (line.split() for line in Path("/proc/mounts").read_text().splitlines())
    return {source for source, _, kind, *_ in lines if kind in MOUNTED}


def leftovers() -> dict[str, set[str]]:
    """By kind; empty: the host is clean."""
    kinds = (sessions, node_records, scsi_disks, maps, controllers, mounts)
    return {kind.__name__: found for kind in kinds if (found := kind())}


def assert_clean(seconds: float = 30) -> None:
    """udev and multipathd may be a little behind."""
    try:
        wait_until(lambda: not leftovers(), "the host is clean", seconds=seconds)
    except LabError as error:
        raise AssertionError(f"left on the host: {leftovers()}") from error
