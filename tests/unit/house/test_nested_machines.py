"""tools/nested runs as root, and finds machines by names below /tmp, where anybody makes names."""

import os
import subprocess
import tempfile
from pathlib import Path

import pytest

from tests.lab.patience import LabError
from tests.nested.outside.runs import place_of
from tests.unit.house.source import ROOT

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="it would ask sudo")

NOBODY = 65534


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    directory = tmp_path / "attachment-hypervisor-one"
    directory.mkdir(mode=0o700)
    enter = directory / "enter"
    enter.write_text('#!/bin/sh\necho "entered: $@"\n')
    enter.chmod(0o755)
    return directory


def shell(machine: Path) -> subprocess.CompletedProcess[str]:
    command = [str(ROOT / "tools" / "nested"), "--shell", "one", "attachctl", "list"]
    env = {**os.environ, "TMPDIR": str(machine.parent)}
    return subprocess.run(command, env=env, capture_output=True, text=True, check=False)


def test_one_of_ours_is_entered(machine: Path) -> None:
    assert shell(machine).stdout == "entered: attachctl list\n"
    assert place_of("one") == machine


@pytest.mark.parametrize("case", ["another's", "for all", "a link"])
def test_what_is_not_is_left_alone(machine: Path, case: str) -> None:
    if case == "another's":
        os.chown(machine, NOBODY, NOBODY)
    elif case == "for all":
        machine.chmod(0o777)
    else:
        machine.rename(machine.with_name("elsewhere"))
        machine.symlink_to("elsewhere")
    ran = shell(machine)
    assert (ran.returncode, ran.stdout) == (1, "")
    assert "nothing was run" in ran.stderr
    with pytest.raises(LabError, match="choose another name"):
        place_of("one")


def test_where_there_is_none_it_says_so(machine: Path) -> None:
    machine.rename(machine.with_name("elsewhere"))
    assert "--keep makes one" in shell(machine).stderr
    assert place_of("one") == machine
