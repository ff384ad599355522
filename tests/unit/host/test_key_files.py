"""A request may name a passphrase's file, and only one that the operator keeps for that."""

import os
from pathlib import Path

import pytest

from agent.errors import Invalid, Unsupported
from agent.host.key_files import LARGEST_BYTES, KeyFiles

KEY = b"a passphrase\n"


@pytest.fixture
def allowed(tmp_path: Path) -> Path:
    directory = tmp_path / "credentials"
    directory.mkdir()
    return directory


def write(path: Path, content: bytes = KEY, mode: int = 0o400) -> str:
    path.write_bytes(content)
    path.chmod(mode)
    return str(path)


@pytest.mark.parametrize("mode", [0o400, 0o600, 0o440])
def test_all_its_bytes_are_the_passphrase(allowed: Path, mode: int) -> None:
    assert KeyFiles([str(allowed)]).read(write(allowed / "key", mode=mode)) == KEY


def test_the_directory_may_be_a_link(allowed: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(allowed)
    write(allowed / "key")
    assert KeyFiles([str(tmp_path / "link")]).read(str(tmp_path / "link" / "key")) == KEY


def test_without_a_directory_none_is_read(allowed: Path) -> None:
    with pytest.raises(Unsupported, match="secret_directories"):
        KeyFiles([]).read(write(allowed / "key"))


def test_a_link_or_dots_lead_nowhere_else(allowed: Path, tmp_path: Path) -> None:
    write(tmp_path / "other")
    (allowed / "link").symlink_to(tmp_path / "other")
    for path in (allowed / "link", allowed / ".." / "other", tmp_path / "other"):
        with pytest.raises(Invalid, match="leads below none"):
            KeyFiles([str(allowed)]).read(str(path))
    with pytest.raises(Invalid, match="leads below none"):
        KeyFiles([str(allowed)]).read(os.path.relpath(write(allowed / "key")))


@pytest.mark.parametrize("mode", [0o444, 0o402, 0o420, 0o401])
def test_what_others_may_read_or_write_is_no_secret(allowed: Path, mode: int) -> None:
    with pytest.raises(Invalid, match=f"mode {mode:04o}"):
        KeyFiles([str(allowed)]).read(write(allowed / "key", mode=mode))


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
def test_nor_is_what_another_user_owns(allowed: Path) -> None:
    path = write(allowed / "key")
    os.chown(path, 65534, 65534)
    with pytest.raises(Invalid, match="owner 65534"):
        KeyFiles([str(allowed)]).read(path)


@pytest.mark.parametrize("content", [b"", bytes(LARGEST_BYTES + 1)], ids=["none", "too much"])
def test_so_many_bytes_are_no_passphrase(allowed: Path, content: bytes) -> None:
    with pytest.raises(Invalid, match="must hold"):
        KeyFiles([str(allowed)]).read(write(allowed / "key", content))


def test_no_plain_file_is_read(allowed: Path) -> None:
    (allowed / "directory").mkdir(mode=0o700)
    os.mkfifo(allowed / "pipe", 0o600)
    for name, said in (
        ("directory", "plain file"),
        ("pipe", "plain file"),
        ("none", "there is no"),
    ):
        with pytest.raises(Invalid, match=said):
            KeyFiles([str(allowed)]).read(str(allowed / name))
