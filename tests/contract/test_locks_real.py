"""The contract of ports.Locks on files, and what only several processes can show."""

import json
import os
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import pytest

from agent.errors import Unavailable
from agent.host.locks import FileLocks
from agent.ports import Locks
from tests.contract.locks import ENOUGH_SECONDS, ContendedLocksContract, Wish, taken
from tests.lab.patience import wait_until

ROOT = Path(__file__).parents[2]

LONG_IQN = "iqn.2026-01.org.example:" + "x" * 220


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path / "locks"


def make_locks(directory: Path, timeout_seconds: float = ENOUGH_SECONDS) -> FileLocks:
    return FileLocks(directory, timeout_seconds=timeout_seconds)


class TestOnFiles(ContendedLocksContract):
    @pytest.fixture
    def locks(self, directory: Path) -> Locks:
        return make_locks(directory)


class TestQueue:
    def test_first_come_first_served(self, directory: Path) -> None:
        locks = make_locks(directory)
        served: list[int] = []
        threads = []
        with taken(lambda: locks.volume("vol-1")):
            for number in range(8):
                threads.append(_asking(locks, number, served))
        for thread in threads:
            thread.join(ENOUGH_SECONDS)
        assert served == list(range(8))

    def test_who_gives_up_is_told_who_holds_it(self, directory: Path) -> None:
        locks = FileLocks(directory, timeout_seconds=0.2, who=lambda: "attach 4711")
        with locks.volume("vol-1"):
            with pytest.raises(Unavailable) as caught, locks.volume("vol-1"):
                pass
            assert f"held by attach 4711 (pid {os.getpid()})" in caught.value.detail
            assert "nothing was touched" in caught.value.detail
            (lock,) = locks.held()
            assert lock["waiters"] == []
        with locks.volume("vol-1"):
            pass

    def test_who_waits_keeps_his_place_while_the_lock_changes_hands_in_time(
        self, directory: Path
    ) -> None:
        """Eight holders of a sixth of the time that each may take: nobody gives up behind them."""
        locks = make_locks(directory, timeout_seconds=3)
        served: list[int] = []
        with taken(lambda: locks.volume("vol-1")):
            threads = [_asking(locks, number, served, holds_seconds=0.5) for number in range(8)]
        for thread in threads:
            thread.join(ENOUGH_SECONDS)
        assert served == list(range(8))

    def test_an_overdue_holder_is_marked_and_nobody_waits_for_it_again(
        self, directory: Path
    ) -> None:
        locks = make_locks(directory, timeout_seconds=0.2)
        with taken(lambda: locks.volume("vol-1")):
            who = r"held by the other \(pid \d+\) since 20.*Z"
            with pytest.raises(Unavailable, match=who), locks.volume("vol-1"):
                pass
            # It has held the lock for less long than it has been the first.
            wait_until(
                lambda: [lock["overdue"] for lock in locks.held()] == [True],
                "it is marked",
                seconds=10,
            )

    def test_the_patience_is_for_all_locks_of_a_call(self, directory: Path) -> None:
        """Those taken before the one that is not given are let go."""
        locks = FileLocks(directory, timeout_seconds=0.2)
        with taken(lambda: locks.targets(["c"])):
            with pytest.raises(Unavailable, match="target:c"), locks.targets(["a", "b", "c"]):
                pass
            assert [lock["name"] for lock in locks.held()] == ["target:c"]


class TestWaits:
    """``on_wait`` is told of them."""

    def test_also_where_nobody_has_the_lock(self, directory: Path) -> None:
        told = list[tuple[str, float]]()
        locks = FileLocks(
            directory, timeout_seconds=ENOUGH_SECONDS, on_wait=lambda *wait: told.append(wait)
        )
        with locks.volume("vol-1"), locks.targets(["iqn:a", "iqn:b"]):
            assert [kind for kind, _ in told] == ["volume", "target", "target"]

    def test_also_of_who_gives_up(self, directory: Path) -> None:
        told = list[tuple[str, float]]()
        locks = FileLocks(directory, timeout_seconds=0.2, on_wait=lambda *wait: told.append(wait))
        with locks.volume("vol-1"), suppress(Unavailable), locks.volume("vol-1"):
            pass
        assert [kind for kind, _ in told] == ["volume", "volume"]
        assert told[1][1] > told[0][1]


class TestProcesses:
    def test_they_exclude_each_other(self, directory: Path, tmp_path: Path) -> None:
        """Read, add one, write: under the lock no addition is lost."""
        total = tmp_path / "total"
        total.write_text("0")
        program = (
            "import sys\n"
            "from pathlib import Path\n"
            "from agent.host.locks import FileLocks\n"
            "locks = FileLocks(Path(sys.argv[1]), timeout_seconds=60)\n"
            "total = Path(sys.argv[2])\n"
            "for _ in range(60):\n"
            "    with locks.volume('vol-1'):\n"
            "        total.write_text(str(int(total.read_text()) + 1))\n"
        )
        argv = [sys.executable, "-c", program, str(directory), str(total)]
        adders = [subprocess.Popen(argv, cwd=ROOT) for _ in range(4)]
        assert [adder.wait(ENOUGH_SECONDS) for adder in adders] == [0] * 4
        assert total.read_text() == "240"
        assert list(directory.iterdir()) == []

    def test_one_of_two_waits_for_the_other(self, directory: Path) -> None:
        locks = make_locks(directory)
        with ExitStack() as other:
            pid = other.enter_context(_holder(directory))
            wish = Wish(lambda: locks.volume("vol-1"))
            TestOnFiles().wait_for_waiter(locks)
            assert not wish.granted.is_set()
            (lock,) = locks.held()
            assert lock["holder"] == f"MainThread (pid {pid})"
            assert [waiter["who"] for waiter in lock["waiters"]] == ["the wish"]
        assert wish.granted.wait(ENOUGH_SECONDS)
        wish.end()

    def test_giving_up_leaves_it_to_the_other(self, directory: Path) -> None:
        hasty = make_locks(directory, timeout_seconds=0.2)
        with _holder(directory) as pid:
            for _ in range(2):
                with pytest.raises(Unavailable, match=f"pid {pid}"), hasty.volume("vol-1"):
                    pass
        with hasty.volume("vol-1"):
            pass

    def test_another_process_that_is_overdue_is_not_waited_for(self, directory: Path) -> None:
        """It says since when it holds: the second who asks does not wait as long again."""
        hasty = make_locks(directory, timeout_seconds=0.2)
        with _holder(directory) as pid:
            with pytest.raises(Unavailable, match=f"pid {pid}"), hasty.volume("vol-1"):
                pass
            patient = make_locks(directory, timeout_seconds=ENOUGH_SECONDS)
            (file,) = directory.iterdir()
            line = json.loads(file.read_text())
            file.write_text(json.dumps({**line, "since": "2026-01-01T00:00:00.000Z"}))
            with pytest.raises(Unavailable, match="since 2026-01-01"), patient.volume("vol-1"):
                pass

    def test_a_kill_lets_go(self, directory: Path) -> None:
        locks = make_locks(directory)
        with _holder(directory, ends_by="kill"):
            assert len(list(directory.iterdir())) == 1
        assert len(list(directory.iterdir())) == 1, "the file of a killed holder stays"
        with locks.volume("vol-1"):
            pass
        assert list(directory.iterdir()) == []

    def test_nothing_of_a_longer_line_of_a_killed_holder_is_left(self, directory: Path) -> None:
        with _holder(directory, ends_by="kill"):
            (file,) = directory.iterdir()
        file.write_text(f"{file.read_text().strip()}{' ' * 200}and more\n")
        with make_locks(directory).volume("vol-1"):
            assert json.loads(file.read_text())["pid"] == os.getpid()

    def test_a_file_that_changes_hands_in_between_is_not_taken(self, directory: Path) -> None:
        """After it was opened, before it is locked: its holder removes it and lets go, and a
        third one makes and locks a new file of that name."""
        program = (
            "import fcntl, os, sys\n"
            "from pathlib import Path\n"
            "from agent.errors import Unavailable\n"
            "from agent.host.locks import FileLocks\n"
            "locks = FileLocks(Path(sys.argv[1]), timeout_seconds=0.2)\n"
            "thirds = []\n"
            "def interfere(event, _):\n"
            "    if event == 'fcntl.flock' and not thirds:\n"
            "        (file,) = Path(sys.argv[1]).iterdir()\n"
            "        file.unlink()\n"
            "        thirds.append(file.open('x'))\n"
            "        fcntl.flock(thirds[0], fcntl.LOCK_EX)\n"
            "sys.addaudithook(interfere)\n"
            "try:\n"
            "    with locks.volume('vol-1'):\n"
            "        sys.exit('two have it')\n"
            "except Unavailable:\n"
            "    assert thirds\n"
        )
        subprocess.run([sys.executable, "-c", program, str(directory)], check=True, cwd=ROOT)

    def test_a_child_of_the_killed_one_does_not_keep_it(self, directory: Path) -> None:
        """A storage tool that outlives the agent: flock goes with the descriptor, and a child
        that had inherited it would hold the lock."""
        with _holder(directory, ends_by="kill", child="sleep 60") as pid:
            (child,) = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        try:
            assert Path(f"/proc/{child}").exists()
            with make_locks(directory, timeout_seconds=5).volume("vol-1"):
                pass
        finally:
            os.kill(int(child), 9)


class TestFiles:
    def test_one_line_about_the_holder_while_it_is_held(self, directory: Path) -> None:
        locks = FileLocks(directory, timeout_seconds=1, who=lambda: "attach 4711")
        with locks.targets([LONG_IQN]):
            (file,) = directory.iterdir()
            line = json.loads(file.read_text())
            assert (line["name"], line["pid"]) == (f"target:{LONG_IQN}", os.getpid())
            assert line["who"] == "attach 4711"
            assert stat.S_IMODE(file.stat().st_mode) == 0o600
        assert stat.S_IMODE(directory.stat().st_mode) == 0o700
        assert list(directory.iterdir()) == []

    def test_who_reads_the_line_does_not_open_the_lock(self, directory: Path) -> None:
        """With a POSIX lock, closing a descriptor of the file would."""
        with make_locks(directory).volume("vol-1"):
            for file in directory.iterdir():
                file.read_text()
            program = (
                "import sys\n"
                "from pathlib import Path\n"
                "from agent.host.locks import FileLocks\n"
                "with FileLocks(Path(sys.argv[1]), timeout_seconds=0.1).volume('vol-1'):\n"
                "    pass\n"
            )
            argv = [sys.executable, "-c", program, str(directory)]
            other = subprocess.run(argv, cwd=ROOT, stderr=subprocess.PIPE, text=True)
        assert "Unavailable" in other.stderr

    def test_no_descriptor_is_left_open(self, directory: Path) -> None:
        locks = make_locks(directory, timeout_seconds=0.05)
        with locks.volume("vol-1"):
            pass
        with _holder(directory) as _, pytest.raises(Unavailable), locks.volume("vol-1"):
            pass
        assert [name for name in _open_files() if name.startswith(f"{directory}")] == []

    @pytest.mark.parametrize(
        ("one", "other"),
        [("a/b", "a_b"), ("a:b", "a b"), (f"{LONG_IQN}1", f"{LONG_IQN}2")],
        ids=["slash", "colon", "long"],
    )
    def test_names_that_look_alike_are_two(self, directory: Path, one: str, other: str) -> None:
        locks = make_locks(directory)
        with taken(lambda: locks.targets([one])), locks.targets([other]):
            assert len(list(directory.iterdir())) == 2

    def test_a_file_that_cannot_be_made_is_unavailable(self, directory: Path) -> None:
        locks = make_locks(directory)
        directory.rmdir()
        with pytest.raises(Unavailable, match="nothing was touched"), locks.volume("vol-1"):
            pass
        assert locks.held() == []
        directory.mkdir()
        with locks.volume("vol-1"):
            pass

    def test_a_file_that_somebody_removed_does_not_matter(self, directory: Path) -> None:
        locks = make_locks(directory)
        with locks.volume("vol-1"):
            for file in directory.iterdir():
                file.unlink()
        with locks.volume("vol-1"):
            pass


def _open_files() -> Iterator[str]:
    """Of this process: other tests of it may open and close theirs at any time."""
    for descriptor in Path("/proc/self/fd").iterdir():
        with suppress(FileNotFoundError):
            yield os.readlink(descriptor)


def _asking(
    locks: FileLocks, number: int, served: list[int], *, holds_seconds: float = 0.0
) -> threading.Thread:
    """Returns once its wish is in the queue."""

    def ask() -> None:
        with locks.volume("vol-1"):
            served.append(number)
            threading.Event().wait(holds_seconds)

    thread = threading.Thread(target=ask)
    thread.start()
    pause = threading.Event()
    for _ in range(ENOUGH_SECONDS * 100):
        if len(locks.held()[0]["waiters"]) > number:
            return thread
        pause.wait(0.01)
    raise AssertionError("it does not wait")


@contextmanager
def _holder(directory: Path, *, ends_by: str = "letting go", child: str = "true") -> Iterator[int]:
    """Another process that holds vol-1 meanwhile; gives its pid."""
    program = (
        "import subprocess, sys\n"
        "from pathlib import Path\n"
        "from agent.host.locks import FileLocks\n"
        "with FileLocks(Path(sys.argv[1]), timeout_seconds=60).volume('vol-1'):\n"
        "    subprocess.Popen(sys.argv[2].split(), close_fds=False, stdout=subprocess.DEVNULL)\n"
        "    print('held', flush=True)\n"
        "    sys.stdin.read()\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", program, str(directory), child],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=ROOT,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        assert process.stdout.readline() == b"held\n"
        yield process.pid
    finally:
        if ends_by == "kill":
            process.kill()
        process.stdin.close()
        process.wait(ENOUGH_SECONDS)
        process.stdout.close()
