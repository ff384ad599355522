"""The project into the hypervisor, as its user would: a wheel, files of ``etc``, a unit."""

import hashlib
import os
import shutil
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path

from tests.nested.outside.hypervisor_image import REPOSITORY, Tell, run, stage
from tests.nested.outside.machine import BOOT_SECONDS, Machine

PROJECT = "/srv/project"
TESTS = "/srv/tests"


def install(found: Machine, tell: Tell) -> None:
    """As the checkout is now; a machine that was kept and has this agent gets the tests only."""
    found.ssh(f"rm -rf {TESTS}")
    found.put([REPOSITORY / name for name in ("tests", "pyproject.toml")], TESTS)
    with tempfile.TemporaryDirectory() as scratch:
        source = Path(scratch) / "source"
        _copy_source(source)
        digest = _digest(source)
        if found.ssh(f"cat {PROJECT}/digest 2> /dev/null || true") == digest:
            return
        with stage(tell, "the agent is installed and runs"):
            wheel = _build(source, Path(scratch))
            found.ssh(f"rm -rf {PROJECT}")
            found.put([wheel, source / "etc"], PROJECT)
            script = f"{TESTS}/tests/nested/inside/install.sh"
            found.ssh(f"WHEEL={PROJECT}/{wheel.name} bash {script}", seconds=BOOT_SECONDS)
            found.ssh(f"printf %s {digest} > {PROJECT}/digest")


def _copy_source(place: Path) -> None:
    """setuptools builds in the tree: several runs would build over each other there."""
    place.mkdir()
    for path in REPOSITORY.iterdir():
        if path.is_file() and not path.name.startswith("."):
            shutil.copy(path, place)
    for name in ("agent", "etc"):
        shutil.copytree(
            REPOSITORY / name, place / name, ignore=shutil.ignore_patterns("__pycache__")
        )


def _digest(source: Path) -> str:
    files = sorted(path for path in source.rglob("*") if path.is_file())
    parts = [(str(path.relative_to(source)), path.read_bytes()) for path in files]
    return hashlib.sha256(repr(parts).encode()).hexdigest()


def _build(source: Path, scratch: Path) -> Path:
    """pbr asks git for the version, and here is no git: it is told what this checkout is."""
    told = f"PBR_VERSION={os.environ.get('PBR_VERSION') or version('libvirt-attachment-agent')}"
    pip = (sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps")
    run("env", told, *pip, "-w", str(scratch / "wheels"), str(source))
    [wheel] = (scratch / "wheels").iterdir()
    return wheel
