"""A guest's reads and writes that fail: said of the attachment, and never in a flood.

A dead array fails thousands of requests a second. Each is counted; the first of a disk is told at
once, and those that follow together, once in TELL_AGAIN_SECONDS.
"""

import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

from agent.guest.halves import halves
from agent.journal.book import Book
from agent.journal.record import Held
from agent.journal.store import Journal
from agent.model.attachment import Attachment
from agent.model.io_error import Action, IoError
from agent.model.moment import rfc3339_of
from agent.ports import INCOMING_MIGRATION, Host
from agent.saga.news import tell
from agent.service.turns import do_all

LOG = logging.getLogger(__name__)

TELL_AGAIN_SECONDS = 60.0
"""Between two notifications of one disk."""

IO_ERROR = "attachment.disk.io_error"

_Disk = tuple[str, str]
"""Instance and alias."""


@dataclass(frozen=True)
class _Tally:
    """Of one disk: what was heard and not yet told."""

    last: IoError
    errors: int
    first_at: float
    last_at: float

    def and_later(self, later: "_Tally") -> "_Tally":
        return replace(later, errors=self.errors + later.errors, first_at=self.first_at)


class IoErrors:
    """``counted`` is told how many of which action there were, of attachments of ours."""

    def __init__(
        self, host: Host, journal: Journal, counted: Callable[[Action, int], None]
    ) -> None:
        self._host = host
        self._journal = journal
        self._counted = counted
        self._mutex = threading.Lock()
        self._tallies: dict[_Disk, _Tally] = {}
        self._told_at: dict[_Disk, float] = {}
        self._may_have_missed = False

    def connected(self) -> None:
        """To libvirt, anew: what failed meanwhile nobody has told. Asked for at the next look."""
        self._may_have_missed = True

    def heard(self, error: IoError) -> bool:
        """Is it to be told now? Returns at once, and raises nothing."""
        now = self._host.clock.now()
        with self._mutex:
            self._put((error.instance_id, error.alias), _Tally(error, 1, now, now))
            return bool(self._due(self._host.clock.monotonic()))

    def look(self) -> None:
        """Tell what is due.  Raises Unavailable (the journal, libvirt): then it is told later."""
        do_all((self._look_for_missed, self._tell))

    def _look_for_missed(self) -> None:
        if not self._may_have_missed:
            return
        self._may_have_missed = False  # libvirt may be lost once more while it is asked
        try:
            self._hear_missed()
        except Exception:
            self._may_have_missed = True
            raise

    def _tell(self) -> None:
        now = self._host.clock.monotonic()
        with self._mutex:
            due = {disk: self._tallies.pop(disk) for disk in self._due(now)}
        while due:
            disk, tally = due.popitem()
            try:
                found = self._journal.write(partial(self._write, tally))
            except Exception:
                with self._mutex:
                    for late, untold in ((disk, tally), *due.items()):
                        self._put(late, untold, is_older=True)
                raise
            with self._mutex:
                self._told_at[disk] = now
            if found is not None:
                self._counted(tally.last.action, tally.errors)
                _log(found, tally)

    def _hear_missed(self) -> None:
        """Guests that QEMU has paused; what is known of a pause is not told once more."""
        attachments = self._journal.read(lambda book: book.attachments())
        do_all(partial(self._hear_missed_by, held) for held in attachments)

    def _hear_missed_by(self, held: Held) -> None:
        instance_id, errors = held.attachment.instance_id, held.io_errors
        look = self._host.domains.look(instance_id)
        if look is None or look.state != "paused" or (errors and errors["action"] == "stop"):
            return
        if look.job == INCOMING_MIGRATION:
            self._may_have_missed = True  # it stands because it comes, and answers when it is here
            return
        disk = halves(look).live_disk(held.attachment.alias)
        failed = self._host.domains.disk_errors(instance_id)
        if disk is not None and disk.target_dev in failed:
            alias = held.disk.get("alias", held.attachment.alias)
            reason = failed[disk.target_dev]
            self.heard(IoError(instance_id=instance_id, alias=alias, action="stop", reason=reason))

    def _due(self, now: float) -> list[_Disk]:
        for disk, at in list(self._told_at.items()):
            if at + TELL_AGAIN_SECONDS <= now:
                del self._told_at[disk]
        return [disk for disk in self._tallies if disk not in self._told_at]

    def _put(self, disk: _Disk, tally: _Tally, *, is_older: bool = False) -> None:
        known = self._tallies.get(disk)
        if known is not None:
            tally = tally.and_later(known) if is_older else known.and_later(tally)
        self._tallies[disk] = tally

    def _write(self, tally: _Tally, book: Book) -> Attachment | None:
        """None: no disk of ours."""
        held = _held(book, tally.last)
        attachment = _coming(book, tally.last) if held is None else held.attachment
        if attachment is None:
            return None
        if held is not None:
            book.keep(replace(held, io_errors=_kept(held, tally)))
        tell(
            book,
            self._host,
            IO_ERROR,
            attachment_ids=[attachment.attachment_id],
            instance_id=attachment.instance_id,
            volume_ids=[attachment.volume_id],
            action=tally.last.action,
            reason=tally.last.reason,
            errors=tally.errors,
            first_at=rfc3339_of(tally.first_at),
            last_at=rfc3339_of(tally.last_at),
        )
        return attachment


def _held(book: Book, error: IoError) -> Held | None:
    """The attachment in place whose disk it is, by the alias that plugging has stored."""
    for held in book.attachments():
        is_its = held.attachment.instance_id == error.instance_id
        if is_its and held.disk.get("alias", held.attachment.alias) == error.alias:
            return held
    return None


def _coming(book: Book, error: IoError) -> Attachment | None:
    """One that an open operation is about to put in place."""
    for record in book.open_operations():
        for part in record.parts:
            one = part.attachment
            if one and (one.instance_id, one.alias) == (error.instance_id, error.alias):
                return one
    return None


def _kept(held: Held, tally: _Tally) -> dict[str, object]:
    """As list_attachments shows it: since the attachment is in place."""
    before = held.io_errors or {"errors": 0, "first_at": rfc3339_of(tally.first_at)}
    return {
        "errors": before["errors"] + tally.errors,
        "first_at": before["first_at"],
        "last_at": rfc3339_of(tally.last_at),
        "action": tally.last.action,
        "reason": tally.last.reason,
    }


def _log(attachment: Attachment, tally: _Tally) -> None:
    is_paused = tally.last.action == "stop"
    LOG.warning(
        "attachment %s (volume %s) of instance %s: %d I/O errors%s%s",
        attachment.attachment_id,
        attachment.volume_id,
        attachment.instance_id,
        tally.errors,
        f" ({tally.last.reason})" if tally.last.reason else "",
        "; QEMU has paused the guest (error_policy stop): resume it when the storage works"
        if is_paused
        else "",
    )
