"""Where exports are mounted: QEMU, another user, must get there."""

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.host.mounts import Mounts


@pytest.fixture
def umask() -> Iterator[None]:
    """As the service has it."""
    before = os.umask(0o077)
    yield
    os.umask(before)


def test_everybody_gets_through_its_base(tmp_path: Path, umask: None) -> None:
    base = tmp_path / "mounts"
    Mounts(str(base), None).make_base()
    assert stat.S_IMODE(base.stat().st_mode) == 0o711


def test_a_base_that_is_there_is_the_operators(tmp_path: Path) -> None:
    tmp_path.chmod(0o750)
    Mounts(str(tmp_path), None).make_base()
    assert stat.S_IMODE(tmp_path.stat().st_mode) == 0o750


def test_what_no_other_host_can_have(tmp_path: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to("/proc/self/status")
    mounts = Mounts("/nowhere", None)
    assert mounts.is_only_here(str(tmp_path))
    for not_known in (link, Path("/proc/self/status"), Path("/nowhere/at-all")):
        assert not mounts.is_only_here(str(not_known))


def test_what_is_mounted_where_the_name_is_no_text(tmp_path: Path) -> None:
    """Names are bytes, and somebody has mounted a stick from a machine that spoke Latin-1."""
    table = tmp_path / "table"
    mounts = Mounts("/mnt", None, table=table)
    ours, theirs = "nas:/volumes", os.fsdecode(b"nas:/gr\xfc\xdfe")
    rows = [
        (b"/dev/sdz1", b"/media/gr\xfc\xdfe\x0c"),
        *((os.fsencode(one), os.fsencode(mounts.directory_of(one))) for one in (ours, theirs)),
    ]
    table.write_bytes(b"".join(b"%s %s nfs4 rw 0 0\n" % row for row in rows))
    assert mounts.is_mounted(mounts.directory_of(ours))
    assert mounts.is_mounted(os.fsdecode(rows[0][1]))
    assert not mounts.is_mounted("/media")
