"""The disk of the nested hypervisor: a whole Debian, made once and kept in the cache directory.

    <cache>/hypervisor-<digest>/
        disk.raw                 the root file system
        vmlinuz, initrd.img      started directly
        key, key.pub             root's way in by ssh

Everything that the agent's user installs from a package index is in it as wheels, and installed
already: the hypervisor has no network. The project itself is not in it.
"""

import fcntl
import hashlib
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.lab.guest_image import cache_directory, guest_image
from tests.lab.patience import LabError

REPOSITORY = Path(__file__).parents[3]

RECIPE = 1
"""Another number makes it anew, as another list of packages does."""

PACKAGES = (
    *("systemd", "systemd-sysv", "udev", "dbus", "kmod", "procps", "psmisc", "util-linux"),
    *("iproute2", "nftables", "openssh-server", "ca-certificates", "linux-image-amd64"),
    *(
        "libvirt-daemon-system",
        "libvirt-clients",
        "qemu-system-x86",
        "qemu-utils",
        "qemu-block-extra",
    ),
    *("open-iscsi", "multipath-tools", "nvme-cli", "nfs-kernel-server", "nfs-common"),
    *("lvm2", "lsscsi", "sg3-utils", "bindfs", "rabbitmq-server", "python3", "python3-venv"),
)
"""A hypervisor with its tools, and the storage that it serves to itself."""

TEST_TOOLS = ("pytest", "pytest-timeout", "hypothesis")


@dataclass(frozen=True)
class Release:
    """A Debian that the hypervisor can be."""

    name: str
    python: str
    """Its version there, as 3.11."""

    @property
    def has_our_python(self) -> bool:
        """Then the wheels that are made here fit; else the tree makes its own."""
        return self.python == f"{sys.version_info.major}.{sys.version_info.minor}"

    @property
    def packages(self) -> tuple[str, ...]:
        return PACKAGES if self.has_our_python else PACKAGES + COMPILER


COMPILER = ("gcc", "libc6-dev", "libvirt-dev", "pkg-config", "python3-dev")
"""libvirt-python is published as source alone."""

RELEASES = {
    "bookworm": Release("bookworm", "3.11"),  # libvirt 9.0, QEMU 7.2, RabbitMQ 3.10, Linux 6.1
    "trixie": Release("trixie", "3.13"),  # libvirt 11.3, QEMU 10.0, RabbitMQ 4.0, Linux 6.12
}

FURNISH = Path(__file__).with_name("furnish.sh")


@dataclass(frozen=True)
class HypervisorImage:
    directory: Path

    @property
    def disk(self) -> Path:
        return self.directory / "disk.raw"

    @property
    def kernel(self) -> Path:
        return self.directory / "vmlinuz"

    @property
    def initrd(self) -> Path:
        return self.directory / "initrd.img"

    @property
    def key(self) -> Path:
        return self.directory / "key"


Tell = Callable[[str], None]
"""Is told what takes long."""


def hypervisor_image(release: Release, tell: Tell) -> HypervisorImage:
    """The image, made when it is not in the cache; takes two or three minutes then."""
    cache = cache_directory()
    guest = guest_image(cache)
    wanted = (REPOSITORY / "requirements.txt").read_text()
    parts = (RECIPE, release, release.packages, TEST_TOOLS, FURNISH.read_text(), wanted, guest)
    text = " ".join(map(str, parts))
    place = cache / f"hypervisor-{hashlib.sha256(text.encode()).hexdigest()[:12]}"
    with locked(cache / "hypervisor.lock"):
        if not place.exists():
            tell("making the hypervisor's disk, once: Debian packages and Python wheels")
            with stage(tell, "the disk is made"), tempfile.TemporaryDirectory(dir=cache) as scratch:
                _make(release, Path(scratch), guest.kernel, guest.initramfs)
                (Path(scratch) / "image").rename(place)
        place.touch()
        _forget_old_images(cache)
    return HypervisorImage(place)


def _forget_old_images(cache: Path) -> None:
    """But the last three that were used: another checkout or release may want another one."""
    images = [path for path in cache.glob("hypervisor-*") if path.is_dir()]
    for old in sorted(images, key=lambda path: path.stat().st_mtime)[:-3]:
        shutil.rmtree(old)


@contextmanager
def stage(tell: Tell, what: str) -> Iterator[None]:
    """Tells, when it is done, how long it took."""
    begun = time.monotonic()
    yield
    tell(f"{what} ({time.monotonic() - begun:.0f} s)")


@contextmanager
def locked(path: Path) -> Iterator[None]:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _make(release: Release, scratch: Path, kernel: Path, initramfs: Path) -> None:
    image = scratch / "image"
    image.mkdir()
    shutil.copy(kernel, scratch / "kernel")
    shutil.copy(initramfs, scratch / "initramfs")
    shutil.copy(REPOSITORY / "requirements.txt", scratch)
    run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "lab", "-f", str(scratch / "key"))
    wheels = ("-r", str(scratch / "requirements.txt"), *TEST_TOOLS, "setuptools", "wheel", "pbr")
    if release.has_our_python:
        run(sys.executable, "-m", "pip", "wheel", "--quiet", "-w", str(scratch / "wheels"), *wheels)
    tree = scratch / "tree"
    run(
        *("env", f"SCRATCH={scratch}", f"TEST_TOOLS={' '.join(TEST_TOOLS)}"),
        "mmdebstrap",
        "--variant=minbase",
        f"--include={','.join(release.packages)}",
        *(
            f"--dpkgopt=path-exclude=/usr/share/{what}/*"
            for what in ("doc", "man", "locale", "info")
        ),
        f'--customize-hook=bash {FURNISH} "$1"',
        release.name,
        str(tree),
    )
    run("truncate", "-s", "6G", str(image / "disk.raw"))
    run("mke2fs", "-q", "-t", "ext4", "-d", str(tree), str(image / "disk.raw"))
    shutil.rmtree(tree)
    for name in ("vmlinuz", "initrd.img", "key", "key.pub"):
        (scratch / name).rename(image / name)


def run(*argv: str, seconds: float = 900) -> str:
    done = subprocess.run(argv, capture_output=True, text=True, timeout=seconds, check=False)
    if done.returncode:
        raise LabError(f"{shlex.join(argv)} failed: {done.stderr.strip()[-3000:]}")
    return done.stdout
