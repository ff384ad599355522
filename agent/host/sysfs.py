"""Files of sysfs: small, one fact in each, and gone whenever the kernel likes."""

import os
from mmap import PAGESIZE
from pathlib import Path


def text(facts: Path, attribute: str) -> str:
    return content(facts, attribute).decode("utf-8", "replace").strip()


def content(facts: Path, attribute: str) -> bytes:
    """sysfs gives an attribute in one page. Plain calls: a file object costs three times that."""
    try:
        descriptor = os.open(f"{facts}/{attribute}", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:  # an attribute that this kind of device does not have
        return b""
    try:
        return os.read(descriptor, PAGESIZE)
    except OSError:  # one that says nothing now
        return b""
    finally:
        os.close(descriptor)


def entries(directory: Path) -> list[Path]:
    try:
        return sorted(directory.iterdir())
    except OSError:
        return []
