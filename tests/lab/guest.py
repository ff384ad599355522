"""A guest of the private libvirtd: a domain, and the small system that runs in it."""

import hashlib
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import libvirt

from agent.guest.xml import XmlElement, element, parse, to_text
from tests.lab.guest_image import GuestImage
from tests.lab.libvirtd import Libvirtd
from tests.lab.patience import PATIENCE, LabError, wait_until
from tests.lab.serial_line import GuestRefused, GuestSilent, SerialLine

__all__ = ["Guest", "GuestDisk", "GuestRefused", "GuestSilent"]

# Half the boot time of a Debian kernel without them, on an emulated processor.
_KERNEL_ARGUMENTS = (
    "console=ttyS0 quiet panic=-1 nokaslr mitigations=off cryptomgr.notests audit=0 apparmor=0"
)
_BLOCK_BYTES = 4096
_VIRTIO_SERIAL_CHARACTERS = 20  # what virtio-blk shows of a serial (VIRTIO 1.2, 5.2.6)
_BOOT_SECONDS = 90

_STATES = {
    libvirt.VIR_DOMAIN_RUNNING: "running",
    libvirt.VIR_DOMAIN_PAUSED: "paused",
    libvirt.VIR_DOMAIN_SHUTOFF: "shut off",
    libvirt.VIR_DOMAIN_CRASHED: "crashed",
}


@dataclass(frozen=True)
class GuestDisk:
    """A disk as the guest itself sees it."""

    name: str
    size_bytes: int
    read_only: bool
    serial: str


@dataclass(frozen=True)
class Shape:
    """What a domain is made of. ``disks`` are libvirt disk elements it is defined with;
    ``closed_ports`` are PCIe ports that take nothing while it runs; ``firmware`` is a file."""

    has_system: bool = True
    spare_ports: int = 14
    closed_ports: int = 0
    scsi_controllers: int = 1
    iothreads: int = 2
    memory_mib: int = 256
    disks: Sequence[str] = ()
    firmware: Path | None = None


class Guest:
    """One domain. Nothing exists until define() or start()."""

    def __init__(
        self,
        libvirtd: Libvirtd,
        image: GuestImage,
        directory: Path,
        name: str,
        *,
        shape: Shape | None = None,
        is_persistent: bool = True,
        migrates: bool = False,
    ) -> None:
        self.name = name
        self.uuid = str(uuid.uuid4())
        self.shape = shape or Shape()
        self.is_persistent = is_persistent
        self.migrates = migrates
        self.console = directory / f"{name}.console"
        self._libvirtd = libvirtd
        self._image = image
        self._serial_path = directory / f"{name}.serial"
        self._line = SerialLine(libvirtd.outside(self._serial_path))
        self._boot_id = ""

    # --- the domain ----------------------------------------------------------

    @property
    def domain(self) -> libvirt.virDomain:
        """The domain, looked up anew: a restarted libvirtd does not know old handles."""
        return self._libvirtd.connection().lookupByUUIDString(self.uuid)

    def define(self) -> None:
        """Define it without starting it."""
        assert self.is_persistent, f"{self.name} is transient"
        self._libvirtd.connection().defineXML(self.xml())

    def start(self, *, paused: bool = False) -> None:
        """Start it, defining it first where it is persistent and not yet defined."""
        flags = libvirt.VIR_DOMAIN_START_PAUSED if paused else 0
        if not self.is_persistent:
            self._libvirtd.connection().createXML(self.xml(), flags)
            return
        if not self.exists():
            self.define()
        self.domain.createWithFlags(flags)

    def exists(self) -> bool:
        try:
            self.domain.UUIDString()
        except libvirt.libvirtError as error:
            if error.get_error_code() != libvirt.VIR_ERR_NO_DOMAIN:
                raise
            return False
        return True

    @property
    def state(self) -> str:
        """running, paused, shut off, crashed; gone when libvirt does not know it."""
        try:
            state, _ = self.domain.state()
        except libvirt.libvirtError as error:
            if error.get_error_code() != libvirt.VIR_ERR_NO_DOMAIN:
                raise
            return "gone"
        return _STATES.get(state, f"state {state}")

    def pause(self) -> None:
        self.domain.suspend()

    def resume(self) -> None:
        self.domain.resume()

    def reset(self) -> None:
        """The reset button; a guest with a system boots again (wait_ready)."""
        self.domain.reset()

    def destroy(self) -> None:
        """Pull the power plug; nothing happens when it does not run."""
        self._line.close()
        if self.exists() and self.domain.isActive():
            self.domain.destroy()

    def break_off(self, words: str) -> None:
        """It hears half a command, as in a migration."""
        self._line.break_off(words)

    def close(self) -> None:
        """Hang up; the domain stays as it is."""
        self._line.close()

    @property
    def hypervisor(self) -> Libvirtd:
        """Where it is looked for."""
        return self._libvirtd

    def is_now_at(self, libvirtd: Libvirtd) -> None:
        """It has gone there, and runs on: no new boot."""
        self._libvirtd = libvirtd
        self._line.move(libvirtd.outside(self._serial_path))

    def undefine(self) -> None:
        self.domain.undefine()

    def shutdown(self, *, seconds: float = 30) -> None:
        """Have the guest power itself off, and wait until it has."""
        self._ask("poweroff")
        wait_until(
            lambda: self.state in ("shut off", "gone"), f"{self.name} is off", seconds=seconds
        )
        self._line.close()

    def reboot(self) -> None:
        """Have the guest reboot itself (wait_ready)."""
        self._ask("reboot")

    def description(self, *, live: bool = True) -> XmlElement:
        """The domain's XML as libvirt has it now: the live half, or the inactive one."""
        flags = 0 if live else libvirt.VIR_DOMAIN_XML_INACTIVE
        return parse(self.domain.XMLDesc(flags))

    def xml(self) -> str:
        """The XML that it is defined with."""
        return to_text(_domain_xml(self, self._image, self._serial_path))

    # --- the system in it ----------------------------------------------------

    def wait_ready(self, *, seconds: float = _BOOT_SECONDS) -> None:
        """Back when the guest has booted: since the last call a *new* boot, after a reset."""

        def answers() -> bool:
            if self.state not in ("running", "paused"):
                raise LabError(f"{self.name} is {self.state}: {self._last_words()}")
            try:
                boot_id = self.boot_id(seconds=1)
            except (GuestSilent, GuestRefused):
                return False
            if boot_id == self._boot_id:
                return False
            self._boot_id = boot_id
            return True

        try:
            wait_until(answers, f"{self.name} boots", seconds=seconds, pause_seconds=0.1)
        except LabError as error:
            raise LabError(f"{error}\n{self._last_words()}") from error

    def boot_id(self, *, seconds: float = 20) -> str:
        """Another one each time that it boots."""
        [boot_id] = self._line.ask("hello", seconds=seconds)
        return boot_id

    def _last_words(self) -> str:
        console = self._libvirtd.outside(self.console)
        return console.read_text(errors="replace")[-2000:] if console.exists() else ""

    def disks(self) -> tuple[GuestDisk, ...]:
        found = []
        for line in self._ask("list"):
            name, size, read_only, serial = (line + " ").split(" ", 3)
            found.append(GuestDisk(name, int(size), read_only == "1", serial.strip()))
        return tuple(found)

    def find_disk(self, serial: str) -> GuestDisk | None:
        """The disk with this serial; virtio-blk guests see its first 20 characters."""
        seen = (serial, serial[:_VIRTIO_SERIAL_CHARACTERS])
        return next((disk for disk in self.disks() if disk.serial in seen), None)

    def wait_for_disk(self, serial: str, *, seconds: float = 20) -> GuestDisk:
        return wait_until(
            lambda: self.find_disk(serial), f"{self.name} sees disk {serial}", seconds=seconds
        )

    def wait_for_size(self, serial: str, size_bytes: int, *, seconds: float = 20) -> str:
        """The disk's name in the guest, once that sees the size."""

        def look() -> str | None:
            disk = self.find_disk(serial)
            return disk.name if disk is not None and disk.size_bytes == size_bytes else None

        return wait_until(look, f"{self.name} sees {size_bytes} bytes", seconds=seconds)

    def wait_for_no_disk(self, serial: str, *, seconds: float = 20) -> None:
        wait_until(
            lambda: self.find_disk(serial) is None,
            f"{self.name} no longer sees disk {serial}",
            seconds=seconds,
        )

    def write(self, disk: str, pattern: str, *, offset_mib: int = 0) -> None:
        """Fill one block of 4096 bytes with the pattern, a word, past the guest's caches.

        GuestRefused when the disk does not take it.
        """
        self._ask("write", disk, str(offset_mib), pattern)

    def read(self, disk: str, *, offset_mib: int = 0) -> str:
        """The pattern that fills the block there, past the guest's caches.

        "" for zeros; LabError when the block is torn: parts of it are something else.
        """
        digest, *words = self._ask("peek", disk, str(offset_mib))
        pattern = words[0] if words else ""
        if digest.split()[0] != hashlib.md5(block_of(pattern)).hexdigest():
            raise LabError(f"{self.name}: {disk} at {offset_mib} MiB is torn near {pattern!r}")
        return pattern

    def checksum(self, disk: str, *, offset_mib: int = 0, count_mib: int = 1) -> str:
        """SHA-256 of a part of the disk, past the guest's caches."""
        [line] = self._ask("checksum", disk, str(offset_mib), str(count_mib), seconds=120)
        return line.split()[0]

    def hold(self, disk: str) -> None:
        """Keep the disk open in the guest until let_go()."""
        self._ask("hold", disk)

    def let_go(self, disk: str) -> None:
        self._ask("release", disk)

    def persist(self, disk: str, *options: str) -> list[str]:
        """SCSI persistent reservations: sg_persist in the guest.

        GuestRefused when the target says no."""
        return self._ask("persist", disk, *options)

    def rescan(self) -> None:
        """Look again for PCI devices, SCSI devices and their sizes."""
        self._ask("rescan")

    def io_errors(self) -> list[str]:
        """What the guest's kernel has complained about since it booted."""
        return self._ask("errors")

    def _ask(self, command: str, *arguments: str, seconds: float = 20) -> list[str]:
        try:
            return self._line.ask(command, *arguments, seconds=seconds * PATIENCE)
        except GuestSilent as error:
            raise GuestSilent(f"{error}\n{self._last_words()}") from error


def block_of(pattern: str) -> bytes:
    """The block of 4096 bytes that Guest.write() writes; zeros for the empty pattern."""
    if not pattern:
        return bytes(_BLOCK_BYTES)
    line = pattern.encode() + b"\n"
    return (line * (_BLOCK_BYTES // len(line) + 1))[:_BLOCK_BYTES]


def _domain_xml(guest: Guest, image: GuestImage, serial: Path) -> XmlElement:
    shape = guest.shape
    boot = (
        element("kernel", text=str(image.kernel)),
        element("initrd", text=str(image.initramfs)),
        element("cmdline", text=_KERNEL_ARGUMENTS),
    )
    return element(
        "domain",
        element("name", text=guest.name),
        element("uuid", text=guest.uuid),
        element("memory", text=str(shape.memory_mib), unit="MiB"),
        element("vcpu", text="1"),
        element("iothreads", text=str(shape.iothreads)) if shape.iothreads else None,
        element(
            "os",
            element("type", text="hvm", arch="x86_64", machine="q35"),
            element("loader", text=str(shape.firmware), type="rom") if shape.firmware else None,
            *(boot if shape.has_system else ()),
        ),
        element("features", element("acpi")),
        element("on_reboot", text="restart"),
        element("on_poweroff", text="destroy"),
        element("on_crash", text="destroy"),
        element("devices", *_controllers(shape), *_devices(guest, serial)),
        _crooked_memory(shape) if guest.migrates else None,
        type="qemu",
    )


def _crooked_memory(shape: Shape) -> XmlElement:
    """As much memory less 8 KiB: an emulated guest survives its migration.

    Before QEMU 9.0 a migration loses what an emulated processor writes just after its pages were
    looked at (mended by QEMU's 03bfc2188f). It looks 64 pages at a time then; where the memory is
    no multiple of that, page by page, which is right. libvirt knows whole MiB only.
    """
    size_kib = (shape.memory_mib << 10) - 8
    arguments = (
        *("-object", f"memory-backend-ram,id=crooked,size={size_kib}K"),
        *("-m", f"{size_kib}K"),
        *("-machine", "memory-backend=crooked"),
    )
    values = "".join(f"<qemu:arg value='{argument}'/>" for argument in arguments)
    return parse(
        "<qemu:commandline xmlns:qemu='http://libvirt.org/schemas/domain/qemu/1.0'>"
        f"{values}</qemu:commandline>"
    )


def _controllers(shape: Shape) -> list[XmlElement]:
    ports = shape.spare_ports + shape.scsi_controllers
    return [
        # libvirt wants the root named before its ports.
        element("controller", type="pci", index=0, model="pcie-root"),
        *(
            element("controller", type="pci", index=index, model="pcie-root-port")
            for index in range(1, ports + 1)
        ),
        *(
            element(
                "controller",
                element("target", hotplug="off"),
                type="pci",
                index=index,
                model="pcie-root-port",
            )
            for index in range(ports + 1, ports + shape.closed_ports + 1)
        ),
        *(
            element("controller", type="scsi", index=index, model="virtio-scsi")
            for index in range(shape.scsi_controllers)
        ),
        element("controller", type="usb", model="none"),
    ]


def _devices(guest: Guest, serial: Path) -> list[XmlElement]:
    console = element("source", path=guest.console, append="on")
    line = element("source", mode="bind", path=serial)
    return [
        *(parse(disk) for disk in guest.shape.disks),
        element("serial", console, element("target", port=0), type="file"),
        element("serial", line, element("target", port=1), type="unix"),
        element("memballoon", model="none"),
    ]
