"""A file system in user space: what serves a mount outlives the agent that made it.

Quobyte's client is not published; bindfs stands for it, which is a process of its own as well.
"""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.functional.orchestrator import Orchestrator
from tests.lab.guest import Guest, block_of
from tests.nested.inside.agent import Agent
from tests.nested.inside.leftovers import mounts
from tests.nested.inside.nfs import Export, VolumeFile
from tests.nested.inside.wishes import wish

HELPER = Path("/sbin/mount.quobyte")
"""What mount(8) calls for this type, with the source and the directory."""


class Registry(Export):
    """Whatever is mounted of it is ``directory``."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.directory.chmod(0o777)
        self.source = str(directory)  # bindfs calls what it mounts by its own name for it


@pytest.fixture
def volume() -> Iterator[VolumeFile]:
    with tempfile.TemporaryDirectory() as directory:
        HELPER.write_text('#!/bin/sh\nexec bindfs -o subtype=quobyte,allow_other "$1" "$2"\n')
        HELPER.chmod(0o755)
        yield VolumeFile(Registry(Path(directory)))
        HELPER.unlink()


@pytest.mark.usefixtures("single_path", "storage")
@pytest.mark.exhaustive
def test_guests_keep_their_files_when_the_agent_ends(
    orchestrator: Orchestrator, guests: list[Guest], volume: VolumeFile, agent: Agent
) -> None:
    info = {**volume.connection_info(), "driver_volume_type": "quobyte"}
    wanted = wish(guests[0], volume, info)
    orchestrator.attached(wanted)
    assert mounts() == {volume.export.source}
    disk = guests[0].wait_for_disk(volume.volume_id).name
    for number, end in enumerate((agent.restart, agent.kill)):
        end()
        guests[0].write(disk, f"turn-{number}", offset_mib=number)
        assert guests[0].read(disk, offset_mib=number) == f"turn-{number}"
    assert orchestrator.detached(wanted)["disconnected"] is True
    assert mounts() == set()
    assert volume.read() == block_of("turn-0")
