"""The nested hypervisor as a virtual machine: started, entered by ssh, reset, and ended.

<directory>/          of one run, below the system's temporary directory
    disk.qcow2        what this run changes of the image's disk
    console           what the kernel says
    qmp               QEMU's monitor, a socket
    qemu.log          what QEMU says
    ssh               the login that all commands share, a socket
    key, port         the way in
    enter             a script: root's shell in it, or the command that it is given
"""

import json
import os
import shlex
import shutil
import socket
import subprocess
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from random import SystemRandom
from typing import IO, Any

from tests.lab.guest_image import cache_directory, guest_image
from tests.lab.patience import LabError, wait_until
from tests.nested.outside.hypervisor_image import HypervisorImage, run

BOOT_SECONDS = 900
KVM_SECONDS = 10
MEMORY_MIB = 4096

KERNEL_ARGUMENTS = (
    "root=/dev/vda rw console=ttyS0 quiet mitigations=off apparmor=0 audit=0 "
    "systemd.show_status=false net.ifnames=0 hardened_usercopy=off "
    "clearcpuid=112"
)
"""nvmet and nvme-tcp on one machine: pages that were sent without a copy lie side by side in what
is received. hardened_usercopy (Linux 6.1) takes that for an overrun, and stops all."""

CPU = "max,-erms,-smap,-smep,-la57"
"""Without what costs most to emulate: an emulated boot took 147 s of processor time, and 176 s with
them (clearcpuid=112, rep_good, among the kernel's arguments belongs to them)."""

PORTS = range(20000, 32000)
"""Below those that the kernel gives to whoever asks for any: QEMU takes ours a moment later."""

DIES_WITH_US = ["setpriv", "--pdeathsig", "KILL", "--"]


class Machine:
    """One virtual machine. What is in ``directory`` is its own; ``disk.qcow2`` must be there."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.console = directory / "console"
        self._qmp = directory / "qmp"
        self._port = directory / "port"
        self._process: subprocess.Popen[bytes] | None = None
        self._line: subprocess.Popen[bytes] | None = None

    @property
    def port(self) -> int:
        return int(self._port.read_text())

    def start(
        self, image: HypervisorImage, *, snapshot: str | None = None, survives_us: bool = False
    ) -> None:
        """Back when root can log in. It ends with this process, however that ends, or survives."""
        shutil.copy(image.key, self.directory / "key")
        self._port.write_text(str(_free_port()))
        self._write_enter()
        load = [] if snapshot is None else ["-loadvm", snapshot]
        bound = [] if survives_us else DIES_WITH_US
        with (self.directory / "qemu.log").open("wb") as log:
            self._process = process = subprocess.Popen(
                [*bound, *self._command(image), *load],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,  # Ctrl-C is for the tests, which then end it
            )

        def answers() -> bool:
            if process.poll() is not None:
                said = (self.directory / "qemu.log").read_text(errors="replace")
                raise LabError(f"QEMU has ended: {said[-2000:]}")
            with suppress(LabError):
                self.ssh("true", seconds=60)
                return True
            return False

        try:
            wait_until(answers, "the hypervisor answers", seconds=BOOT_SECONDS, pause_seconds=0.5)
            self.take_up()
        except BaseException:
            self.kill()
            raise

    def take_up(self) -> None:
        """Before it is worked with; also when it was started by an earlier run.

        A snapshot goes on with the time of its saving. A login takes it seconds, so all that follow
        share one.
        """
        self._hang_up()
        argv = [*DIES_WITH_US, *self.ssh_argv("-M", "-N")]

        def is_in() -> bool:
            if self._line is None or self._line.poll() is not None:  # it was refused: once more
                self._line = subprocess.Popen(
                    argv,
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    start_new_session=True,
                )
            return self._line_path.exists()

        wait_until(is_in, "the hypervisor lets us in", seconds=300, pause_seconds=0.5)
        self.ssh(f"date -u -s @{time.time():.3f} > /dev/null")

    def _hang_up(self) -> None:
        if self._line is not None:
            self._line.kill()
            self._line.wait()
            self._line = None
        self._line_path.unlink(missing_ok=True)

    @property
    def _line_path(self) -> Path:
        return self.directory / "ssh"

    def save(self, snapshot: str) -> None:
        said = self._monitor("human-monitor-command", {"command-line": f"savevm {snapshot}"})
        if said.get("return"):
            raise LabError(f"savevm: {said['return']}")

    def restore(self, snapshot: str) -> None:
        """What it was when that was saved: memory, disk, guests, and the storage that it serves."""
        said = self._monitor("human-monitor-command", {"command-line": f"loadvm {snapshot}"})
        if said.get("return"):
            raise LabError(f"loadvm: {said['return']}")
        self.take_up()

    def reset(self) -> None:
        """As by the button; back when root can log in again: its services may still be starting."""
        before = self.ssh("cat /proc/sys/kernel/random/boot_id")
        self._hang_up()
        self._monitor("system_reset", {})

        def booted() -> bool:
            with suppress(LabError):
                return self.ssh("cat /proc/sys/kernel/random/boot_id", seconds=60) != before
            return False

        wait_until(booted, "the hypervisor boots", seconds=BOOT_SECONDS, pause_seconds=1)
        self.take_up()

    def kill(self) -> None:
        """As by the plug, whoever started it; nothing where it does not run."""
        self._hang_up()
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None
        elif self.runs():
            self._monitor("quit", {})
            wait_until(lambda: not self.runs(), "QEMU ends", seconds=30)

    def runs(self) -> bool:
        with socket.socket(socket.AF_UNIX) as line:
            return line.connect_ex(str(self._qmp)) == 0

    def ssh(self, command: str, *, seconds: float = 120, stdin: bytes | None = None) -> str:
        """What the command says.  Raises LabError if it fails."""
        try:
            done = subprocess.run(
                [*self.ssh_argv(), command], input=stdin, capture_output=True, timeout=seconds
            )
        except subprocess.TimeoutExpired as error:
            raise LabError(f"{command}: no end after {seconds:g} s") from error
        if done.returncode:
            said = (done.stdout + done.stderr).decode(errors="replace")
            raise LabError(f"{command}: {said[-4000:]}")
        return done.stdout.decode(errors="replace")

    def ssh_argv(self, *options: str) -> list[str]:
        return [
            "ssh",
            *("-q", "-i", str(self.directory / "key"), "-p", str(self.port)),
            *("-o", "BatchMode=yes", "-o", "ConnectTimeout=60", "-o", "ServerAliveInterval=15"),
            *("-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null"),
            *("-o", f"ControlPath={self._line_path}"),
            *options,
            "root@127.0.0.1",
        ]

    def _write_enter(self) -> None:
        enter = self.directory / "enter"
        enter.write_text(f'#!/bin/sh\nexec {quoted(self.ssh_argv())} "$@"\n')
        enter.chmod(0o755)

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

    def _command(self, image: HypervisorImage) -> list[str]:
        disk = self.directory / "disk.qcow2"
        forward = f"user,model=virtio-net-pci,restrict=on,hostfwd=tcp:127.0.0.1:{self.port}-:22"
        return [
            "qemu-system-x86_64",
            *("-machine", "q35", "-cpu", CPU, "-smp", "2", "-m", str(MEMORY_MIB)),
            *("-accel", accelerator()),
            *("-kernel", str(image.kernel), "-initrd", str(image.initrd)),
            *("-append", KERNEL_ARGUMENTS),
            *("-drive", f"file={disk},if=virtio,format=qcow2,cache=unsafe"),
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
    for port in SystemRandom().sample(PORTS, 100):
        with suppress(OSError), socket.create_server(("127.0.0.1", port)):
            return port
    raise LabError(f"none of a hundred ports of {PORTS} is free")


def accelerator() -> str:
    """KVM where it starts a Debian kernel: it may be there and not work. Asked once a boot."""
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    known = cache_directory() / "accelerator"
    if not known.exists() or not known.read_text().startswith(boot):
        found = "kvm" if _kvm_boots() else "tcg,thread=multi,tb-size=1024"
        beside = known.with_name(f"accelerator.{os.getpid()}")
        beside.write_text(f"{boot} {found}")
        beside.rename(known)
    return known.read_text().split()[1]


def _kvm_boots() -> bool:
    if not os.access("/dev/kvm", os.W_OK):
        return False
    guest = guest_image(cache_directory())
    argv = [
        *("timeout", "--signal=KILL", str(KVM_SECONDS)),
        *("qemu-system-x86_64", "-machine", "q35", "-accel", "kvm", "-cpu", "max", "-m", "256"),
        *("-kernel", str(guest.kernel), "-initrd", str(guest.initramfs)),
        *("-append", "console=ttyS0 panic=-1", "-display", "none", "-serial", "stdio"),
        *("-no-reboot", "-monitor", "none"),
    ]
    said = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True).stdout
    return b"Run /init" in said


def version_of_qemu() -> str:
    return run("qemu-system-x86_64", "--version").splitlines()[0]


def quoted(words: Sequence[str]) -> str:
    return " ".join(shlex.quote(word) for word in words)
