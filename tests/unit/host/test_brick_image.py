"""A volume that is a file: its size, and the images that would show a guest other files."""

import os
import struct
from pathlib import Path

import pytest

from agent.errors import AgentError
from agent.host.image import look_at_image

GIB = 1 << 30


def qcow2(
    *, version: int = 3, backing_offset: int = 0, size_bytes: int = GIB, features: int = 0
) -> bytes:
    """A header as QEMU writes it (docs/interop/qcow2.txt)."""
    start = struct.pack(">4sIQIIQ", b"QFI\xfb", version, backing_offset, 12, 16, size_bytes)
    return start.ljust(72, b"\0") + struct.pack(">Q", features) + b"\0" * 100


def image(directory: Path, content: bytes) -> str:
    path = directory / "volume-1"
    path.write_bytes(content)
    return str(path)


def refusal(path: str, image_format: str = "qcow2") -> AgentError:
    with pytest.raises(AgentError) as refused:
        look_at_image(path, image_format)  # type: ignore[arg-type]
    return refused.value


def test_a_raw_file_is_as_large_as_it_is(tmp_path: Path) -> None:
    assert look_at_image(image(tmp_path, bytes(8192)), "raw").size_bytes == 8192


@pytest.mark.parametrize("version", [2, 3])
def test_a_qcow2_image_is_as_large_as_the_guest_sees_it(tmp_path: Path, version: int) -> None:
    path = image(tmp_path, qcow2(version=version, size_bytes=5 * GIB))
    assert look_at_image(path, "qcow2").size_bytes == 5 * GIB


@pytest.mark.parametrize(
    ("header", "says"),
    [
        (qcow2(backing_offset=512), "backing file"),
        (qcow2(version=2, backing_offset=512), "backing file"),
        (qcow2(features=1 << 2), "data in another file"),
        (qcow2(features=1 << 2 | 1), "data in another file"),
    ],
)
def test_an_image_that_names_another_file_is_refused(
    tmp_path: Path, header: bytes, says: str
) -> None:
    refused = refusal(image(tmp_path, header))
    assert refused.code == "invalid"
    assert says in refused.detail


@pytest.mark.parametrize("content", [b"", b"QFI\xfb", bytes(512), qcow2()[:71]])
def test_what_is_no_qcow2_image_is_not_taken_for_one(tmp_path: Path, content: bytes) -> None:
    assert "no qcow2 image" in refusal(image(tmp_path, content)).detail


def test_a_raw_file_is_not_probed(tmp_path: Path) -> None:
    """A guest may write a qcow2 header into its raw disk; it stays raw."""
    header = qcow2(backing_offset=512)
    assert look_at_image(image(tmp_path, header), "raw").size_bytes == len(header)


def test_a_link_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(image(tmp_path, bytes(512)))
    assert refusal(str(tmp_path / "link"), "raw").code == "connect-failed"


@pytest.mark.parametrize("make", [os.mkdir, os.mkfifo])
def test_only_plain_files(tmp_path: Path, make: object) -> None:
    path = str(tmp_path / "thing")
    make(path)  # type: ignore[operator]
    assert "no plain file" in refusal(path, "raw").detail


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    refused = refusal(str(tmp_path / "volume-2"), "raw")
    assert refused.code == "lun-missing"
    assert refused.retriable
