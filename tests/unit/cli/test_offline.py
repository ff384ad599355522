"""With the broker down, on the hypervisor itself: what the journal says, read-only."""

import io
import json
import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from oslo_config import cfg

from agent.cli.main import configure
from agent.cli.offline import PathsOnly
from agent.cli.screen import Screen
from agent.cli.session import Session
from agent.cli.trouble import Trouble
from agent.host.far_files import FarFiles
from agent.journal.store import Journal
from agent.model.device import Device
from tests.unit.cli.conftest import (
    ATTACHMENTS,
    INSTANCES,
    PARKED,
    AbsentAgent,
    Attachctl,
    PlayedAgent,
)

READING = [
    ("list",),
    ("show", ATTACHMENTS[0]),
    ("show", PARKED),
    ("operations",),
    ("operations", "--all"),
    ("quarantine", "list"),
]
NEEDING = [
    ("locks",),
    ("describe",),
    ("connector",),
    ("instance", INSTANCES[0]),
    ("operations", "wait", PARKED),
    ("operations", "cancel", PARKED),
    ("operations", "abandon", PARKED),
    ("quarantine", "release", "vol-left"),
    ("detach", ATTACHMENTS[0], "--instance", INSTANCES[0]),
]


@pytest.mark.parametrize("words", READING)
def test_the_journal_answers_as_the_agent_would_and_it_is_said(
    words: tuple[str, ...], attachctl: Attachctl, journal: Journal
) -> None:
    asked = attachctl(*words, agent=PlayedAgent(journal))
    read = attachctl(*words, agent=AbsentAgent())
    assert (read.code, read.out) == (0, asked.out)
    assert asked.err == ""
    assert "the broker at 192.0.2.1:5671 does not answer" in read.err
    assert "what the agent wrote last" in read.err


@pytest.mark.parametrize("words", READING)
def test_programs_are_told_where_it_comes_from(
    words: tuple[str, ...], attachctl: Attachctl, journal: Journal
) -> None:
    read = attachctl(*words, "--json", agent=AbsentAgent())
    assert json.loads(read.out)["source"] == "journal"


@pytest.mark.parametrize("words", READING)
def test_offline_never_asks_the_agent(
    words: tuple[str, ...], attachctl: Attachctl, journal: Journal
) -> None:
    ran = attachctl("--offline", *words, agent=None)
    assert ran.code == 0
    assert ran.err == ""


def test_the_daemon_may_be_dead_and_its_log_not_folded_in(
    attachctl: Attachctl, journal: Journal, state_path: Path
) -> None:
    assert (state_path / "journal.sqlite-wal").stat().st_size > 0
    assert ATTACHMENTS[0][:8] in attachctl("list", agent=AbsentAgent()).out


def test_reading_changes_nothing(attachctl: Attachctl, journal: Journal, state_path: Path) -> None:
    journal.close()
    before = (state_path / "journal.sqlite").read_bytes()
    for words in READING:
        assert attachctl(*words, agent=AbsentAgent()).code == 0
    assert (state_path / "journal.sqlite").read_bytes() == before


@pytest.mark.parametrize("words", NEEDING)
def test_what_needs_the_agent_says_so(
    words: tuple[str, ...], attachctl: Attachctl, journal: Journal
) -> None:
    ran = attachctl(*words, agent=AbsentAgent())
    assert (ran.code, ran.out) == (4, "")
    assert "the broker at 192.0.2.1:5671 does not answer" in ran.err
    offline = attachctl("--offline", *words, agent=AbsentAgent())
    assert (offline.code, offline.out) == (2, "")
    assert "needs the agent" in offline.err


def test_the_journal_of_another_host_is_not_here(attachctl: Attachctl, journal: Journal) -> None:
    ran = attachctl("--host", "hypervisor-2", "list", agent=AbsentAgent())
    assert (ran.code, ran.out) == (4, "")
    assert "what the agent wrote last" not in ran.err
    offline = attachctl("--host", "hypervisor-2", "--offline", "list", agent=AbsentAgent())
    assert offline.code == 2


def test_where_no_agent_has_run_that_is_said(attachctl: Attachctl) -> None:
    ran = attachctl("--json", "list", agent=AbsentAgent())
    assert ran.code == 4
    assert "no agent has run here" in json.loads(ran.out)["error"]["detail"]


def test_a_file_that_is_no_journal_is_named(attachctl: Attachctl, state_path: Path) -> None:
    state_path.mkdir()
    (state_path / "journal.sqlite").write_text("it has become something else entirely" * 100)
    ran = attachctl("list", agent=AbsentAgent())
    assert ran.code == 4
    assert "journal.sqlite cannot be read" in ran.err


def test_a_journal_of_a_newer_agent_is_not_guessed_at(
    attachctl: Attachctl, journal: Journal, state_path: Path
) -> None:
    journal.close()
    newer = sqlite3.connect(state_path / "journal.sqlite")
    newer.execute("PRAGMA user_version = 99")
    newer.close()
    ran = attachctl("list", agent=AbsentAgent())
    assert (ran.code, ran.out) == (4, "")
    assert "schema 99" in ran.err


@contextmanager
def somebody_else() -> Iterator[None]:
    """Root reads everything: be nobody for a while. Whoever is not root need not."""
    user = os.geteuid()
    if user == 0:
        os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(user)


def test_who_may_not_read_it_is_told_to_be_root(journal: Journal, config_file: Path) -> None:
    settings = configure(cfg.ConfigOpts(), str(config_file))
    session = Session(settings, pytest.fail, Screen(io.StringIO(), io.StringIO()), offline=True)
    for file in (settings.state_path / "journal.sqlite", config_file):
        file.chmod(0)
    with somebody_else(), pytest.raises(Trouble, match=r"journal\.sqlite cannot .* only root"):
        session.look(lambda book: book.attachments())
    with somebody_else(), pytest.raises(Trouble, match=r"agent\.conf cannot .* only root"):
        configure(cfg.ConfigOpts(), str(config_file))


def test_an_audit_without_libvirt_says_what_is_left_to_look_at(
    attachctl: Attachctl, journal: Journal, config_file: Path
) -> None:
    with config_file.open("a") as file:
        file.write("[libvirt]\nuri = qemu+unix:///system?socket=/nowhere/libvirt-sock\n")
    ran = attachctl("audit", agent=AbsentAgent())
    assert (ran.code, ran.out) == (4, "")
    assert "libvirt: " in ran.err
    assert "attachctl list" in ran.err


def test_an_audit_asks_libvirt_itself(
    attachctl: Attachctl, journal: Journal, config_file: Path
) -> None:
    """libvirt's own test driver has a domain that none of the attachments is of."""
    with config_file.open("a") as file:
        file.write("[libvirt]\nuri = test:///default\n")
    ran = attachctl("audit", "--json", agent=AbsentAgent())
    found = json.loads(ran.out)
    assert ran.code == 5
    kinds = {(finding["attachment_id"], finding["kind"]) for finding in found["findings"]}
    assert (ATTACHMENTS[0], "instance-missing") in kinds
    assert (ATTACHMENTS[0], "device-missing") in kinds
    assert (None, "quarantined") in kinds
    assert ATTACHMENTS[1] not in {one for one, _ in kinds}, "its detach is open: it is in motion"
    assert "identities were not compared" in ran.err


def test_the_server_of_a_file_is_not_asked(tmp_path: Path) -> None:
    """It may be away: a stat would hang, in the kernel. The table of mounts tells."""
    table = tmp_path / "mountinfo"
    table.write_text(f"40 25 0:53 / {tmp_path}/nas rw - nfs4 192.0.2.40:/vols rw\n")
    (tmp_path / "link").symlink_to(tmp_path / "nas")
    devices = PathsOnly(FarFiles(table))
    one, other = f"{tmp_path}/nas/volume-1", f"{tmp_path}/link/volume-1"
    assert devices.names(one) & devices.names(other)
    for path in (one, other):
        assert devices.in_place(Device(path=path, identity={"path": path}, size_bytes=1))
    table.write_text("")
    assert not devices.in_place(Device(path=one, identity={"path": one}, size_bytes=1))
    assert devices.names(other) == {other, one}
