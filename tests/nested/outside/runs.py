"""The machine of a run: from a snapshot, on a disk of its own, and ended with the run or kept.

    <cache>/hypervisor-<digest>/booted-<digest>.qcow2    the snapshot; the first run makes it
    <temporary directory>/attachment-hypervisor-NAME/    the machine of ``--keep NAME``

A machine that was kept is taken up by the next run that names it. ``tools/nested --end NAME``
ends it. Many runs may go on at once; a name is one run's at a time.
"""

import fcntl
import hashlib
import os
import re
import shutil
import stat
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.lab.patience import LabError
from tests.nested.outside.hypervisor_image import (
    HypervisorImage,
    Release,
    Tell,
    hypervisor_image,
    locked,
    run,
    stage,
)
from tests.nested.outside.machine import (
    CPU,
    KERNEL_ARGUMENTS,
    MEMORY_MIB,
    Machine,
    accelerator,
    version_of_qemu,
)

BEGIN = Path(__file__).parents[1] / "inside" / "begin.sh"

BOOTED = "booted"
"""The snapshot of a machine whose services run and whose guests have booted."""

PREFIX = "attachment-hypervisor-"


@contextmanager
def machine(release: Release, tell: Tell) -> Iterator[Machine]:
    """Booted, with its services and guests; ended afterwards."""
    with tempfile.TemporaryDirectory(prefix=PREFIX) as place:
        found = Machine(Path(place))
        try:
            _start(found, release, tell)
            yield found
        finally:
            found.kill()


@contextmanager
def kept_machine(name: str, release: Release, tell: Tell) -> Iterator[Machine]:
    """The one that an earlier run has kept, or a new one; it stays, unless it cannot be started."""
    directory = place_of(name)
    with _alone(name):
        found = Machine(directory)
        if found.runs():
            found.take_up()
            tell(f"{name} is there, as the last run left it")
        else:
            end(name)
            directory.mkdir(mode=0o700)
            _start(found, release, tell, survives_us=True)
        try:
            yield found
        finally:
            tell(f"it stays: {directory}/enter, or tools/nested --end {name}")


def place_of(name: str) -> Path:
    if not re.fullmatch(r"[a-z0-9][a-z0-9-]*", name):
        raise LabError(f"a name is of a-z, 0-9 and -, not {name!r}")
    place = Path(tempfile.gettempdir()) / f"{PREFIX}{name}"
    if os.path.lexists(place) and not _is_ours(place.lstat()):
        raise LabError(f"{place} is no directory of ours alone: remove it, or choose another name")
    return place


def _is_ours(found: os.stat_result) -> bool:
    """Anybody may make a name in /tmp, and we are root."""
    return found.st_uid == os.geteuid() and found.st_mode == stat.S_IFDIR | 0o700


def end(name: str) -> None:
    """Nothing where there is none."""
    directory = place_of(name)
    if directory.exists():
        Machine(directory).kill()
        shutil.rmtree(directory)


@contextmanager
def _alone(name: str) -> Iterator[None]:
    with place_of(name).with_suffix(".lock").open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise LabError(f"another run uses {name} now: choose another name") from error
        yield


def _start(found: Machine, release: Release, tell: Tell, *, survives_us: bool = False) -> None:
    image = hypervisor_image(release, tell)
    template = _template(image, tell)
    with stage(tell, f"the hypervisor runs ({accelerator()[:3]}, {MEMORY_MIB} MiB)"):
        run("cp", "--sparse=always", str(template), str(found.directory / "disk.qcow2"))
        found.start(image, snapshot=BOOTED, survives_us=survives_us)


def _template(image: HypervisorImage, tell: Tell) -> Path:
    """A disk with the snapshot; that fits only the QEMU and the machine that it was taken of."""
    machine = (CPU, KERNEL_ARGUMENTS, MEMORY_MIB, accelerator(), version_of_qemu())
    digest = hashlib.sha256(repr((BEGIN.read_text(), machine)).encode()).hexdigest()[:12]
    template = image.directory / f"{BOOTED}-{digest}.qcow2"
    with locked(image.directory / "lock"):
        if not template.exists():
            for old in image.directory.glob(f"{BOOTED}-*"):
                old.unlink()
            tell("booting it and its guests, once: a few minutes without KVM")
            with stage(tell, "the snapshot is taken"):
                _make_template(image, template)
    return template


def _make_template(image: HypervisorImage, template: Path) -> None:
    with tempfile.TemporaryDirectory(dir=template.parent) as place:
        disk = Path(place) / "disk.qcow2"
        backing = ("-b", str(image.disk), "-F", "raw")
        run("qemu-img", "create", "-q", "-f", "qcow2", *backing, str(disk))
        booting = Machine(Path(place))
        try:
            booting.start(image)
            booting.put([BEGIN], "/srv/lab")
            booting.ssh(f"bash /srv/lab/{BEGIN.name}", seconds=1800)
            booting.save(BOOTED)
        finally:
            booting.kill()
        disk.rename(template)


if __name__ == "__main__":  # tools/nested --end NAME
    with _alone(sys.argv[1]):
        end(sys.argv[1])
