"""Attachments of what the storage of this machine shows, and the story that all layouts share."""

import uuid
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import pytest

from tests.functional.orchestrator import Orchestrator, Wish
from tests.lab.guest import Guest, block_of
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
