"""pytest's plugin inside the hypervisor: each report goes out as a line of JSON.

A failure brings along what the agent logged meanwhile and where its threads are: of a run that is
cut off nothing else is seen.
"""

import json
import os
import subprocess
from collections.abc import Generator

import pytest

from tests.nested.inside.agent import UNIT

LOG_LINES = 150

_OUT = os.fdopen(os.dup(1), "w", buffering=1)
"""Before pytest captures it."""


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    call: pytest.CallInfo[None],
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if report.failed:
        report.sections.append((f"log of {UNIT}", _log_since(call.start)))
    return report


def _log_since(begun: float) -> str:
    subprocess.run(["systemctl", "kill", "--kill-whom=main", "--signal=USR1", UNIT], check=False)
    subprocess.run(["journalctl", "--sync"], check=False)
    ask = ["journalctl", "--no-pager", "-o", "short-precise", "-u", UNIT, f"--since=@{begun:.0f}"]
    said = subprocess.run(ask, capture_output=True, text=True, check=False).stdout.splitlines()
    return "\n".join([line for line in said if " DEBUG " not in line][-LOG_LINES:])


@pytest.hookimpl(trylast=True)
def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    config = _CONFIG[0]
    data = config.hook.pytest_report_to_serializable(config=config, report=report)
    _OUT.write("\x1e" + json.dumps(data) + "\n")


def pytest_collectreport(report: pytest.CollectReport) -> None:
    if report.failed:
        _OUT.write(f"{report.nodeid}: {report.longreprtext}\n")


_CONFIG: list[pytest.Config] = []


def pytest_configure(config: pytest.Config) -> None:
    _CONFIG.append(config)
