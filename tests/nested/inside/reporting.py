"""pytest's plugin inside the hypervisor: each report goes out as a line of JSON."""

import json
import os

import pytest

_OUT = os.fdopen(os.dup(1), "w", buffering=1)
"""Before pytest captures it."""


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
