"""os-brick's lock files are made by root, and a compute service, which is not root, opens them."""

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest
from oslo_concurrency import lockutils

from agent.errors import Unavailable
from agent.host.brick_lock_files import share_lock_files
from agent.host.brick_locks import OsBrickLocks
from agent.model.attachment import Attachment
from tests.samples import attachment
from tests.unit.host.test_brick_calls import locking_in
from tests.unit.host.test_brick_locks import INSIDE_A_CONNECTOR, compute_service

SERVICE = "11111111-0000-4000-8000-000000000001"

PORTAL = "connect_to_iscsi_portal-192.0.2.1:3260-iqn.2010-10.org.openstack:volume-1"
"""os-brick locks each portal and target as well."""


@pytest.fixture
def umask() -> Iterator[None]:
    """As the service has it."""
    before = os.umask(0o077)
    yield
    os.umask(before)


@pytest.fixture
def lock_path(tmp_path: Path, umask: None) -> Iterator[Path]:
    directory = tmp_path / "locks"
    directory.mkdir()
    with locking_in(directory):
        share_lock_files(directory)
        yield directory


def mode(path: Path) -> int:
    return stat.S_IMODE(path.lstat().st_mode)


def volume() -> Attachment:
    return attachment(service_uuid=SERVICE, shared_targets=None)


def test_every_lock_file_can_be_opened_by_others(lock_path: Path) -> None:
    """Those of os-brick's own making among them, whose names nobody knows before."""
    locks = OsBrickLocks(60)
    with (
        locks.guard(volume()),
        locks.hold("scsi"),
        lockutils.lock(PORTAL, "os-brick-", external=True, lock_path=str(lock_path)),
    ):
        files = list(lock_path.iterdir())
    assert {file.name for file in files} == {
        "os-brick-connect_volume",
        f"os-brick-{SERVICE}",
        f"os-brick-{PORTAL}",
    }
    assert {mode(file) for file in files} == {0o666}


def test_so_it_is_in_every_process_of_the_agent(tmp_path: Path, umask: None) -> None:
    """Once os-brick is set up, and from the first lock on."""
    directory = tmp_path / "locks"
    with compute_service(INSIDE_A_CONNECTOR, str(directory)):
        assert mode(directory / "os-brick-connect_volume") == 0o666


def test_a_directory_that_is_missing_is_ours_alone(lock_path: Path) -> None:
    """/run is empty when the host has booted: who shares it makes it before us, as his own."""
    lock_path.rmdir()
    with OsBrickLocks(60).hold("scsi"):
        assert mode(lock_path) == 0o700


def test_a_directory_that_is_there_is_the_operators(lock_path: Path) -> None:
    lock_path.chmod(0o750)
    share_lock_files(lock_path)
    assert mode(lock_path) == 0o750


def test_what_an_earlier_life_made_for_itself_is_mended(lock_path: Path) -> None:
    file = lock_path / "os-brick-connect_volume"
    file.touch(0o600)
    share_lock_files(lock_path)
    assert mode(file) == 0o666


def test_nothing_else_is_touched(lock_path: Path, tmp_path: Path) -> None:
    """Where others write, a name may lead to anything."""
    secret = tmp_path / "secret"
    secret.write_text("hunter2")
    empty = tmp_path / "empty"
    empty.touch()
    (lock_path / "os-brick-link").symlink_to(empty)
    (lock_path / "os-brick-hard-link").hardlink_to(empty)
    (lock_path / "os-brick-not-empty").write_text("hunter2")
    (lock_path / "os-brick-directory").mkdir()
    os.mkfifo(lock_path / "os-brick-pipe")
    (lock_path / "another").touch()
    before = {file: mode(file) for file in (secret, empty, *lock_path.iterdir())}
    share_lock_files(lock_path)
    assert {file: mode(file) for file in before} == before


def test_a_link_in_the_place_of_a_file_is_left_alone(lock_path: Path, tmp_path: Path) -> None:
    there = tmp_path / "there"
    there.touch(0o600)
    (lock_path / "os-brick-connect_volume").symlink_to(there)
    with OsBrickLocks(60).hold("scsi"):
        pass
    assert mode(there) == 0o600


def test_where_no_file_can_be_made_it_says_so(lock_path: Path) -> None:
    lock_path.rmdir()
    lock_path.touch()
    says = f"os-brick-.*{lock_path}.*nothing was touched"
    locks = OsBrickLocks(60)
    with pytest.raises(Unavailable, match=says), locks.hold("scsi"):
        pass
    with pytest.raises(Unavailable, match=says), locks.guard(volume()):
        pass
    lock_path.unlink()
    with locks.guard(volume()), locks.hold("scsi"):
        pass
