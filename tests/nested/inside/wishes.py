"""Attachments of what the storage of this machine shows, and the story that all layouts share."""

import subprocess
import uuid
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import pytest

from tests.functional.orchestrator import Orchestrator, Wish
from tests.lab.guest import Guest, block_of
from tests.lab.patience import wait_until
from tests.nested.inside.iscsi import Firewall
from tests.nested.inside.leftovers import assert_clean

ORDERS = pytest.mark.parametrize(
    "order",
    [
        pytest.param((0, 1), id="first-first", marks=pytest.mark.exhaustive),
        pytest.param((1, 0), id="last-first"),
    ],
)
"""Who of two guests leaves a volume first."""


class Volume(Protocol):
    volume_id: str

    @property
    def size_bytes(self) -> int: ...

    def read(self, offset_mib: int = 0, length_bytes: int = 4096) -> bytes: ...


def wish(guest: Guest, volume: Volume, info: Mapping[str, Any], **more: Any) -> Wish:
    return {
        "attachment_id": str(uuid.uuid4()),
        "instance_id": guest.uuid,
        "volume_id": volume.volume_id,
        "connection_info": dict(info),
        "size_bytes": volume.size_bytes,
        "multiattach": True,
        **more,
    }


def share_between(
    orchestrator: Orchestrator,
    guests: Sequence[Guest],
    volume: Volume,
    info: Mapping[str, Any],
    order: Sequence[int],
    *,
    is_clean: bool = True,
    **more: Any,
) -> None:
    """Attach to two guests, write through one, read through the other; detach in this order."""
    wishes = [wish(guest, volume, info, **more) for guest in guests]
    for wanted in wishes:
        orchestrator.attached(wanted)
    names = [guest.wait_for_disk(volume.volume_id).name for guest in guests]
    for number, (writer, reader) in enumerate(((0, 1), (1, 0))):
        guests[writer].write(names[writer], f"by-{writer}", offset_mib=number + 1)
        assert guests[reader].read(names[reader], offset_mib=number + 1) == f"by-{writer}"
    first, last = order
    assert orchestrator.detached(wishes[first])["disconnected"] is False
    guests[last].write(names[last], "alone")
    assert guests[last].read(names[last]) == "alone"
    assert orchestrator.detached(wishes[last])["disconnected"] is True
    assert volume.read() == block_of("alone")
    if is_clean:
        assert_clean()


def outage(
    orchestrator: Orchestrator,
    guests: Sequence[Guest],
    volume: Volume,
    info: Mapping[str, Any],
    firewall: Firewall,
    portals: Sequence[str],
    is_away: Callable[[], bool],
) -> None:
    """A second guest attaches while the storage is away: the first one's disk comes back to it.

    ``is_away``: the host has noticed."""
    first, second = (wish(guest, volume, info) for guest in guests)
    path = orchestrator.attached(first)["device"]["path"]
    name = guests[0].wait_for_disk(volume.volume_id).name
    guests[0].write(name, "before")
    for portal in portals:
        firewall.drop(portal)
    wait_until(is_away, "the host sees that the storage is away", seconds=120, pause_seconds=1)
    answer = orchestrator.attach(second)
    firewall.open()
    assert answer.state == "undone", answer
    wait_until(lambda: _answers(path), "the storage answers again", seconds=120, pause_seconds=1)
    guests[0].write(name, "after", offset_mib=1)
    assert guests[0].read(name, offset_mib=1) == "after"
    assert orchestrator.detached(first)["disconnected"] is True


def _answers(path: str) -> bool:
    read = ("dd", f"if={path}", "iflag=direct", "of=/dev/null", "bs=4096", "count=1")
    done = subprocess.run(["timeout", "20", *read], capture_output=True, check=False)
    return done.returncode == 0
