"""The hypervisor's guests: two that booted before the snapshot, and others without a system."""

import uuid
from pathlib import Path

import libvirt

from tests.lab.guest import Guest, Shape
from tests.lab.guest_image import GuestImage

IMAGE = GuestImage(Path("/srv/lab/vmlinux"), Path("/srv/lab/initramfs.cpio"))
PLACE = Path("/srv/lab/guests")

HALTED = PLACE / "halted.rom"
"""Firmware of nothing but HLT: a guest that takes no processor, and no time to start."""
HALTED_BYTES = b"\xf4" * 65536

EMPTY = Shape(has_system=False, spare_ports=2, memory_mib=32, firmware=HALTED)
"""Lets go of virtio-scsi disks by itself."""


class SystemLibvirtd:
    """What tests.lab.libvirtd.Libvirtd is to a guest, of the machine's own libvirtd."""

    uri = "qemu:///system"

    def connection(self) -> libvirt.virConnect:
        return libvirt.open(self.uri)

    def outside(self, path: Path) -> Path:
        """It has no namespace of its own."""
        return path


def booted_guest(number: int) -> Guest:
    """guest-1 or guest-2, as begin.sh made it."""
    guest = _guest(f"guest-{number}", Shape())
    guest.uuid = f"00000000-0000-4000-8000-0000000000a{number}"
    return guest


def empty_guest() -> Guest:
    """Started, without a system."""
    HALTED.write_bytes(HALTED_BYTES)
    guest = _guest(f"empty-{uuid.uuid4().hex[:8]}", EMPTY)
    guest.start()
    return guest


def _guest(name: str, shape: Shape) -> Guest:
    return Guest(SystemLibvirtd(), IMAGE, PLACE, name, shape=shape)  # type: ignore[arg-type]
