"""The daemon's configuration: what is wrong in it, at the start and when it is read again."""

import json
import os
import socket
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import pytest
from oslo_config import cfg
from oslo_log import log

from agent import conf as options
from agent.conf import Settings
from agent.journal.store import FILE_NAME
from agent.service.begin import refuse_another_name
from agent.service.main import EXIT_CONFIGURATION, EXIT_JOURNAL, reload
from tests.samples import attachment_payload
from tests.unit.journal.rows import opened, record

ENOUGH_SECONDS = 60

PROGRAM = "import sys; from agent.service.main import main; main(sys.argv[1:])"

WRITING = f"from agent.journal import upkeep; upkeep.PRUNE_EVERY_SECONDS = 0.0; {PROGRAM}"
"""With each turn of the upkeep, instead of after an hour."""


WAITED_FOR = """
import json, os, sys, threading, time
from oslo_config import cfg
from agent.bus import client as bus
from agent.journal.store import Journal
from agent.service.begin import SystemClock, configure
from agent.service.main import Daemon

settings, clock = configure(cfg.CONF, sys.argv[2:]), SystemClock()
daemon = Daemon(cfg.CONF, settings, Journal(settings.state_path, clock), clock)
daemon.start()
bus.WAIT_SLICE_SECONDS = 30.0
client = bus.AgentClient(cfg.CONF, settings.host, timeout_seconds=60)
answer = client.attach(json.loads(sys.argv[1]))
assert answer.state == "accepted", answer
threading.Thread(target=client.wait, args=(answer.operation_id, 60), daemon=True).start()
time.sleep(2)
began = time.monotonic()
daemon.stop()
print(time.monotonic() - began, flush=True)
os._exit(0)
"""
"""An agent whose libvirt is away, and a caller who waits for what waits for that."""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "agent.conf"


def started(file: Path) -> subprocess.CompletedProcess[str]:
    """The agent, which is expected to end by itself."""
    return subprocess.run(
        [sys.executable, "-c", PROGRAM, "--config-file", str(file)],
        capture_output=True,
        text=True,
        timeout=ENOUGH_SECONDS,
    )


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ("debug = perhaps", "debug"),
        ("max_open_operations = many", "max_open_operations"),
        ("log_config_append = /nonexistent", "/nonexistent"),
        ("[local]\nallowed_paths = volumes", "allowed_paths"),
        ("[storage]\nnfs_mount_point_base = mounts", "mounts is not an absolute path"),
        ("[os_brick]\nlock_path = /run/lock/compute", "Set both to the same directory"),
    ],
)
def test_what_is_wrong_is_named_and_starting_again_does_not_help(
    file: Path, wrong: str, says: str
) -> None:
    file.write_text(f"[DEFAULT]\nstate_path = {file.parent}\n{wrong}\n")
    ended = started(file)
    assert ended.returncode == EXIT_CONFIGURATION
    assert says in ended.stderr
    assert "Traceback" not in ended.stderr


@pytest.mark.parametrize("taken", ["locks", "journal.sqlite"])
def test_a_state_path_that_cannot_be_used_is_said(file: Path, taken: str) -> None:
    """A file stands where a directory must be, and the other way round."""
    state_path = file.parent / "state"
    state_path.mkdir()
    if taken == "locks":
        (state_path / taken).write_text("")
    else:
        (state_path / taken).mkdir()
    file.write_text(
        f"[DEFAULT]\ntransport_url = rabbit://127.0.0.1:1/\nstate_path = {state_path}\n"
    )
    ended = started(file)
    assert ended.returncode == EXIT_JOURNAL
    assert f"{state_path}" in ended.stderr
    assert "Traceback" not in ended.stderr


def test_an_operation_that_only_a_newer_agent_has_is_said(file: Path) -> None:
    state_path = file.parent / "state"
    with opened(state_path) as journal:
        journal.write(lambda book: book.add(record(verb="teleport")))
    file.write_text(
        f"[DEFAULT]\ntransport_url = rabbit://127.0.0.1:1/\nstate_path = {state_path}\n"
    )
    ended = started(file)
    assert ended.returncode == EXIT_JOURNAL
    assert "this agent has no such verb" in ended.stderr
    assert "Traceback" not in ended.stderr


def test_a_host_with_another_name_is_not_what_it_was(file: Path) -> None:
    """As after a boot before the DHCP server has answered: it would listen where nobody asks."""
    state_path = file.parent / "state"
    with opened(state_path) as journal:
        journal.write(lambda book: book.keep_host("hypervisor-1"))
        refuse_another_name(journal, "hypervisor-2")  # it has nothing
        journal.write(lambda book: book.add(record()))
    file.write_text(
        "[DEFAULT]\nhost = localhost\ntransport_url = rabbit://127.0.0.1:1/\n"
        f"state_path = {state_path}\n"
    )
    ended = started(file)
    assert ended.returncode == EXIT_JOURNAL, "systemd tries again, and the name may come"
    assert "the journal is that of hypervisor-1" in ended.stderr
    assert "Traceback" not in ended.stderr


class TestWhereExportsAreMounted:
    def test_a_link_is_not_followed_but_named(self, file: Path) -> None:
        """The kernel's table has the real path, and guests' definitions have this one."""
        real = file.parent.resolve() / "real"
        real.mkdir()
        link = real.parent / "link"
        link.symlink_to(real)
        base = f"nfs_mount_point_base = {link}/mnt"
        file.write_text(f"[DEFAULT]\nstate_path = {file.parent}\n[storage]\n{base}\n")
        ended = started(file)
        assert ended.returncode == EXIT_CONFIGURATION
        assert f"set it to {real}/mnt, or" in ended.stderr

    def test_where_nobody_has_named_it_a_link_is_followed(
        self, file: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A host whose /var is a link, and that may never see an export."""
        monkeypatch.setattr(os.path, "realpath", lambda path: f"/data{path}")
        file.write_text("[DEFAULT]\n")
        assert settings_in(file).nfs_mount_point_base == f"/data{options.MOUNT_POINT_BASE}"

    def test_how_it_is_written_does_not_matter(self, file: Path) -> None:
        base = file.parent.resolve() / "mnt"
        file.write_text(f"[storage]\nnfs_mount_point_base = {base.parent}/./mnt//\n")
        assert settings_in(file).nfs_mount_point_base == str(base)


def settings_in(file: Path) -> Settings:
    conf = cfg.ConfigOpts()
    options.register(conf)
    conf(["--config-file", str(file)], project="attachment-agent")
    return options.settings(conf)


@pytest.mark.parametrize("my_ip", ["127.0.0.1", "::1", "localhost"])
def test_an_address_that_no_volume_service_reaches_is_said(file: Path, my_ip: str) -> None:
    file.write_text(f"[storage]\nmy_ip = {my_ip}\n")
    conf = cfg.ConfigOpts()
    options.register(conf)
    conf(["--config-file", str(file)], project="attachment-agent")
    [warning] = options.warnings(options.settings(conf))
    assert f"my_ip is {my_ip}" in warning
    file.write_text("[storage]\nmy_ip = 192.0.2.7\n")
    conf.reload_config_files()
    assert options.warnings(options.settings(conf)) == []


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


def test_a_stop_does_not_wait_for_who_waits_for_an_operation(file: Path) -> None:
    file.write_text(
        f"[DEFAULT]\nstate_path = {file.parent}\nstop_seconds = 60\n"
        "transport_url = kombu+memory:///\n[local]\nallowed_paths = /dev\n"
        f"[libvirt]\nuri = qemu+unix:///system?socket={file.parent / 'nowhere'}\n"
    )
    ended = subprocess.run(
        [
            sys.executable,
            "-c",
            WAITED_FOR,
            json.dumps(attachment_payload()),
            "--config-file",
            str(file),
        ],
        capture_output=True,
        text=True,
        timeout=2 * ENOUGH_SECONDS,
    )
    assert float(ended.stdout.split()[-1]) < 15, ended.stdout + ended.stderr


def test_a_journal_that_hangs_does_not_end_the_agent(file: Path) -> None:
    """It proves as often as ever that it lives, while its writes wait for the disk."""
    state, notify = file.parent / "state", file.parent / "notify"
    file.write_text(
        f"[DEFAULT]\nstate_path = {state}\ntransport_url = rabbit://127.0.0.1:1/\n"
        f"[libvirt]\nuri = qemu+unix:///system?socket={file.parent / 'nowhere'}\n"
    )
    with opened(state):
        pass
    with (
        closing(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)) as manager,
        closing(sqlite3.connect(state / FILE_NAME, isolation_level=None)) as db,
    ):
        manager.bind(str(notify))
        manager.settimeout(ENOUGH_SECONDS)
        db.execute("BEGIN IMMEDIATE")  # another process has it, as a disk that hangs would
        with subprocess.Popen(
            [sys.executable, "-c", WRITING, "--config-file", str(file)],
            env={**os.environ, "NOTIFY_SOCKET": str(notify), "WATCHDOG_USEC": "600000"},
            stderr=subprocess.DEVNULL,
        ) as agent:
            try:
                wait_for(manager, "READY=1")
                hanging = beats(manager, 8)
                wait_for(manager, "the disk of the journal does not answer")
                db.execute("ROLLBACK")
                wait_for(manager, "STATUS=")
                healthy = beats(manager, 8)
            finally:
                agent.kill()
    assert hanging < 4 * healthy


def wait_for(manager: socket.socket, words: str) -> None:
    deadline = time.monotonic() + ENOUGH_SECONDS
    while words not in manager.recv(4096).decode():
        assert time.monotonic() < deadline, f"it never says {words}"


def beats(manager: socket.socket, count: int) -> float:
    """How long so many proofs of life take."""
    wait_for(manager, "WATCHDOG=1")
    began = time.monotonic()
    for _ in range(count):
        wait_for(manager, "WATCHDOG=1")
    return time.monotonic() - began
