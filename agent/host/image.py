"""A volume that is a file: its size, read without following anything that the file names.

A qcow2 header may name another file of the host as its backing or data file, and whoever opens
the image reads that (CVE-2024-32498). A guest writes every byte of its image, the header too, so
such an image is refused here, before a guest sees it; QEMU is never asked what is inside.
"""

import os
import stat
import struct
import subprocess
from dataclasses import dataclass
from typing import Literal

from agent.errors import ConnectFailed, Invalid, LunMissing
from agent.host.bounded import Spawn, refuse_silent

_QCOW2_HEADER = struct.Struct(">4sIQIIQ")
"""magic, version, backing_file_offset, backing_file_size, cluster_bits, size in bytes
(QEMU, docs/interop/qcow2.txt)."""

_QCOW2_MAGIC = b"QFI\xfb"
_FEATURES = struct.Struct(">Q")
_FEATURES_OFFSET = 72
_EXTERNAL_DATA_FILE = 1 << 2


@dataclass(frozen=True)
class Image:
    """What the guest will see of the file."""

    size_bytes: int
    read_only: bool


def look_at_image(
    path: str, image_format: Literal["raw", "qcow2"], spawn: Spawn = subprocess.Popen
) -> Image:
    """Raises LunMissing (no such file), ConnectFailed (it cannot be read, its server is silent) or
    Invalid (not a plain one, names other files)."""
    refuse_silent(path, spawn, "nofollow", "nonblock")
    try:
        # The last component must not be a link: it would lead out of the export.
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError as error:
        raise LunMissing(
            f"there is no {path}; nothing was plugged: see whether the export holds this file"
        ) from error
    except OSError as error:
        raise ConnectFailed(
            f"{path}: {error.strerror}; nothing was plugged: see whether this host may read it"
        ) from error
    try:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode):
            raise Invalid(f"{path} is no plain file, so it is not attached")
        size_bytes = found.st_size
        if image_format == "qcow2":
            size_bytes = _qcow2_size(path, os.pread(descriptor, 512, 0))
        read_only = bool(os.fstatvfs(descriptor).f_flag & os.ST_RDONLY)
    finally:
        os.close(descriptor)
    return Image(size_bytes, read_only)


def _qcow2_size(path: str, header: bytes) -> int:
    if len(header) < _FEATURES_OFFSET or not header.startswith(_QCOW2_MAGIC):
        raise Invalid(f"{path} is no qcow2 image, and connection_info says format qcow2")
    _, version, backing_offset, _, _, size_bytes = _QCOW2_HEADER.unpack_from(header)
    if backing_offset:
        raise Invalid(
            f"{path} has a backing file: it could show the guest any file of this host; flatten "
            "the volume on the storage side"
        )
    if version >= 3 and len(header) >= _FEATURES_OFFSET + _FEATURES.size:
        (features,) = _FEATURES.unpack_from(header, _FEATURES_OFFSET)
        if features & _EXTERNAL_DATA_FILE:
            raise Invalid(
                f"{path} keeps its data in another file: it could show the guest any file of "
                "this host; convert the volume on the storage side"
            )
    return int(size_bytes)
