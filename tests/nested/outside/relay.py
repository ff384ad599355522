"""Tests of this directory run in the nested hypervisor; here each is reported as if it ran here.

The first one that is due starts the machine, puts the project into it as a user would install it,
and runs all that were selected there, in one pytest; its reports come over ssh, line by line.
Tests marked ``outside`` run here, and are given the machine.
"""

import json
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.lab.patience import LabError
from tests.nested.outside.hypervisor_image import REPOSITORY, hypervisor_image, run
from tests.nested.outside.machine import Machine, machine, quoted

MARK = "\x1e"
"""Begins a line that is a report."""

PLACE = "/srv/tests"
LOGS = {
    "agent.log": "journalctl --no-pager -o short-precise -u 'attachment-agent*'",
    "system.log": "journalctl --no-pager -o short-precise",
    "kernel.log": "dmesg",
    "state.txt": "attachctl operations --all; attachctl list; attachctl audit; "
    "iscsiadm -m session -P 3; multipath -ll; nvme list-subsys; lsblk; mount",
}


class Relay:
    """pytest's plugin on the outside."""

    def __init__(self, config: pytest.Config) -> None:
        self._config = config
        self._capture: Any = config.pluginmanager.getplugin("capturemanager")
        self._stack = ExitStack()
        self._machine: Machine | None = None
        self._selected: list[str] = []
        self._reports: dict[str, list[pytest.TestReport]] = defaultdict(list)
        self._stream: Iterator[bytes] | None = None

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        self._selected = [item.nodeid for item in session.items if self._is_relayed(item)]

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> bool | None:
        if not self._is_relayed(item):
            return None
        item.ihook.pytest_runtest_logstart(nodeid=item.nodeid, location=item.location)
        for report in self._reports_of(item):
            item.ihook.pytest_runtest_logreport(report=report)
        item.ihook.pytest_runtest_logfinish(nodeid=item.nodeid, location=item.location)
        return True

    def pytest_sessionfinish(self) -> None:
        if not self._config.getoption("--keep"):
            self._stack.close()

    def machine(self) -> Machine:
        """The one of this session, with the project in it."""
        if self._machine is None:
            found = self._stack.enter_context(machine(hypervisor_image(self.tell), self.tell))
            if self._config.getoption("--keep"):
                self.tell(f"it stays: {quoted(found.ssh_argv())}")
            begun = time.monotonic()
            install(found)
            self.tell(f"the agent is installed and runs ({time.monotonic() - begun:.0f} s)")
            self._machine = found
        return self._machine

    def tell(self, what: str) -> None:
        with self._capture.global_and_fixture_disabled():
            print(f"\nnested: {what}", flush=True)

    def _is_relayed(self, item: pytest.Item) -> bool:
        is_nested = Path(__file__).parents[1] in item.path.parents
        return is_nested and item.get_closest_marker("outside") is None

    def _reports_of(self, item: pytest.Item) -> list[pytest.TestReport]:
        if self._stream is None:
            self._stream = self._run_inside()
        while not any(report.when == "teardown" for report in self._reports[item.nodeid]):
            try:
                line = next(self._stream, None)
            except LabError as error:
                pytest.exit(f"the nested hypervisor does not work: {error}", returncode=3)
            if line is None:
                self._reports[item.nodeid].append(_lost(item))
                break
            self._take(line.decode(errors="replace"))
        return self._reports[item.nodeid]

    def _take(self, line: str) -> None:
        if not line.startswith(MARK):
            if line.strip():
                self.tell(line.rstrip())
            return
        report = self._config.hook.pytest_report_from_serializable(
            config=self._config, data=json.loads(line.removeprefix(MARK))
        )
        self._reports[report.nodeid].append(report)

    def _run_inside(self) -> Iterator[bytes]:
        found = self.machine()
        chosen = {name: self._config.getoption(name) for name in ("--rounds", "--seed")}
        options = [f"{name}={value}" for name, value in chosen.items() if value is not None]
        options += ["--storm"] if self._config.getoption("--storm") else []
        tests = quoted([*options, *self._selected])
        inside = found.popen(
            f"cd {PLACE} && ATTACHMENT_AGENT_NESTED=1 PYTHONUNBUFFERED=1 /opt/tests/bin/python "
            f"-m pytest -p tests.nested.inside.reporting -p no:terminal -o addopts= {tests}"
        )
        self._stack.callback(inside.kill)
        assert inside.stdout is not None
        yield from inside.stdout
        inside.wait()
        self._fetch_logs(found)

    def _fetch_logs(self, found: Machine) -> None:
        place = REPOSITORY / "tests" / "nested" / "logs"
        place.mkdir(exist_ok=True)
        for name, command in LOGS.items():
            found.get(f"PATH=$PATH:/opt/attachment-agent/bin; ({command}) 2>&1", place / name)
        self.tell(f"its logs are in {place.relative_to(REPOSITORY)}")


def install(found: Machine) -> None:
    """The project as its user would: a wheel into a virtual environment, files of etc/, a unit."""
    wheels = found.console.parent / "wheels"
    pip = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps"]
    run(*pip, "-w", str(wheels), str(REPOSITORY))
    [wheel] = wheels.iterdir()
    found.put([wheel], "/srv/project")
    found.put([REPOSITORY / "etc"], "/srv/project")
    found.put([REPOSITORY / name for name in ("tests", "pyproject.toml")], PLACE)
    found.ssh(f"WHEEL=/srv/project/{wheel.name} bash {PLACE}/tests/nested/inside/install.sh")


def _lost(item: pytest.Item) -> pytest.TestReport:
    return pytest.TestReport(
        item.nodeid,
        item.location,
        {},
        "failed",
        "the pytest in the hypervisor ended without a report of this test: see its logs",
        "call",
    )


Tell = Callable[[str], None]
