"""swap: a running guest's disk moves to another volume, which is copied under the guest.

Until the pivot everything is taken back. From then on the disk is the new attachment's; it keeps
the alias and the serial that it was plugged with.
"""

from typing import Any

from agent.guest.domain_xml import Note
from agent.journal.book import Book
from agent.journal.record import Held, Record
from agent.model.copy import CopyWishes
from agent.operations.attach import attached, connect
from agent.operations.detach import off_host
from agent.saga.plan import Plan
from agent.steps.copied import GrowCopied, NoteNewOwner, RedefineDisk
from agent.steps.copy import CheckSwap, CopyDisk, PivotDisk
from agent.steps.secret import DropSecrets
from agent.steps.volume import DisconnectVolume


def plan_swap(record: Record) -> Plan:
    old, new = (part.attachment for part in record.parts)
    assert old is not None
    assert new is not None
    wishes = CopyWishes(
        bandwidth_bytes_per_second=record.known["bandwidth_bytes_per_second"],
        synchronous_writes=record.known["synchronous_writes"],
    )
    note = Note(new.attachment_id, new.volume_id, new.generation)
    secrets = (DropSecrets(old),) if old.secrets else ()
    return Plan(
        reversible=(CheckSwap(old, new, wishes), *connect((new,)), CopyDisk(new, wishes)),
        commit=PivotDisk(new),
        onward=(
            RedefineDisk(new),
            NoteNewOwner(new.attachment_id, new.instance_id, new.alias, note),
            DisconnectVolume(old),
            *secrets,
            GrowCopied(new),
        ),
        result=_swapped,
        on_done=keep_new,
    )


def _swapped(record: Record) -> dict[str, Any]:
    """As of an attach, and what became of the volume that was in place."""
    old, new = record.parts
    replaced = {"attachment_id": old.attachment_id, **off_host(old.known)}
    return {**attached(new.known), "replaced": replaced}


def keep_new(book: Book, record: Record) -> None:
    old, new = record.parts
    assert new.attachment is not None
    book.drop(old.attachment_id)
    book.keep(Held(new.attachment, record.operation_id, new.device, new.known.get("disk") or {}))
    book.raise_fence(
        old.attachment_id, newest=old.generation, detached=old.generation, now=record.updated_at
    )
