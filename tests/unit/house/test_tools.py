"""Linter, formatter and type checker, as part of the tests: one command tells all."""

import subprocess
import sys

import pytest

from tests.unit.house.source import ROOT


@pytest.mark.parametrize(
    "tool",
    [("ruff", "check", "."), ("ruff", "format", "--check", "."), ("mypy",)],
    ids=["ruff check", "ruff format", "mypy"],
)
def test_it_has_nothing_to_say(tool: tuple[str, ...]) -> None:
    said = subprocess.run(
        [sys.executable, "-m", *tool], cwd=ROOT, capture_output=True, text=True, timeout=280
    )
    assert said.returncode == 0, said.stdout + said.stderr
