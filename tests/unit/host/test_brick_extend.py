"""A volume that has grown, by os-brick and by the kernel's word: every path, or nothing."""

import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest
from os_brick import exception
from oslo_concurrency import processutils as putils

from agent.errors import AgentError, ConnectFailed, Invalid, NotAllPaths, Unavailable, Unsupported
from agent.model.device import Device
from tests.samples import attachment
from tests.unit.host.test_brick_calls import (
    CASES,
    IQN,
    ISCSI,
    MULTIPATH,
    WWN,
    Bench,
    Case,
    connected,
    wire,
)
from tests.unit.host.test_brick_calls import bench as bench  # the fixture

MIB = 1 << 20

NVME, NFS, LOCAL, RBD, VENDOR = (
    next(case for case in CASES if case.name == name)
    for name in ("nvmeof", "nfs", "local", "rbd", "storpool")
)


def grows(bench: Bench, *names: str, mib: int = 128) -> Callable[[], None]:
    """What the kernel shows once it has looked again."""

    def change() -> None:
        for name in names:
            (bench.tree.sys / "class/block" / name / "size").write_text(f"{mib * 2048}\n")

    return change


def raises(error: Exception) -> Callable[[], None]:
    def change() -> None:
        raise error

    return change


def extend(bench: Bench, case: Case, on_extend: Callable[[], None], **options: Any) -> Device:
    asked, device = connected(bench, case)
    bench.brick.on_extend = on_extend
    return bench.connectors(**{**case.options, **options}).extend(asked, device)


@pytest.mark.parametrize(
    ("case", "names"),
    [
        pytest.param(ISCSI, ["sdb"], id="iscsi"),
        pytest.param(MULTIPATH, ["sdb", "sdc", "dm-3"], id="multipath"),
        pytest.param(NVME, ["nvme0n1"], id="nvme"),
        pytest.param(VENDOR, ["sdx"], id="vendor"),
    ],
)
def test_os_brick_makes_the_kernel_look_and_the_kernel_says_how_large_it_is(
    bench: Bench, case: Case, names: list[str]
) -> None:
    asked, device = connected(bench, case)
    bench.brick.on_extend = grows(bench, *names)
    found = bench.connectors(**case.options).extend(asked, device)
    assert found == device.model_copy(update={"size_bytes": 128 * MIB})
    given = bench.brick.of("extend_volume")[1]
    assert asked.connection.properties().keys() <= given.keys()


def test_paths_that_a_connect_has_discovered_look_again_too(bench: Bench) -> None:
    """A map is no larger than the path that was told last."""
    for number, ip in ((1, "192.0.2.1"), (2, "192.0.2.2")):
        bench.tree.session(number, ip, IQN)
    for name, number, session in (("sdb", "8:16", 1), ("sdc", "8:32", 2)):
        bench.tree.scsi(name, number, WWN, session=session, lun=1)
    bench.tree.multipath("dm-3", "253:3", WWN, ("sdb", "sdc"))
    device = Device(path="/dev/dm-3", identity={"wwn": WWN}, size_bytes=1, device_info={})
    bench.brick.on_extend = grows(bench, "sdb", "sdc", "dm-3")
    asked = attachment(**wire(bench, ISCSI))
    bench.connectors(use_multipath=True).extend(asked, device)
    given = bench.brick.of("extend_volume")[1]
    assert given["target_portals"] == ["192.0.2.1:3260", "192.0.2.2:3260"]


def test_a_namespace_is_named_to_os_brick(bench: Bench) -> None:
    extend(bench, NVME, grows(bench, "nvme0n1"))
    assert bench.brick.of("extend_volume")[1]["device_path"] == str(bench.tree.dev / "nvme0n1")


@pytest.mark.parametrize("late", ["sdb", "sdc", "dm-3"])
def test_a_path_that_lags_is_named_with_every_size(bench: Bench, late: str) -> None:
    names = {"sdb", "sdc", "dm-3"} - {late}
    with pytest.raises(NotAllPaths, match="nothing was done to any guest") as refused:
        extend(bench, MULTIPATH, grows(bench, *names))
    assert f"{bench.tree.dev / late} {64 * MIB}" in refused.value.detail
    assert str(128 * MIB) in refused.value.detail


@pytest.mark.parametrize("late", [{"sdc", "dm-3"}, {"dm-3"}], ids=["a path", "the map alone"])
def test_a_map_that_multipathd_cannot_make_larger(bench: Bench, late: set[str]) -> None:
    """Not with a path that lags; any other reason is told as it is."""

    def refuse() -> None:
        grows(bench, *({"sdb", "sdc", "dm-3"} - late))()
        raise putils.ProcessExecutionError(stderr="fail", exit_code=1)

    error, says = (NotAllPaths, "different sizes") if "sdc" in late else (ConnectFailed, "fail")
    with pytest.raises(error, match=says):
        extend(bench, MULTIPATH, refuse)


def test_local_is_what_the_kernel_shows_and_os_brick_is_not_asked(bench: Bench) -> None:
    asked, device = connected(bench, LOCAL)
    grows(bench, "loop7")()
    assert bench.connectors().extend(asked, device).size_bytes == 128 * MIB
    assert not [call for call in bench.brick.calls if call[0] == "extend_volume"]


def test_a_file_is_as_large_as_it_is(bench: Bench) -> None:
    found = extend(bench, NFS, raises(AssertionError("os-brick cannot")))
    assert found.size_bytes == 4096


def test_an_image_on_the_network_is_not_looked_at(bench: Bench) -> None:
    asked, device = connected(bench, RBD)
    bench.brick.on_extend = raises(AssertionError("nobody is asked"))
    assert bench.connectors().extend(asked, device) == device


@pytest.mark.parametrize(
    ("raised", "error", "says"),
    [
        (exception.BrickException("All paths need to be up"), NotAllPaths, "does not work"),
        (exception.VolumePathsNotFound(), ConnectFailed, "could not be read"),
        (NotImplementedError(), Unsupported, "os-brick cannot extend iscsi"),
        (
            exception.ExecutionTimeout(stdout="", stderr="gave up", exit_code=None),
            Unavailable,
            "gave up",
        ),
        (OSError("sysfs is gone"), ConnectFailed, "sysfs is gone"),
    ],
)
def test_what_os_brick_raises(
    bench: Bench, raised: Exception, error: type[AgentError], says: str
) -> None:
    with pytest.raises(error, match=says):
        extend(bench, ISCSI, raises(raised))


def test_a_tool_that_is_missing_is_named(bench: Bench) -> None:
    def which(tool: str) -> str | None:
        return None if tool == "lsscsi" else f"/sbin/{tool}"

    with pytest.raises(Unsupported, match="install lsscsi"):
        extend(bench, ISCSI, raises(AssertionError("os-brick was asked")), which=which)


def test_what_has_gone_is_not_extended(bench: Bench) -> None:
    def go() -> None:
        bench.tree.remove("sdb")

    with pytest.raises(ConnectFailed, match="not on this host"):
        extend(bench, ISCSI, go)


def test_a_file_that_names_another_is_refused_again(bench: Bench) -> None:
    """A guest writes its qcow2 header as well."""
    qcow2 = Case("", NFS.there, "nfs", {**NFS.data, "format": "qcow2"}, NFS.options)
    NFS.there(bench)
    path = bench.brick.info["path"]
    asked = attachment(**wire(bench, qcow2))
    device = Device(path=path, identity={"path": path}, size_bytes=4096)
    with pytest.raises(Invalid, match="no qcow2 image"):
        bench.connectors().extend(asked, device)


def test_the_lock_of_the_host_is_held_meanwhile(bench: Bench) -> None:
    """os-brick makes multipathd read everything anew: no connect waits for a map then."""
    taken: list[int] = []
    program = "import fcntl, sys; fcntl.lockf(open(sys.argv[1], 'a'), 6)"  # LOCK_EX | LOCK_NB
    lock = bench.mounts.parent / "locks" / "os-brick-connect_volume"

    def try_it() -> None:
        command = [sys.executable, "-c", program, str(lock)]
        taken.append(subprocess.run(command, check=False, capture_output=True).returncode)

    extend(bench, ISCSI, try_it)
    try_it()
    assert [code == 0 for code in taken] == [False, True]
