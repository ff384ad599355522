"""Tests of this directory run in the nested hypervisor; here each is reported as if it ran here.

The first one that is due starts the machine, puts the project into it as a user would install it,
and runs all that were selected there, in one pytest; its reports come over ssh, line by line;
what a test that passes has printed, a figure, is told at once, and so is why another one failed.
Tests marked ``outside`` run here, and are given the machine.
"""

import json
from collections import defaultdict
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from tests.lab.patience import LabError
from tests.nested.outside.hypervisor_image import RELEASES, REPOSITORY
from tests.nested.outside.installing import TESTS, install
from tests.nested.outside.logs import fetch_logs, log_directory
from tests.nested.outside.machine import Machine, quoted
from tests.nested.outside.runs import kept_machine, machine

MARK = "\x1e"
"""Begins a line that is a report."""

CLEAN = "clean"
"""The snapshot that each test outside begins with: the agent runs and has nothing."""

UNIT = "tests"
"""What systemd inside calls the pytest there: stopping it lets a test clear up."""

PYTEST = quoted(
    [
        *("systemd-run", "--quiet", "--pipe", "--wait", "--collect", f"--unit={UNIT}"),
        *("--property=KillSignal=SIGINT", "--property=KillMode=mixed"),
        *("--property=TimeoutStopSec=60", f"--working-directory={TESTS}", "--setenv=HOME=/root"),
        *("--setenv=ATTACHMENT_AGENT_NESTED=1", "--setenv=PYTHONUNBUFFERED=1"),
        *("/opt/tests/bin/python", "-m", "pytest", "-o", "addopts=", "-o", "timeout=1200"),
    ]
)


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
        self._logs: Path | None = None
        self._has_clean = False

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        self._selected = [item.nodeid for item in session.items if self._is_relayed(item)]

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> bool | None:
        if not self._is_relayed(item):
            return None
        item.ihook.pytest_runtest_logstart(nodeid=item.nodeid, location=item.location)
        for report in self._reports_of(item):
            item.ihook.pytest_runtest_logreport(report=report)
            if said := _said(report):
                self.tell(f"{item.name}: {said}")
        item.ihook.pytest_runtest_logfinish(nodeid=item.nodeid, location=item.location)
        return True

    def pytest_sessionfinish(self) -> None:
        with self._stack:
            if self._machine is None or self._logs is None:
                return
            self._end_inside(self._machine)
            fetch_logs(self._machine, self._logs)
            self.tell(f"its logs are in {self._logs.relative_to(REPOSITORY)}")
            if self._keep and self._has_clean:
                self._machine.restore(CLEAN)

    @property
    def _keep(self) -> str | None:
        name: str | None = self._config.getoption("--keep")
        return name

    def machine(self) -> Machine:
        """The one of this session, with the project in it. The session ends if there is none."""
        if self._machine is None:
            try:
                self._logs = self._stack.enter_context(log_directory(self._keep))
                self._machine = self._stack.enter_context(self._chosen_machine())
                install(self._machine, self.tell)
            except LabError as error:
                pytest.exit(f"the nested hypervisor does not work: {error}", returncode=3)
        return self._machine

    def _chosen_machine(self) -> AbstractContextManager[Machine]:
        release = RELEASES[self._config.getoption("--debian")]
        if self._keep:
            return kept_machine(self._keep, release, self.tell)
        return machine(release, self.tell)

    @contextmanager
    def clean_machine(self, test: str) -> Iterator[Machine]:
        """For a test outside: nothing runs inside, and nothing is attached."""
        found = self.machine()
        self._end_inside(found)
        if self._has_clean:
            found.restore(CLEAN)
        else:
            found.save(CLEAN)
            self._has_clean = True
        yield found
        assert self._logs is not None
        fetch_logs(found, self._logs / test)

    def _end_inside(self, found: Machine) -> None:
        """What was interrupted is stopped, and clears up, where the machine goes on."""
        if self._stream is None:
            return
        if all(self._is_over(nodeid) for nodeid in self._selected):
            for line in self._stream:
                self._take(line.decode(errors="replace"))
        elif self._keep:
            with suppress(LabError):
                found.ssh(f"systemctl stop {UNIT} 2> /dev/null || true")

    def tell(self, what: str) -> None:
        with self._capture.global_and_fixture_disabled():
            print(f"\nnested: {what}", flush=True)

    def _is_relayed(self, item: pytest.Item) -> bool:
        return _is_nested(item) and item.get_closest_marker("outside") is None

    def _reports_of(self, item: pytest.Item) -> list[pytest.TestReport]:
        if self._stream is None:
            self._stream = self._run_inside()
        while not self._is_over(item.nodeid):
            line = next(self._stream, None)
            if line is None:
                self._reports[item.nodeid].append(_lost(item))
                break
            self._take(line.decode(errors="replace"))
        return self._reports[item.nodeid]

    def _is_over(self, nodeid: str) -> bool:
        return any(report.when == "teardown" for report in self._reports[nodeid])

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
        names = ("--rounds", "--seed", "--maxfail", "--storm")
        chosen = {name: self._config.getoption(name.strip("-")) for name in names}
        options = [f"{name}={value}" for name, value in chosen.items() if value is not None]
        tests = quoted([*options, *self._selected])
        command = f"{PYTEST} -p tests.nested.inside.reporting -p no:terminal {tests}"
        inside = self.machine().popen(command)
        self._stack.callback(inside.kill)
        assert inside.stdout is not None
        yield from inside.stdout
        inside.wait()


def _is_nested(item: pytest.Item) -> bool:
    return Path(__file__).parents[1] in item.path.parents


def _said(report: pytest.TestReport) -> str:
    """A failure at once: a run that does not come to its end tells of it all the same."""
    if report.failed:
        told = "\n".join(f"--- {name}\n{said}" for name, said in report.sections)
        return f"{report.when} failed after {report.duration:.0f} s: {report.longreprtext}\n{told}"
    return report.capstdout.strip() if report.when == "call" else ""


def _lost(item: pytest.Item) -> pytest.TestReport:
    return pytest.TestReport(
        item.nodeid,
        item.location,
        {},
        "failed",
        "the pytest in the hypervisor ended without a report of this test: see its logs",
        "call",
    )
