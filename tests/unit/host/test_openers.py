"""Who has a device open: a QEMU that libvirt may know nothing of."""

from pathlib import Path

import pytest

from agent.errors import ConnectFailed
from agent.host.openers import LOOKS, refuse_open
from tests.unit.host.test_brick_calls import Bench, connected
from tests.unit.host.test_brick_calls import bench as bench  # the fixture


def process(proc: Path, pid: int, name: str, *files: str) -> Path:
    opened = proc / str(pid) / "fd"
    opened.mkdir(parents=True)
    (opened.parent / "comm").write_text(f"{name}\n")
    for number, file in enumerate(files):
        (opened / str(number)).symlink_to(file)
    return opened


class Pauses:
    """``then`` happens in the first one."""

    def __init__(self, then: Path | None = None) -> None:
        self.number, self._then = 0, then

    def __call__(self, seconds: float) -> None:
        self.number += 1
        if self._then is not None:
            self._then.unlink(missing_ok=True)


@pytest.mark.parametrize("file", ["/dev/sdb", "/dev/sdb (deleted)"])
def test_what_a_qemu_has_open_stays(tmp_path: Path, file: str) -> None:
    process(tmp_path, 12, "qemu-system-x86", "/dev/null", file)
    with pytest.raises(ConnectFailed, match="process 12"):
        refuse_open({"/dev/sdb"}, Pauses(), tmp_path)


def test_also_where_it_has_a_path_of_it_open(tmp_path: Path) -> None:
    """A map was made over the disk that the guest had already."""
    process(tmp_path, 12, "qemu-system-x86", "/dev/sdb")
    with pytest.raises(ConnectFailed, match="dm-3, /dev/sdb is open in QEMU"):
        refuse_open({"/dev/dm-3", "/dev/sdb"}, Pauses(), tmp_path)


def test_it_may_be_about_to_close_it(tmp_path: Path) -> None:
    opened = process(tmp_path, 12, "qemu-system-x86", "/dev/sdb")
    pauses = Pauses(opened / "0")
    refuse_open({"/dev/sdb"}, pauses, tmp_path)
    assert pauses.number == 1 < LOOKS


def test_others_may_look_at_it(tmp_path: Path) -> None:
    """multipathd has every path open, for ever."""
    process(tmp_path, 12, "multipathd", "/dev/sdb")
    process(tmp_path, 13, "qemu-system-x86", "/dev/sdbc", "socket:[4711]")
    (tmp_path / "14").mkdir()
    refuse_open({"/dev/sdb"}, Pauses(), tmp_path)


def test_it_is_looked_again_when_os_bricks_lock_has_been_waited_for(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A guest that comes opens its disk meanwhile."""
    asked, device = connected(bench)
    looks: list[object] = []

    def is_open_at_last(nodes: object, _pause: object) -> None:
        looks.append(nodes)
        if len(looks) == 2:
            raise ConnectFailed("it is open in QEMU")

    monkeypatch.setattr("agent.host.brick_leaving.refuse_open", is_open_at_last)
    with pytest.raises(ConnectFailed, match="it is open in QEMU"):
        bench.connectors().disconnect(asked, device)
    assert [call[0] for call in bench.brick.calls] == ["factory"]
