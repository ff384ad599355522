"""The nested hypervisor as a virtual machine: started, entered by ssh, reset, and ended.

<directory>/          of one run, below the system's temporary directory
    disk.qcow2        what this run changes of the image's disk
    console           what the kernel says
    qmp               QEMU's monitor, a socket
"""

import hashlib
import json
import os
import shlex
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from tests.lab.guest_image import cache_directory, guest_image
from tests.lab.patience import LabError, wait_until
from tests.nested.outside.hypervisor_image import HypervisorImage, locked, run

BOOT_SECONDS = 300
KVM_SECONDS = 10
MEMORY_MIB = 4096
BEGIN = Path(__file__).parents[1] / "inside" / "begin.sh"

BOOTED = "booted"
"""The snapshot of a machine whose services run and whose guests have booted."""

KERNEL_ARGUMENTS = (
    "root=/dev/vda rw console=ttyS0 quiet mitigations=off apparmor=0 audit=0 "
    "systemd.show_status=false net.ifnames=0"
)


class Machine:
    """One virtual machine on a disk of its own. ``tell`` is told what takes long."""

    def __init__(self, image: HypervisorImage, disk: Path, directory: Path) -> None:
        self._image = image
        self._disk = disk
        self._directory = directory
        self.port = _free_port()
        self.console = directory / "console"
        self._qmp = directory / "qmp"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, *, snapshot: str | None = None) -> None:
        """Back when root can log in."""
        self._qmp.unlink(missing_ok=True)
        load = [] if snapshot is None else ["-loadvm", snapshot]
        argv = [*self._command(), *load]
        with (self._directory / "qemu.log").open("ab") as log:
            self._process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        wait_until(self._answers, "the hypervisor answers", seconds=BOOT_SECONDS, pause_seconds=0.5)
        self.ssh(f"date -u -s @{time.time():.3f} > /dev/null")

    def save(self, snapshot: str) -> None:
        said = self._monitor("human-monitor-command", {"command-line": f"savevm {snapshot}"})
        if said.get("return"):
            raise LabError(f"savevm: {said['return']}")

    def reset(self) -> None:
        """As by the button; back when it has booted again."""
        before = self.ssh("cat /proc/sys/kernel/random/boot_id")
        self._monitor("system_reset", {})

        def booted() -> bool:
            with suppress(LabError):
                return self.ssh("cat /proc/sys/kernel/random/boot_id", seconds=10) != before
            return False

        wait_until(booted, "the hypervisor boots", seconds=BOOT_SECONDS, pause_seconds=1)

    def kill(self) -> None:
        """As by the plug. What this process started, and nothing else."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def ssh(self, command: str, *, seconds: float = 120, stdin: bytes | None = None) -> str:
        """What the command says.  Raises LabError if it fails."""
        try:
            done = subprocess.run(
                [*self.ssh_argv(), command], input=stdin, capture_output=True, timeout=seconds
            )
        except subprocess.TimeoutExpired as error:
            raise LabError(f"{command}: no end after {seconds:g} s") from error
        if done.returncode:
            raise LabError(f"{command}: {done.stderr.decode(errors='replace')[-3000:]}")
        return done.stdout.decode(errors="replace")

    def ssh_argv(self, *options: str) -> list[str]:
        return [
            "ssh",
            *("-q", "-i", str(self._image.key), "-p", str(self.port), "-o", "BatchMode=yes"),
            *("-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null"),
            *("-o", "ConnectTimeout=5", "-o", "ServerAliveInterval=15"),
            *options,
            "root@127.0.0.1",
        ]

    def put(self, sources: Sequence[Path], place: str) -> None:
        """Files and directories, by their names, below ``place``."""
        tar = ["tar", "-c", "--exclude=__pycache__"]
        for source in sources:
            tar += ["-C", str(source.parent), source.name]
        packed = subprocess.run(tar, capture_output=True, check=True).stdout
        self.ssh(f"mkdir -p {place} && tar -x -C {place}", stdin=packed)

    def get(self, command: str, place: Path) -> None:
        """What a command says, as a file."""
        with suppress(LabError):
            place.write_text(self.ssh(command))

    def popen(self, command: str) -> subprocess.Popen[bytes]:
        """A command that goes on; its output can be read as it comes."""
        argv = [*self.ssh_argv(), command]
        return subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)

    def _answers(self) -> bool:
        assert self._process is not None
        if self._process.poll() is not None:
            said = (self._directory / "qemu.log").read_text(errors="replace")
            raise LabError(f"QEMU has ended: {said[-2000:]}")
        with suppress(LabError):
            self.ssh("true", seconds=20)
            return True
        return False

    def _command(self) -> list[str]:
        forward = f"user,model=virtio-net-pci,restrict=on,hostfwd=tcp:127.0.0.1:{self.port}-:22"
        return [
            "qemu-system-x86_64",
            *("-machine", "q35", "-cpu", "max", "-smp", "2", "-m", str(MEMORY_MIB)),
            *("-accel", accelerator()),
            *("-kernel", str(self._image.kernel), "-initrd", str(self._image.initrd)),
            *("-append", KERNEL_ARGUMENTS),
            *("-drive", f"file={self._disk},if=virtio,format=qcow2,cache=unsafe"),
            *("-nic", forward, "-display", "none", "-monitor", "none"),
            *("-serial", f"file:{self.console}"),
            *("-qmp", f"unix:{self._qmp},server=on,wait=off"),
        ]

    def _monitor(self, command: str, arguments: dict[str, Any]) -> dict[str, Any]:
        with socket.socket(socket.AF_UNIX) as line:
            line.settimeout(300)
            line.connect(str(self._qmp))
            stream = line.makefile("rw")
            json.loads(stream.readline())
            for word, given in (("qmp_capabilities", {}), (command, arguments)):
                stream.write(json.dumps({"execute": word, "arguments": given}) + "\n")
                stream.flush()
                answer = _answer(stream)
            return answer


def _answer(stream: IO[str]) -> dict[str, Any]:
    """Events come between."""
    while True:
        answer: dict[str, Any] = json.loads(stream.readline())
        if "error" in answer:
            raise LabError(f"QEMU's monitor: {answer['error']}")
        if "return" in answer:
            return answer


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return int(taken.getsockname()[1])


_accelerator: list[str] = []


def accelerator() -> str:
    """KVM where it starts a Debian kernel: it may be there and not work."""
    if not _accelerator:
        emulated = "tcg,thread=multi,tb-size=1024"
        _accelerator.append("kvm" if _kvm_boots() else emulated)
    return _accelerator[0]


def _kvm_boots() -> bool:
    if not os.access("/dev/kvm", os.W_OK):
        return False
    guest = guest_image(cache_directory())
    argv = [
        *("qemu-system-x86_64", "-machine", "q35", "-accel", "kvm", "-cpu", "max", "-m", "256"),
        *("-kernel", str(guest.kernel), "-initrd", str(guest.initramfs)),
        *("-append", "console=ttyS0 panic=-1", "-display", "none", "-serial", "stdio"),
        *("-no-reboot", "-monitor", "none"),
    ]
    process = subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    try:
        said = process.communicate(timeout=KVM_SECONDS)[0]
    except subprocess.TimeoutExpired:
        process.kill()
        said = process.communicate()[0]
    return b"Linux version" in said and b"Run /init" in said


@contextmanager
def machine(image: HypervisorImage, tell: Callable[[str], None]) -> Iterator[Machine]:
    """Booted, with its services and guests, from the snapshot; a first run makes that."""
    begin = hashlib.sha256(BEGIN.read_bytes()).hexdigest()[:8]
    template = image.directory / f"{BOOTED}-{accelerator()[:3]}-{begin}.qcow2"
    with locked(image.directory / "lock"):
        if not template.exists():
            _make_template(image, template, tell)
    with tempfile.TemporaryDirectory(prefix="attachment-hypervisor-") as place:
        disk = Path(place) / "disk.qcow2"
        run("cp", "--reflink=auto", "--sparse=always", str(template), str(disk))
        found = Machine(image, disk, Path(place))
        try:
            found.start(snapshot=BOOTED)
            yield found
        finally:
            found.kill()


def _make_template(image: HypervisorImage, template: Path, tell: Callable[[str], None]) -> None:
    tell(f"booting the hypervisor and its guests, once ({accelerator()[:3]})")
    with tempfile.TemporaryDirectory(dir=template.parent) as place:
        disk = Path(place) / "disk.qcow2"
        backing = ("-b", str(image.disk), "-F", "raw")
        run("qemu-img", "create", "-q", "-f", "qcow2", *backing, str(disk))
        booting = Machine(image, disk, Path(place))
        try:
            booting.start()
            booting.put([BEGIN], "/srv/lab")
            booting.ssh(f"bash /srv/lab/{BEGIN.name}", seconds=900)
            booting.save(BOOTED)
        finally:
            booting.kill()
        shutil.move(disk, template)


def quoted(words: Sequence[str]) -> str:
    return " ".join(shlex.quote(word) for word in words)
