"""The edges of attachctl: help, configuration, refusals, and no traceback anywhere."""

import io
import json
import subprocess
import sys
from pathlib import Path

import pytest
from oslo_config import cfg

from agent.bus.client import Refused
from agent.cli.main import run
from agent.cli.trouble import MEANINGS, Exit
from agent.journal.store import Journal
from tests.unit.cli.conftest import PARKED, Attachctl, PlayedAgent

COMMANDS = [
    ("list",),
    ("show",),
    ("operations",),
    ("operations", "wait"),
    ("operations", "cancel"),
    ("operations", "abandon"),
    ("attach",),
    ("detach",),
    ("plan",),
    ("plan", "attach"),
    ("plan", "detach"),
    ("audit",),
    ("locks",),
    ("quarantine",),
    ("quarantine", "release"),
    ("describe",),
    ("connector",),
    ("instance",),
]


@pytest.mark.parametrize("words", [(), *COMMANDS])
def test_every_help_tells_the_exit_codes(
    words: tuple[str, ...], attachctl: Attachctl, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        attachctl(*words, "--help", agent=None)
    assert ended.value.code == 0
    shown = capsys.readouterr().out
    for code, meaning in MEANINGS.items():
        assert f"{code:d}" in shown
        assert meaning in shown


@pytest.mark.parametrize(
    "words",
    [(), ("lst",), ("show",), ("list", "--wat"), ("attach", "--wait", "x"), ("plan",), ("-x",)],
)
def test_a_wrong_command_line_is_a_usage_error(
    words: tuple[str, ...], attachctl: Attachctl, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        attachctl(*words, agent=None)
    assert ended.value.code == Exit.USAGE
    shown = capsys.readouterr()
    assert shown.out == ""
    assert "usage: attachctl" in shown.err
    assert "_seconds" not in shown.err


@pytest.mark.parametrize("words", [("--json", "operations"), ("operations", "--json")])
def test_common_options_stand_before_or_after_the_command(
    words: tuple[str, ...], attachctl: Attachctl, journal: Journal
) -> None:
    assert json.loads(attachctl(*words, agent=PlayedAgent(journal)).out)["operations"]


@pytest.mark.parametrize("words", [("operations", "--all"), ("operations", "--all", "list")])
def test_filters_stand_before_or_after_list(
    words: tuple[str, ...], attachctl: Attachctl, journal: Journal
) -> None:
    assert "undone" in attachctl(*words, agent=PlayedAgent(journal)).out


def test_a_refusal_of_the_agent_is_shown_with_its_code(
    attachctl: Attachctl, journal: Journal
) -> None:
    late = Refused("too-late", True, "detach has reached the guest")
    ran = attachctl("operations", "cancel", PARKED, agent=PlayedAgent(journal, [late]))
    assert (ran.code, ran.out) == (Exit.FAILED, "")
    assert ran.err == "attachctl: too-late: detach has reached the guest\n"
    shown = attachctl("operations", "cancel", PARKED, "--json", agent=PlayedAgent(journal, [late]))
    assert json.loads(shown.out) == {
        "error": {
            "code": "too-late",
            "retriable": True,
            "detail": "detach has reached the guest",
        }
    }


CONFIGURATIONS = {
    "missing": (None, "there is no configuration"),
    "broken": ("[DEFAULT\n", "is wrong"),
    "value": ("[libvirt]\nretry_seconds = soon\n", "is wrong"),
    "binary": ("\udcff\udcfe", "is wrong"),
    "policy": ("[local]\nallowed_paths = dev\n", "not an absolute path"),
}


@pytest.mark.parametrize("case", CONFIGURATIONS)
def test_a_configuration_that_does_not_serve_is_named(case: str, tmp_path: Path) -> None:
    text, reason = CONFIGURATIONS[case]
    file = tmp_path / "agent.conf"
    if text is not None:
        file.write_text(text, errors="surrogateescape")
    out, err = io.StringIO(), io.StringIO()
    code = run(["list", "--config-file", str(file)], cfg.ConfigOpts(), pytest.fail, out, err)
    assert (code, out.getvalue()) == (Exit.USAGE, "")
    assert str(file) in err.getvalue()
    assert reason in err.getvalue()


def test_a_directory_is_no_configuration(tmp_path: Path) -> None:
    out, err = io.StringIO(), io.StringIO()
    code = run(["list", "--config-file", str(tmp_path)], cfg.ConfigOpts(), pytest.fail, out, err)
    assert (code, out.getvalue()) == (Exit.USAGE, "")
    assert err.getvalue() == (
        f"attachctl: usage: the configuration {tmp_path} cannot be read: Is a directory\n"
    )


def test_what_the_host_refuses_is_not_told_as_output(
    attachctl: Attachctl, journal: Journal
) -> None:
    for failed in (OSError(24, "Too many open files"), BrokenPipeError(32, "Broken pipe")):
        ran = attachctl("operations", "cancel", PARKED, agent=PlayedAgent(journal, [failed]))
        assert (ran.code, ran.out) == (Exit.FAILED, "")
        assert ran.err.startswith("attachctl: internal: this host does not let attachctl go on")
        assert failed.strerror in ran.err


@pytest.mark.parametrize("url", ["rabbit://u:Tr0ub4dor@[::bad", "nonsense://u:Tr0ub4dor@x:1/"])
def test_a_broker_address_that_cannot_be_used_is_a_usage_error(url: str, config_file: Path) -> None:
    """With the real client, in its own process: oslo.messaging works with the global options."""
    program = Path(sys.executable).with_name("attachctl")
    with config_file.open("a") as file:
        file.write(f"transport_url = {url}\n")
    command = [str(program), "--config-file", str(config_file), "list"]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (ran.returncode, ran.stdout) == (Exit.USAGE, "")
    assert "transport_url cannot be used" in ran.stderr
    assert "Tr0ub4dor" not in ran.stderr


def test_the_program_itself_reads_the_journal_and_says_nothing_else(
    journal: Journal, config_file: Path
) -> None:
    """As installed: no warning of a library, no colour, no traceback when the disk is full."""
    program = Path(sys.executable).with_name("attachctl")
    command = [str(program), "--config-file", str(config_file), "--offline", "operations"]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (ran.returncode, ran.stderr) == (0, "")
    assert "waiting" in ran.stdout
    with Path("/dev/full").open("w") as full:
        failed = subprocess.run(
            command, stdout=full, stderr=subprocess.PIPE, text=True, timeout=60, check=False
        )
    assert failed.returncode == Exit.FAILED
    assert failed.stderr == "attachctl: output cannot be written: No space left on device\n"
    head = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert head.stdout is not None
    head.stdout.close()
    assert head.communicate(timeout=60)[1] == "", "the reader has seen enough"
    assert head.returncode == 0
