"""Plants known bugs in the core, and prints the table of what caught them (docs/testing.rst).

Each is one replacement in one file. A bug that no test notices is a hole in the tests; one whose
text is not there any more says that tools/mutations.py is old.
"""

import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from tools.mutation import Mutation
from tools.mutations import MUTATIONS

REPOSITORY = Path(__file__).resolve().parent.parent

SWEEPS = ("test_crash_sweep.py", "test_fault_sweep.py", "test_pairs.py")

STORIES = tuple(
    f"tests/unit/{name}" for name in ("saga", "steps", "operations", "admission", "journal")
)

TESTS: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("sweep", tuple(f"tests/unit/saga/{name}" for name in SWEEPS)),
    ("story", STORIES),
    ("whole sweep", (*STORIES, "--rounds", "3")),
)
"""What is asked first, and what if that has noticed nothing."""

TIMEOUT_SECONDS = 900.0


def main(words: Sequence[str]) -> int:
    chosen = [m for m in MUTATIONS if all(word in m.bug for word in words)]
    table = Table("bug", "in", "caught by", "", title="bugs planted in the core")
    missed = 0
    console = Console(markup=False)
    for mutation in chosen:
        started = time.monotonic()
        kind, test = caught_by(mutation)
        missed += test is None
        seconds = f"{time.monotonic() - started:.0f} s"
        table.add_row(mutation.bug, mutation.file, Text(test or "NOBODY"), kind)
        console.print(f"{mutation.bug}: {test or 'NOBODY'} ({seconds})", highlight=False)
    console.print(table)
    return 1 if missed else 0


def caught_by(mutation: Mutation) -> tuple[str, str | None]:
    with tempfile.TemporaryDirectory(prefix="mutate-") as directory:
        tree = Path(directory)
        copy_to(tree)
        plant(mutation, tree)
        for kind, paths in TESTS:
            test = first_failure(tree, paths)
            if test is not None:
                return kind, test
    return "", None


def copy_to(tree: Path) -> None:
    for name in ("agent", "tests"):
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(REPOSITORY / name, tree / name, ignore=ignored)
    shutil.copy(REPOSITORY / "pyproject.toml", tree)


def plant(mutation: Mutation, tree: Path) -> None:
    file = tree / "agent" / mutation.file
    text = file.read_text()
    if text.count(mutation.before) != 1:
        sys.exit(f"{mutation.file} has changed: the text of '{mutation.bug}' is not there once")
    file.write_text(text.replace(mutation.before, mutation.after))


def first_failure(tree: Path, paths: Sequence[str]) -> str | None:
    """The name of a test, or what pytest said where it did not get that far."""
    pytest = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", "--timeout=60"]
    ran = subprocess.run(
        [*pytest, "--seed", "1", *paths],
        cwd=tree,
        capture_output=True,
        text=True,
        timeout=TIMEOUT_SECONDS,
    )
    if ran.returncode == 0:
        return None
    found = re.search(r"^(?:FAILED|ERROR) (tests/.*?)(?: - .*)?$", ran.stdout, re.MULTILINE)
    return found.group(1) if found else ran.stdout[-500:] + ran.stderr[-500:]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
