"""What a libvirt of some version can do on a host with some packages."""

from pathlib import Path

import pytest

from agent.host.libvirt_abilities import RESERVING_PROGRAM, Abilities
from agent.ports import RESERVATIONS


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
