"""Linter, formatter and type checker, as part of the tests: one command tells all.

And that the bugs of tools/mutate can still be planted."""

import subprocess
import sys

import pytest

from tests.unit.house.source import ROOT
from tools.mutation import Mutation
from tools.mutations import MUTATIONS


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


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda mutation: mutation.bug)
def test_a_bug_can_still_be_planted(mutation: Mutation) -> None:
    text = (ROOT / "agent" / mutation.file).read_text()
    assert text.count(mutation.before) == 1, "its text has changed: tools/mutations.py is old"
