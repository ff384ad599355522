"""The lab guest's kernel and initramfs, built once and kept in the cache directory.

    <cache>/
        lock                        held by whoever builds
        kernel-<digest>/            the recipe's digest
            vmlinux                 Debian's kernel, unpacked: emulated, that takes seconds
            modules/                the disk drivers with what they need
            modules/order           their names, in the order in which they load
        tools-<digest>/             sg_persist and its libraries, by their places in the guest
        initramfs-<digest>.cpio     busybox, guest_init.sh, modules, tools: digest of all of them

Complete when it is there: each is made beside its place and then renamed.
"""

import fcntl
import hashlib
import lzma
import os
import shutil
import stat
import struct
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.lab.patience import LabError

_META_PACKAGE = "linux-image-amd64"
_DRIVERS = ("virtio_pci", "virtio_blk", "virtio_scsi", "sd_mod")
_KERNEL_RECIPE = f"1 {_META_PACKAGE} {' '.join(_DRIVERS)}"  # another number builds it anew
_BUSYBOX = Path("/bin/busybox")
_TOOL = "sg_persist"
_TOOL_PACKAGE = "sg3-utils"
_TOOLS_RECIPE = f"1 {_TOOL_PACKAGE} {_TOOL}"
_LIBC = (Path("/lib/x86_64-linux-gnu/libc.so.6"), Path("/lib64/ld-linux-x86-64.so.2"))
_INIT = Path(__file__).with_name("guest_init.sh")
_APPLETS = (
    *("sh", "cat", "dd", "dmesg", "echo", "grep", "head", "insmod", "kill", "md5sum", "mkdir"),
    *(
        "mount",
        "poweroff",
        "reboot",
        "rm",
        "sed",
        "sha256sum",
        "sleep",
        "stty",
        "tail",
        "tr",
        "yes",
    ),
)


@dataclass(frozen=True)
class GuestImage:
    kernel: Path
    initramfs: Path


def cache_directory() -> Path:
    """Where this project keeps what is costly to make again."""
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(home) / "libvirt-attachment-agent"


def guest_image(cache: Path) -> GuestImage:
    """The image, built when it is not in the cache. Needs apt's package lists only then."""
    cache.mkdir(parents=True, exist_ok=True)
    kernel = cache / f"kernel-{_digest(_KERNEL_RECIPE.encode())}"
    tools = cache / f"tools-{_digest(_TOOLS_RECIPE.encode())}"
    with _locked(cache / "lock"):
        if not kernel.exists():
            _make_kernel(kernel)
        if not tools.exists():
            _make_tools(tools)
        parts = [*_files(kernel / "modules"), *_files(tools / "bin"), *_files(tools / "lib")]
        digest = _digest(
            b"".join(p.read_bytes() for p in (_BUSYBOX, _INIT, Path(__file__), *parts))
        )
        initramfs = cache / f"initramfs-{digest}.cpio"
        if not initramfs.exists():
            _make_initramfs(initramfs, kernel / "modules", tools)
    return GuestImage(kernel / "vmlinux", initramfs)


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:12]


def _files(directory: Path) -> list[Path]:
    return sorted(path for path in directory.iterdir() if path.is_file())


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    with path.open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _run(*argv: str | Path, cwd: Path | None = None) -> str:
    done = subprocess.run(argv, cwd=cwd, capture_output=True, text=True, timeout=300, check=False)
    if done.returncode:
        raise LabError(f"{' '.join(map(str, argv))} failed: {done.stderr.strip()}")
    return done.stdout


# --- the kernel ------------------------------------------------------------------


def _make_kernel(place: Path) -> None:
    with tempfile.TemporaryDirectory(dir=place.parent) as scratch:
        tree = Path(scratch) / "tree"
        _run("dpkg", "-x", _download(_kernel_package(), Path(scratch)), tree)
        made = Path(scratch) / "made"
        (made / "modules").mkdir(parents=True)
        [compressed] = (tree / "boot").glob("vmlinuz-*")
        (made / "vmlinux").write_bytes(_unpacked(compressed.read_bytes()))
        release = compressed.name.removeprefix("vmlinuz-")
        if not (tree / "lib").exists():
            (tree / "lib").symlink_to("usr/lib")  # Debian 13 has no other
        _run("depmod", "--basedir", tree, release)
        names = []
        for module in _in_load_order(tree, release):
            content = module.read_bytes()
            name = module.name.removesuffix(".xz")
            (made / "modules" / name).write_bytes(content if name == module.name else _xz(content))
            names.append(name + "\n")
        (made / "modules" / "order").write_text("".join(names))
        made.rename(place)


def _kernel_package() -> str:
    """The package that the meta package of this Debian release stands for today."""
    return _depends_on(_META_PACKAGE, "")


def _depends_on(package: str, beginning: str) -> str:
    """The first package with a name that begins so, on which this one depends."""
    for line in _run("apt-cache", "depends", "--important", package).splitlines():
        word, _, name = line.strip().partition(" ")
        if word == "Depends:" and name.startswith(beginning):
            return name
    raise LabError(f"apt knows no package behind {package}; run apt-get update")


def _download(package: str, directory: Path) -> Path:
    _run("apt-get", "download", "-o", "APT::Sandbox::User=root", package, cwd=directory)
    [archive] = directory.glob("*.deb")
    return archive


def _unpacked(image: bytes) -> bytes:
    """The ELF kernel out of a bzImage; QEMU starts it through its PVH entry.

    Offsets: the kernel's Documentation/arch/x86/boot.rst, header fields setup_sects,
    payload_offset and payload_length.
    """
    setup_sectors = image[0x1F1] or 4
    offset, length = struct.unpack_from("<II", image, 0x248)
    start = (setup_sectors + 1) * 512 + offset
    payload = image[start : start + length]
    kernel = _zstd(payload[:-_SIZE_BYTES]) if payload.startswith(_ZSTD) else _xz(payload)
    if not kernel.startswith(b"\x7fELF"):
        raise LabError("Debian's kernel image does not contain an ELF file")
    return kernel


_ZSTD = b"\x28\xb5\x2f\xfd"
"""What begins so is compressed by it: Debian 13's kernel."""
_SIZE_BYTES = 4
"""Of the plain length, which the kernel's build writes behind what it has compressed."""


def _zstd(packed: bytes) -> bytes:
    unpack = ("zstd", "--decompress", "--stdout")
    return subprocess.run(
        unpack, input=packed, stdout=subprocess.PIPE, timeout=300, check=True
    ).stdout


def _xz(packed: bytes) -> bytes:
    return lzma.LZMADecompressor().decompress(packed)


def _in_load_order(tree: Path, release: str) -> list[Path]:
    """The drivers and what they depend on, each once, dependencies first."""
    found: dict[Path, None] = {}
    for driver in _DRIVERS:
        shown = _run("modprobe", "--dirname", tree, "--set-version", release, "-D", driver)
        for line in shown.splitlines():
            word, _, path = line.strip().partition(" ")
            if word == "insmod":
                found[Path(path)] = None
    return list(found)


# --- the tools ---------------------------------------------------------------------


def _make_tools(place: Path) -> None:
    """The program out of its package, with the library that the package names; libc is ours."""
    with tempfile.TemporaryDirectory(dir=place.parent) as scratch:
        tree, made = Path(scratch) / "tree", Path(scratch) / "made"
        for directory in ("bin", "lib", "lib64"):
            (made / directory).mkdir(parents=True)
        for package in (_TOOL_PACKAGE, _depends_on(_TOOL_PACKAGE, "libsgutils2")):
            _run("dpkg", "-x", _download(package, Path(scratch)), tree)
            for archive in Path(scratch).glob("*.deb"):
                archive.unlink()
        shutil.copy(tree / "usr/bin" / _TOOL, made / "bin")
        for library in (tree / "usr/lib/x86_64-linux-gnu").glob("libsgutils2*.so.2"):
            shutil.copy(library, made / "lib")
        libc, loader = _LIBC
        shutil.copy(libc, made / "lib")
        shutil.copy(loader, made / "lib64")
        made.rename(place)


# --- the initramfs ---------------------------------------------------------------


def _make_initramfs(place: Path, modules: Path, tools: Path) -> None:
    archive = _Cpio()
    for name in ("bin", "dev", "lib", "lib64", "proc", "sys", "tmp", "modules"):
        archive.add(name, stat.S_IFDIR | 0o755)
    archive.add("dev/console", stat.S_IFCHR | 0o600, device=(5, 1))
    archive.add("bin/busybox", stat.S_IFREG | 0o755, _BUSYBOX.read_bytes())
    for applet in _APPLETS:
        archive.add(f"bin/{applet}", stat.S_IFLNK | 0o777, b"busybox")
    archive.add("init", stat.S_IFREG | 0o755, _INIT.read_bytes())
    for module in _files(modules):
        archive.add(f"modules/{module.name}", stat.S_IFREG | 0o644, module.read_bytes())
    for directory in ("bin", "lib", "lib64"):
        for file in _files(tools / directory):
            mode = stat.S_IFREG | 0o755
            archive.add(f"{directory}/{file.name}", mode, file.read_bytes())
    unfinished = place.with_suffix(f".{os.getpid()}")
    unfinished.write_bytes(archive.finished())
    unfinished.rename(place)


class _Cpio:
    """A newc archive (the kernel's Documentation/driver-api/early-userspace/buffer-format.rst)."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []
        self._count = 0

    def add(
        self, name: str, mode: int, content: bytes = b"", device: tuple[int, int] = (0, 0)
    ) -> None:
        self._count += 1
        encoded = name.encode() + b"\0"
        numbers = (self._count, mode, 0, 0, 1, 0, len(content), 0, 0, *device, len(encoded), 0)
        head = b"070701" + b"".join(b"%08x" % number for number in numbers) + encoded
        self._parts += [_padded(head), _padded(content)]

    def finished(self) -> bytes:
        self.add("TRAILER!!!", 0)
        return b"".join(self._parts)


def _padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % 4)
