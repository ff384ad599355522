"""What a libvirt of some version can do on a host with some packages."""

from pathlib import Path

import pytest

from agent.host.libvirt_abilities import RESERVING_PROGRAM, Abilities
from agent.ports import COPY_TO_ENCRYPTED, GUEST_INITIATOR, RESERVATIONS, SHARED_ENCRYPTION


def install(packages: Path) -> None:
    program = packages / RESERVING_PROGRAM
    program.write_text("")
    program.chmod(0o755)


@pytest.mark.parametrize(
    ("libvirt", "is_installed", "can"),
    [((9, 0, 0), True, True), ((9, 0, 0), False, False), ((4, 3, 0), True, False)],
)
def test_reservations_need_libvirt_and_its_program(
    tmp_path: Path, libvirt: tuple[int, int, int], is_installed: bool, can: bool
) -> None:
    if is_installed:
        install(tmp_path)
    abilities = Abilities(programs_path=str(tmp_path))
    assert abilities.has(libvirt, RESERVATIONS) is can
    assert (RESERVATIONS in abilities.missing(libvirt)) is not can


def test_what_is_switched_off_is_missing(tmp_path: Path) -> None:
    install(tmp_path)
    abilities = Abilities({RESERVATIONS}, programs_path=str(tmp_path))
    assert RESERVATIONS in abilities.missing((9, 0, 0))


@pytest.mark.parametrize(
    ("says", "can"),
    [
        ("Need all of transport, portal and target options", True),
        ("Unknown driver 'iscsi'", False),
        (None, False),
    ],
    ids=["there", "its-module-is-not", "no-qemu-img"],
)
def test_a_guests_own_initiator_needs_qemus_driver(
    tmp_path: Path, says: str | None, can: bool
) -> None:
    """The words are those of QEMU 7.2."""
    if says is not None:
        program = tmp_path / "qemu-img"
        program.write_text(f'#!/bin/sh\necho "qemu-img: Could not open: {says}" >&2\nexit 1\n')
        program.chmod(0o755)
    abilities = Abilities(programs_path=str(tmp_path))
    assert abilities.has((4, 7, 0), GUEST_INITIATOR) is can
    assert not abilities.has((4, 6, 0), GUEST_INITIATOR)


@pytest.mark.parametrize("ability", [SHARED_ENCRYPTION, COPY_TO_ENCRYPTED])
@pytest.mark.parametrize(("libvirt", "can"), [((9, 0, 0), True), ((11, 3, 0), False)])
def test_what_a_newer_libvirt_does_no_more(
    libvirt: tuple[int, int, int], can: bool, ability: str
) -> None:
    assert Abilities().has(libvirt, ability) is can
    assert (ability in Abilities().missing(libvirt)) is not can
