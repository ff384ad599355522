"""Whose a mount is, where several services mount below one directory."""

import subprocess
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from agent.errors import AgentError
from agent.host.brick import BrickConnectors
from agent.host.mounts import Mounts
from agent.host.own_mounts import OwnMounts
from tests.samples import attachment
from tests.unit.host.test_brick_calls import CASES, Bench, image, wire
from tests.unit.host.test_brick_calls import bench as bench  # the fixture

EXPORT = "192.0.2.40:/vols"
WANTED = next(case for case in CASES if case.name == "nfs")


@dataclass
class Kernel:
    """Its tables of mounts, and umount. Each mount gets the lowest number that is free."""

    root: Path
    mounted: dict[str, tuple[int, str]] = field(default_factory=dict)
    is_busy: bool = False
    on_umount: Callable[[], None] = lambda: None

    def __post_init__(self) -> None:
        self.boot("5e0c1b7a")

    def boot(self, boot_id: str) -> None:
        (self.root / "boot_id").write_text(f"{boot_id}\n")
        self.mounted = {"/": (22, "/dev/sda1")}
        self._write()

    def mount(self, directory: str, export: str = EXPORT) -> None:
        taken = {number for number, _ in self.mounted.values()}
        self.mounted[directory] = (min(set(range(40, 99)) - taken), export.replace(" ", r"\040"))
        self._write()

    def umount(self, directory: str) -> None:
        del self.mounted[directory]
        self._write()

    def spawn(self, command: list[str], **how: Any) -> "subprocess.Popen[str]":
        assert command[0] == "umount"
        self.on_umount()
        if self.is_busy:
            return subprocess.Popen(["sh", "-c", "echo target is busy >&2; exit 32"], **how)
        self.umount(command[1])
        return subprocess.Popen(["true"], **how)

    def _write(self) -> None:
        rows = self.mounted.items()
        (self.root / "mounts").write_text(
            "".join(f"{export} {where} nfs4 rw 0 0\n" for where, (_, export) in rows)
        )
        (self.root / "mountinfo").write_text(
            "".join(
                f"{number} 22 0:{number} / {where} rw shared:1 - nfs4 {export} rw\n"
                for where, (number, export) in rows
            )
        )


@pytest.fixture
def kernel(bench: Bench) -> Kernel:
    image(bench)
    root = bench.mounts.parent / "kernel"
    root.mkdir()
    return Kernel(root)


@pytest.fixture
def directory(bench: Bench) -> str:
    return Mounts(str(bench.mounts), None).directory_of(EXPORT)


@pytest.fixture
def notes(bench: Bench) -> Path:
    return bench.mounts.parent / "notes"


@pytest.fixture
def connectors(bench: Bench, kernel: Kernel, notes: Path) -> BrickConnectors:
    root = kernel.root
    own = OwnMounts(notes, root / "mountinfo", root / "boot_id")
    mounts = Mounts(str(bench.mounts), lambda path: False, own, root / "mounts", kernel.spawn)
    return bench.connectors(mounts=mounts)


@pytest.fixture
def ours(
    bench: Bench, connectors: BrickConnectors, kernel: Kernel, directory: str
) -> BrickConnectors:
    """A connect of ours has mounted it."""
    bench.brick.on_connect = lambda execute: kernel.mount(directory)
    connectors.connect(attachment(**wire(bench, WANTED)))
    assert connectors.exports() == [EXPORT]
    return connectors


def test_what_we_have_mounted_is_left(ours: BrickConnectors, kernel: Kernel, notes: Path) -> None:
    ours.leave(EXPORT)
    assert list(kernel.mounted) == ["/"]
    assert list(notes.iterdir()) == []


def test_also_where_the_connect_failed(
    bench: Bench, connectors: BrickConnectors, kernel: Kernel, directory: str
) -> None:
    def fail(execute: Any) -> None:
        kernel.mount(directory)
        raise OSError("no such file")

    bench.brick.on_connect = fail
    with pytest.raises(AgentError):
        connectors.connect(attachment(**wire(bench, WANTED)))
    assert connectors.exports() == [EXPORT]


def test_what_another_service_has_mounted_is_its_own(
    bench: Bench, connectors: BrickConnectors, kernel: Kernel, directory: str
) -> None:
    """For a guest that is still to come, say: no disk and no promise names it. So is what an older
    agent has mounted, or one that was killed before it could note it."""
    kernel.mount(directory)
    connectors.connect(attachment(**wire(bench, WANTED)))
    assert connectors.exports() == []
    connectors.leave(EXPORT)
    assert directory in kernel.mounted


def test_what_an_earlier_life_has_mounted_is_known(
    bench: Bench, kernel: Kernel, notes: Path
) -> None:
    """By its source, where the directory is the one of that export."""
    own = OwnMounts(notes, kernel.root / "mountinfo", kernel.root / "boot_id")
    mounts = Mounts(str(bench.mounts), None, own, kernel.root / "mounts")
    odd = "192.0.2.40:/with space"
    for where, export in (
        (mounts.directory_of(EXPORT), EXPORT),
        (mounts.directory_of(odd), odd),
        (f"{bench.mounts}/elsewhere", "192.0.2.40:/others"),
    ):
        kernel.mount(where, export)
        own.note(where)
    assert mounts.exports() == [EXPORT, odd]


@pytest.mark.parametrize("what", ["unmounted ours", "mounted it after a boot"])
def test_what_another_service_has_mounted_since_is_its_own(
    ours: BrickConnectors, kernel: Kernel, directory: str, what: str
) -> None:
    if what == "unmounted ours":
        kernel.umount(directory)
        kernel.mount("/mnt/of-somebody", "nas:/other")
    else:
        kernel.boot("6f1d2c8b")
    kernel.mount(directory)
    ours.leave(EXPORT)
    assert directory in kernel.mounted
    assert ours.exports() == []


def test_a_mount_that_is_gone_is_not_ours_when_it_comes_again(
    ours: BrickConnectors, kernel: Kernel, directory: str
) -> None:
    """It may have the same number."""
    kernel.umount(directory)
    assert ours.exports() == []
    kernel.mount(directory)
    assert ours.exports() == []


def test_one_that_is_busy_stays_ours(ours: BrickConnectors, kernel: Kernel) -> None:
    kernel.is_busy = True
    ours.leave(EXPORT)
    assert ours.exports() == [EXPORT]


def test_a_kill_in_the_unmount_leaves_no_note_of_what_is_gone(
    ours: BrickConnectors, kernel: Kernel, notes: Path
) -> None:
    then: list[Path] = []
    kernel.on_umount = lambda: then.extend(notes.iterdir())
    ours.leave(EXPORT)
    assert then == []


def test_half_a_note_is_none(ours: BrickConnectors, notes: Path) -> None:
    [note] = notes.iterdir()
    note.write_text(note.read_text()[:-1])
    assert ours.exports() == []


def test_a_note_that_cannot_be_written_is_none(
    bench: Bench, connectors: BrickConnectors, kernel: Kernel, directory: str, notes: Path
) -> None:
    notes.write_text("a file")
    bench.brick.on_connect = lambda execute: kernel.mount(directory)
    connectors.connect(attachment(**wire(bench, WANTED)))
    assert connectors.exports() == []
