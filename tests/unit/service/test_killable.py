"""Storage calls in a child: answers, refusals, defects, and calls that never end."""

import os
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.model.attachment import Attachment
from agent.model.device import Device
from agent.model.outcome import Problem
from agent.service.killable import START_SECONDS, Answer, KillableCalls
from tests.lab.patience import wait_until
from tests.world.story import VOLUMES, attachment

ENOUGH_SECONDS = 60

CHILD = """
import os, subprocess, sys
from contextlib import nullcontext
from agent.errors import LunMissing
from agent.model.device import Device
from agent.service.killable import answers_on_stdout, serve

answers = answers_on_stdout()
print("libraries say what they like")

class Locks:
    def volume(self, volume_id): return nullcontext()
    def targets(self, names): return nullcontext()

class Storage:
    def connect(self, attachment):
        lun = attachment.connection.lun
        print("and when")
        if lun == 2:
            raise LunMissing("target shows no LUN 2")
        if lun == 3:
            raise KeyError("geheim")
        if lun == 4:
            tool = subprocess.Popen(["sleep", "600"])
            with open(sys.argv[1] + ".new", "w") as file:
                print(os.getpid(), tool.pid, file=file)
            os.rename(sys.argv[1] + ".new", sys.argv[1])
            tool.wait()
        if lun == 5:
            os._exit(9)
        return Device(path=f"/dev/{attachment.connection.data.auth_password.get_secret_value()}",
                      identity={"wwn": "1"}, size_bytes=1)

serve(Locks(), Storage(), answers)
"""
"""What a volume does is said by its LUN."""


@pytest.fixture
def pids(tmp_path: Path) -> Path:
    """Where a call that hangs tells of its processes."""
    return tmp_path / "pids"


@pytest.fixture
def calls(pids: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[KillableCalls]:
    monkeypatch.setattr("agent.service.killable.DEATH_SECONDS", ENOUGH_SECONDS)
    calls = KillableCalls([sys.executable, "-c", CHILD, str(pids)])
    yield calls
    calls.kill()


def begin(calls: KillableCalls, number: int) -> str:
    calls.begin(Attachment.model_validate(attachment(number, volume=number)), ENOUGH_SECONDS)
    return VOLUMES[number - 1]


def ended(calls: KillableCalls, *volumes: str) -> dict[str, Answer]:
    found: dict[str, Answer] = {}
    while not set(volumes) <= found.keys():
        came = calls.ended(ENOUGH_SECONDS)
        assert came, f"{set(volumes) - found.keys()} did not end"
        found.update(came)
    return found


def test_a_child_that_does_not_get_ready_is_waited_for_so_long_and_no_longer(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    calls = KillableCalls([sys.executable, "-c", "import time; time.sleep(600)"])
    monkeypatch.setattr("agent.service.killable.DEATH_SECONDS", ENOUGH_SECONDS)
    before = time.monotonic()
    calls.begin(Attachment.model_validate(attachment(1)), 0.1)
    assert time.monotonic() - before < START_SECONDS / 2
    assert calls.kill()


def test_answers_come_as_they_end(calls: KillableCalls) -> None:
    good, refused, defect = (begin(calls, number) for number in (1, 2, 3))
    found = ended(calls, good, refused, defect)
    device, refusal, problem = found[good], found[refused], found[defect]
    assert isinstance(device, Device)
    assert device.path == "/dev/geheim", "the credentials did not reach the storage call"
    assert refusal == Problem(code="lun-missing", retriable=True, detail="target shows no LUN 2")
    assert isinstance(problem, Problem)
    assert problem.code == "internal"
    assert "geheim" not in problem.detail


def test_what_hangs_is_killed_with_its_tools_and_others_can_be_begun(
    calls: KillableCalls, pids: Path
) -> None:
    begin(calls, 4)
    wait_until(pids.exists, "the call hangs", seconds=ENOUGH_SECONDS)
    assert calls.ended(0) == {}
    assert calls.kill()
    child, tool = pids.read_text().split()
    wait_until(lambda: not (_lives(child) or _lives(tool)), "both end", seconds=ENOUGH_SECONDS)
    good = begin(calls, 1)
    assert isinstance(ended(calls, good)[good], Device)


def test_a_child_that_dies_takes_nobody_along(calls: KillableCalls) -> None:
    dying = begin(calls, 5)
    problem = ended(calls, dying)[dying]
    assert isinstance(problem, Problem)
    assert "ended by itself (9)" in problem.detail
    good = begin(calls, 1)
    assert isinstance(ended(calls, good)[good], Device)


def test_nor_what_was_begun_after_its_death(calls: KillableCalls, pids: Path) -> None:
    """What was written to it stays in the pipe's buffer, and is written once more at its close."""
    hanging = begin(calls, 4)
    wait_until(pids.exists, "the call hangs", seconds=ENOUGH_SECONDS)
    child, tool = map(int, pids.read_text().split())
    for pid in (child, tool):
        os.kill(pid, signal.SIGKILL)
    wait_until(lambda: not _lives(str(child)), "it has died", seconds=ENOUGH_SECONDS)
    late = begin(calls, 1)
    problems = ended(calls, hanging, late)
    assert {type(problem) for problem in problems.values()} == {Problem}
    good = begin(calls, 1)
    assert isinstance(ended(calls, good)[good], Device)


def _lives(pid: str) -> bool:
    """A zombie that nobody reaps yet does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_a_child_ends_when_its_parent_has_gone(calls: KillableCalls, pids: Path) -> None:
    """However busy it is: nobody is there to kill it any more."""
    read, write = os.pipe()
    parent = os.fork()
    if parent == 0:
        os.close(read)
        try:
            begin(calls, 4)
            wait_until(pids.exists, "the call hangs", seconds=ENOUGH_SECONDS)
        finally:
            os._exit(0)
    os.close(write)
    os.waitpid(parent, 0)
    os.read(read, 1)
    os.close(read)
    child = pids.read_text().split()[0]
    wait_until(lambda: not _lives(child), "the child ends", seconds=ENOUGH_SECONDS)
    os.kill(int(pids.read_text().split()[1]), 9)  # its tool is systemd's to end
