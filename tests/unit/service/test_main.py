"""The daemon's configuration: what is wrong in it, at the start and when it is read again."""

import subprocess
import sys
from pathlib import Path

import pytest
from oslo_config import cfg
from oslo_log import log

from agent import conf as options
from agent.service.main import EXIT_CONFIGURATION, reload

ENOUGH_SECONDS = 60

PROGRAM = "import sys; from agent.service.main import main; main(sys.argv[1:])"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "agent.conf"


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ("debug = perhaps", "debug"),
        ("max_open_operations = many", "max_open_operations"),
        ("log_config_append = /nonexistent", "/nonexistent"),
        ("[local]\nallowed_paths = volumes", "allowed_paths"),
    ],
)
def test_what_is_wrong_is_named_and_starting_again_does_not_help(
    file: Path, wrong: str, says: str
) -> None:
    file.write_text(f"[DEFAULT]\nstate_path = {file.parent}\n{wrong}\n")
    ended = subprocess.run(
        [sys.executable, "-c", PROGRAM, "--config-file", str(file)],
        capture_output=True,
        text=True,
        timeout=ENOUGH_SECONDS,
    )
    assert ended.returncode == EXIT_CONFIGURATION
    assert says in ended.stderr
    assert "Traceback" not in ended.stderr


@pytest.mark.parametrize("wrong", ["[DEFAULT\n", "[DEFAULT]\ndebug = perhaps\n", None])
def test_a_configuration_that_is_wrong_by_now_is_not_read_again(
    file: Path, wrong: str | None
) -> None:
    conf = cfg.ConfigOpts()
    options.register(conf)
    log.register_options(conf)
    file.write_text("[DEFAULT]\ndebug = true\n")
    conf(["--config-file", str(file)], project="attachment-agent")
    if wrong is None:
        file.unlink()
    else:
        file.write_text(wrong)
    reload(conf)
    assert conf.debug
    file.write_text("[DEFAULT]\ndebug = false\n")
    reload(conf)
    assert not conf.debug
