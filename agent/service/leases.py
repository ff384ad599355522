"""Attachments that a host keeps for an instance that is to come: what becomes of them in the end.

While an instance comes, or its agent over there says that it goes, or cannot be asked, they stay.
Otherwise they go when their lease ends, by a cancel of the migration on this side, which is an
operation like every other.
"""

import logging
import uuid
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import groupby
from typing import Any

from agent.errors import Unavailable
from agent.journal.book import Book
from agent.journal.record import Held, Lease
from agent.journal.store import Journal
from agent.model.request import rfc3339
from agent.ports import Host

LOG = logging.getLogger(__name__)

LEASE_SECONDS = 10.0
"""Between two looks whether a lease has ended."""

VALID_FOR = timedelta(hours=1)

Command = Callable[[dict[str, Any]], dict[str, Any]]
"""Sends a cancel_migration to this agent; its answer."""


class Leases:
    def __init__(self, host: Host, journal: Journal, cancel: Command) -> None:
        self._host = host
        self._journal = journal
        self._cancel = cancel

    def look(self) -> None:
        """At all of them, once.  Raises Unavailable (the journal, libvirt)."""
        leased = self._journal.read(lambda book: book.leased())
        for _, rows in groupby(sorted(leased, key=_migration), key=_migration):
            self._look_at(list(rows))

    def _look_at(self, rows: list[Held]) -> None:
        if min(_lease(row).expires_at for row in rows) > self._host.clock.now():
            return
        waiting_for = self._why_stays(rows[0])
        if waiting_for is None:
            self._end(rows)
        elif any(_lease(row).waiting_for != waiting_for for row in rows):
            self._journal.write(lambda book: _wait(book, rows, waiting_for))

    def _why_stays(self, row: Held) -> str | None:
        """In words, what it waits for; None: nothing."""
        instance_id, there = row.attachment.instance_id, _lease(row).source_host
        if self._host.domains.look(instance_id) is not None:
            return "the instance is on this host"
        if there is None:
            return None
        try:
            found = self._host.peers.look(there, instance_id)
        except Unavailable as error:
            return error.detail
        return f"the {found.job} of the instance on {there}" if found.job else None

    def _end(self, rows: list[Held]) -> None:
        """Unless something open is about them already."""
        ids = [row.attachment.attachment_id for row in rows]
        if self._journal.read(lambda book: any(book.open_operations(attachment_id=i) for i in ids)):
            return
        lease = _lease(rows[0])
        now = datetime.fromtimestamp(self._host.clock.now(), UTC)
        LOG.warning("the lease of migration %s has ended, and nobody came", lease.migration_id)
        answer = self._cancel(
            {
                "request_id": str(uuid.uuid4()),
                "not_after": rfc3339(now + VALID_FOR),
                "migration_id": lease.migration_id,
            }
        )
        if answer["state"] == "refused":
            LOG.warning("migration %s: %s", lease.migration_id, answer["error"]["detail"])


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
