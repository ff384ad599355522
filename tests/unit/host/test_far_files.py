"""Files whose server may be away: what they are called without asking it.

Each mount is made up, and where it would be, a link leads elsewhere: whoever touches it follows.
"""

from pathlib import Path

import pytest

from agent.host.block_devices import BlockDevices
from agent.host.far_files import FarFiles
from tests.unit.host.device_tree import DeviceTree

ROOT_OF_HOST = "25 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw"


class Host:
    """``here`` is a directory of it, ``touched`` what the agent would ask the kernel."""

    def __init__(self, here: Path) -> None:
        self.here = here
        self.touched: list[Path] = []
        self.table = here / "mountinfo"
        self.table.write_text(f"{ROOT_OF_HOST}\n")
        (here / "local").mkdir()
        (here / "local" / "x").write_text("a file of this host")
        self.devices = BlockDevices(here, here, self._number, FarFiles(self.table))

    def _number(self, path: Path) -> str | None:
        self.touched.append(path)
        return None

    def mount(
        self,
        directory: str,
        *,
        kind: str = "nfs4",
        source: str = "nas:/vols",
        root: str = "/",
        number: str = "0:53",
    ) -> None:
        point = str(self.here / directory).replace(" ", r"\040")
        with self.table.open("a") as table:
            table.write(
                f"40 25 {number} {root} {point} rw master:7 propagate_from:2 - {kind} {source} rw\n"
            )
        if not (self.here / directory).exists():
            (self.here / directory).symlink_to(self.here / "local")

    def names(self, source: str) -> frozenset[str]:
        return self.devices.names(str(self.here / source))

    def is_asked(self, source: str) -> bool:
        self.touched.clear()
        return "local" in str(self.names(source) - {str(self.here / source)}) or bool(self.touched)

    def meet(self, one: str, other: str) -> bool:
        return bool(self.names(one) & self.names(other))


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host(tmp_path.resolve())


@pytest.mark.parametrize(
    "kind", ["nfs", "nfs4", "cifs", "smb3", "ceph", "9p", "fuse.glusterfs", "fuse", "autofs"]
)
def test_a_server_is_not_asked(host: Host, kind: str) -> None:
    host.mount("foreign", kind=kind)
    assert not host.is_asked("foreign/x")
    assert not host.is_asked("foreign")
    assert host.devices.look(str(host.here / "foreign/x")) is None
    assert host.touched == []


@pytest.mark.parametrize("kind", ["ext4", "xfs", "tmpfs", "fuseblk", "overlay"])
def test_this_host_is(host: Host, kind: str) -> None:
    host.mount("disks", kind=kind)
    host.mount("foreign")
    (host.here / "foreigners").touch()
    assert host.is_asked("disks/x")
    assert host.is_asked("local/x")
    assert host.is_asked("foreigners"), "a path that only begins like the mount's"
    assert host.meet("disks/x", "local/x")


def test_what_the_host_runs_from_is_asked(host: Host) -> None:
    host.table.write_text(ROOT_OF_HOST.replace("ext4 /dev/sda1", "nfs4 nas:/root") + "\n")
    host.mount("foreign")
    assert host.is_asked("local/x")


def test_a_mount_on_top_counts(host: Host) -> None:
    host.mount("automatic", kind="autofs")
    host.mount("automatic", kind="ext4", source="/dev/sdc1", number="8:33")
    host.mount("foreign")
    assert host.is_asked("automatic/x")


def test_a_link_of_this_host_that_leads_there_is_followed_up_to_it(host: Host) -> None:
    (host.here / "instances").symlink_to("foreign/nova")
    (host.here / "away").symlink_to(host.here / "instances")
    host.mount("foreign")
    assert not host.is_asked("away/a/disk")
    assert host.meet("away/a/disk", "local/../foreign/./nova//a/disk")
    assert not host.meet("away/a/disk", "away/b/disk")


def test_links_that_lead_nowhere_end(host: Host) -> None:
    (host.here / "round").symlink_to("round")
    host.mount("foreign")
    assert host.names("round/x") == {str(host.here / "round/x")}


def test_a_file_is_one_by_each_mount_of_its_file_system(host: Host) -> None:
    """The kernel says of NFS in the source what is mounted, of others in the root."""
    host.mount("all")
    host.mount("bound", source="nas:/vols/sub")
    host.mount("bound of smb", kind="cifs", source="//nas/vols", root="/sub")
    host.mount("smb", kind="cifs", source="//nas/vols/")
    host.mount("others", number="0:54")
    assert host.meet("all/sub/x", "bound/x")
    assert host.meet("smb/sub/x", "bound of smb/x")
    assert not host.meet("all/x", "bound/x")
    assert not host.meet("all/x", "others/x")


def test_a_mount_that_comes_and_goes_is_seen(host: Host) -> None:
    assert host.is_asked("local/x")
    host.mount("with space")
    assert not host.is_asked("with space/x")
    host.table.write_text(f"{ROOT_OF_HOST}\n")
    assert host.is_asked("with space/x")


def test_the_file_behind_a_loop_device_is_not_asked_for(tmp_path: Path) -> None:
    tree = DeviceTree(tmp_path.resolve())
    file = tmp_path.resolve() / "foreign" / "x"
    loop = tree.loop("loop7", "7:7", file)
    tree.mountinfo.write_text(f"40 25 0:53 / {file.parent} rw - nfs nas:/vols rw\n")
    file.parent.symlink_to(tmp_path)
    assert tree.devices.names(loop) == {loop, "block 7:7", *tree.devices.names(str(file))}
    assert tree.devices.names(str(file)) == {str(file), "file 0:53 nas:/vols/x"}


def test_for_a_device_the_table_is_not_read(tmp_path: Path) -> None:
    devices = FarFiles(tmp_path / "no table")
    assert not devices.hold("/dev/disk/by-id/x")
    with pytest.raises(FileNotFoundError):
        devices.hold("/devices/x")


def test_the_kernels_own_table_is_read() -> None:
    assert not FarFiles().hold("/proc/self/status")
