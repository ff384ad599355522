"""Attachments that a host keeps for an instance that is to come: what becomes of them in the end.

Where it has come they are its attachments from then on, by alias and serial of the disks that it
brought along. While it comes, or its agent over there says that it goes, or cannot be asked, they
stay. Otherwise they go when their lease ends, or when that agent says that it has given the
migration up, by a cancel of the migration on this side, which is an operation like every other.
"""

import logging
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from functools import partial
from itertools import groupby
from typing import Any

from agent.errors import AgentError, Busy, Invalid, Unavailable
from agent.guest.domain_xml import DiskFacts, Note
from agent.guest.halves import Halves, halves
from agent.journal import migration_fence
from agent.journal.book import Book
from agent.journal.record import Held, Lease, Record
from agent.journal.store import Journal
from agent.model.attachment import Attachment
from agent.model.moment import rfc3339
from agent.ports import INCOMING_MIGRATION, DomainLook, Host
from agent.saga.news import tell
from agent.saga.plan import Scene
from agent.service.turns import do_all
from agent.steps.disk import NoteInDomain
from agent.steps.users import own_use

LOG = logging.getLogger(__name__)

LOOK_SECONDS = 10.0
"""Between two looks whether a lease has ended, or its instance has come: events tell of that."""

COMING_SECONDS = 1.0
"""While an instance comes: its last event is sent before libvirt has ended the job."""

VALID_FOR = timedelta(hours=1)

ARRIVED = "attachment.arrived"


@dataclass
class _Round:
    """Of one look at all. ``asks``: hosts are asked whether they have given up, but for those that
    are ``silent``: each would be waited for. ``coming``: instances that are on their way."""

    asks: bool
    silent: set[str] = field(default_factory=set)
    coming: set[str] = field(default_factory=set)


Command = Callable[[dict[str, Any]], dict[str, Any]]
"""Sends a cancel_migration to this agent; its answer."""


class Leases:
    """``look`` is called by one thread, the rest by any."""

    def __init__(self, host: Host, journal: Journal, cancel: Command) -> None:
        self._host = host
        self._journal = journal
        self._cancel = cancel
        self._awaited: frozenset[str] = frozenset()
        self._asks_from = 0.0
        """By the clock that only passes; it is later only while instances come."""

    def is_awaited(self, instance_id: str) -> bool:
        """Is it worth a look when something happens to the instance?  Asks nobody."""
        return instance_id in self._awaited

    def changed(self, record: Record) -> bool:
        """Is it worth a look that this operation has changed?"""
        return record.verb == "prepare_migration" and not record.open

    def look(self) -> float | None:
        """At all of them, once. After how many seconds again, where that is not long.

        Raises Unavailable (the journal, libvirt)."""
        leased = self._journal.read(lambda book: book.leased())
        self._awaited = frozenset(row.attachment.instance_id for row in leased)
        now = self._host.clock.monotonic()
        this = _Round(asks=self._asks_from <= now)
        groups = groupby(sorted(leased, key=_migration), key=_migration)
        do_all(partial(self._look_at, list(rows), this) for _, rows in groups)
        if not this.coming:
            self._asks_from = 0.0
            return None
        if this.asks:
            self._asks_from = now + LOOK_SECONDS
        return COMING_SECONDS

    def _look_at(self, rows: list[Held], this: _Round) -> None:
        """All of one migration."""
        instance_id = rows[0].attachment.instance_id
        look = self._host.domains.look(instance_id)
        if look is not None and look.job == INCOMING_MIGRATION:
            this.coming.add(instance_id)
        if look is not None and _has_come(look):
            rows = [row for row in rows if not self._arrived(row, look)]
        if rows and look is None and this.asks and self._is_given_up(rows[0], this.silent):
            self._end(rows, "was given up where the instance is")
            return
        if not rows or min(_lease(row).expires_at for row in rows) > self._host.clock.now():
            return
        waiting_for = self._why_stays(rows, look)
        if waiting_for is None:
            self._end(rows, "has a lease that has ended, and nobody came")
        elif any(_lease(row).waiting_for != waiting_for for row in rows):
            self._journal.write(lambda book: _wait(book, rows, waiting_for))

    def _arrived(self, row: Held, look: DomainLook) -> bool:
        """Has the guest the volume?  Then it is its attachment from now on.

        Raises Unavailable, Busy: it is noted later. The note that came along says that the disk is
        the attachment's over there, whoever asks for ours would not find it."""
        guest = halves(look)
        disk = self._disk_of(row, guest)
        if disk is None:
            return False
        attachment = _with_disk_of(guest, disk, row.attachment).marked(disk.mark, disk.serial)
        note = Note(attachment.attachment_id, attachment.volume_id, attachment.generation)
        where = (attachment.attachment_id, attachment.instance_id, attachment.alias)
        try:
            NoteInDomain(*where, note).apply(Scene(self._host, "", {}))
        except (Unavailable, Busy):
            raise
        except AgentError as error:  # there will be none
            LOG.warning("%s: no note in its domain: %s", attachment.attachment_id, error)
        shown = guest.shown(attachment.alias)
        assert shown is not None, "it was found just now"
        arrived = replace(row, attachment=attachment, disk=shown, lease=None)
        self._journal.write(lambda book: self._keep(book, row, arrived))
        return True

    def _disk_of(self, row: Held, guest: Halves) -> DiskFacts | None:
        """By its source: alias and serial are whatever it brings along."""
        names = self._host.connectors.names
        wanted = frozenset[str]() if row.device is None else names(row.device.path)
        for half in (guest.live, guest.inactive):
            for disk in half.disks if half else ():
                if disk.source is not None and wanted & names(disk.source):
                    return disk
        return None

    def _keep(self, book: Book, row: Held, arrived: Held) -> None:
        """Unless it has changed since it was read. With the last of them the migration is over."""
        attachment = arrived.attachment
        if book.attachment(attachment.attachment_id) != row:
            return
        book.keep(arrived)
        migration_id = _lease(row).migration_id
        if not any(_migration(other) == migration_id for other in book.leased()):
            migration_fence.arrived(book, migration_id, self._host.clock.now())
        tell(
            book,
            self._host,
            ARRIVED,
            attachment_ids=[attachment.attachment_id],
            instance_id=attachment.instance_id,
            volume_ids=[attachment.volume_id],
            migration_id=migration_id,
        )

    def _is_given_up(self, row: Held, silent: set[str]) -> bool:
        there = _lease(row).source_host
        if there is None or there in silent:
            return False
        instance_id = row.attachment.instance_id
        answer = self._host.peers.has_given_up(there, instance_id, _migration(row))
        if answer is None:
            silent.add(there)
        return answer is True

    def _why_stays(self, rows: list[Held], look: DomainLook | None) -> str | None:
        """In words, what it waits for; None: nothing."""
        if look is not None and not _has_come(look):
            return f"the {look.job or look.state} instance on this host"
        for use in (own_use(self._host, row.attachment) for row in rows if look is not None):
            if use is not None:
                return (
                    f"somebody: {use} is the volume, and not as it was prepared ({use.disk.source})"
                    "; see what the domain has, and detach that disk, or shut it off"
                )
        there = _lease(rows[0]).source_host
        if there is None or look is not None:
            return None
        found = self._host.peers.look(there, rows[0].attachment.instance_id)
        if found is None:
            return f"the agent of {there}, which does not answer"
        return f"the {found.job} of the instance on {there}" if found.job else None

    def _end(self, rows: list[Held], why: str) -> None:
        """Unless something open is about them already."""
        ids = [row.attachment.attachment_id for row in rows]
        if self._journal.read(lambda book: any(book.open_operations(attachment_id=i) for i in ids)):
            return
        lease = _lease(rows[0])
        now = datetime.fromtimestamp(self._host.clock.now(), UTC)
        LOG.warning("migration %s %s: its volumes are given back", lease.migration_id, why)
        answer = self._cancel(
            {
                "request_id": str(uuid.uuid4()),
                "not_after": rfc3339(now + VALID_FOR),
                "migration_id": lease.migration_id,
            }
        )
        if answer["state"] == "refused":
            LOG.warning("migration %s: %s", lease.migration_id, answer["error"]["detail"])


def _with_disk_of(guest: Halves, disk: DiskFacts, prepared: Attachment) -> Attachment:
    """What of the disk is the guest's comes along with it, whatever was prepared."""
    theirs: dict[str, Any] = {"bus": disk.bus, "type": disk.device}
    if prepared.disk.target_dev is not None:
        theirs["target_dev"] = disk.target_dev
    plain = prepared.reveal()
    plain["disk"] = {**plain.get("disk", {}), **theirs}
    plain.pop("marks", None)
    try:
        return Attachment.parse(plain)
    except Invalid as error:  # such as an attachment cannot be: the audit says what differs
        LOG.warning("domain %s: %s is %s", guest.look.name, disk.target_dev, error)
        return prepared


def _has_come(look: DomainLook) -> bool:
    """A domain that comes is paused, and not defined before it has arrived."""
    is_there = look.state == "running" or look.is_held or look.inactive_xml is not None
    return is_there and look.job != INCOMING_MIGRATION


def _wait(book: Book, rows: list[Held], waiting_for: str) -> None:
    """Unless it has changed since it was read."""
    for row in rows:
        if book.attachment(row.attachment.attachment_id) == row:
            book.keep(replace(row, lease=replace(_lease(row), waiting_for=waiting_for)))


def _lease(row: Held) -> Lease:
    assert row.lease is not None, "it was asked for"
    return row.lease


def _migration(row: Held) -> str:
    return _lease(row).migration_id
