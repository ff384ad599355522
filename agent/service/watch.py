"""What nobody asks for and somebody must see: paths, namespaces that await their unmap, mounts.

A look at the paths reads files of sysfs and waits for nobody. What nobody needs any more, a mount
or NVMe controllers that show nothing, goes under the lock of whoever may just begin to need it: in
a turn of its own, since an attach may have that for minutes.
What has changed is written down and told in one transaction.
"""

import logging
from dataclasses import replace
from functools import partial

from agent.journal.book import Book
from agent.journal.record import Held
from agent.journal.store import Journal
from agent.model.device import Device
from agent.ports import Host
from agent.saga.news import tell
from agent.service.turns import do_all

LOG = logging.getLogger(__name__)

WATCH_SECONDS = 30.0
"""Between two looks: multipathd itself tries a path that failed every 5 to 20 seconds."""

PATHS_CHANGED = "attachment.paths.changed"
LEFTOVER_GONE = "attachment.leftover.gone"


class Watch:
    def __init__(self, host: Host, journal: Journal) -> None:
        self._host = host
        self._journal = journal

    def look_at_paths(self) -> None:
        """Of all attachments.  Raises AgentError where one's could not be looked at.

        One that is being taken off the host loses them one by one: that is no news, and must not
        say again, when it has left, that it is here."""
        attachments = self._journal.read(lambda book: book.attachments())
        do_all(partial(self._look_at_paths, held) for held in attachments if held.promised)

    def leave_unneeded(self) -> None:
        """All of it, once.  Raises AgentError where something could not be left."""
        left_behind = self._journal.read(lambda book: book.left_behind())
        do_all(
            [
                *(partial(self._look_at_leftover, *one) for one in left_behind.items()),
                *(partial(self._leave, export) for export in self._host.connectors.exports()),
            ]
        )

    def _look_at_leftover(self, volume_id: str, device: Device) -> None:
        """With the last namespace of a subsystem nobody is left who would leave that."""
        if self._host.connectors.present(device):
            return
        if device.subsystem is not None:
            with self._host.locks.targets((device.subsystem,)):
                self._host.connectors.leave_subsystem(device)
        self._journal.write(partial(self._gone, volume_id))

    def _leave(self, export: str) -> None:
        with self._host.locks.targets((export,)):
            self._host.connectors.leave(export)

    def _look_at_paths(self, held: Held) -> None:
        """Of a device that is not here at all the audit tells."""
        if held.device is None or held.device.paths_expected < 2:
            return
        now = self._host.connectors.look_again(held.attachment, held.device)
        if now is not None and _paths(now) != _paths(held.device):
            LOG.warning("%s: %s", now.path, now.degraded or "all paths work")
            self._journal.write(lambda book: self._changed(book, held, now))

    def _changed(self, book: Book, held: Held, now: Device) -> None:
        """Unless the attachment has ended or changed since it was read."""
        attachment = held.attachment
        if book.attachment(attachment.attachment_id) != held:
            return
        book.keep(replace(held, device=now))
        tell(
            book,
            self._host,
            PATHS_CHANGED,
            attachment_ids=[attachment.attachment_id],
            instance_id=attachment.instance_id,
            volume_ids=[attachment.volume_id],
            paths_found=now.paths_found,
            paths_expected=now.paths_expected,
            paths_missing=list(now.paths_missing),
        )

    def _gone(self, volume_id: str, book: Book) -> None:
        if book.reclaim(volume_id):
            tell(book, self._host, LEFTOVER_GONE, volume_ids=[volume_id])


def _paths(device: Device) -> tuple[int, int, tuple[str, ...]]:
    return device.paths_found, device.paths_expected, device.paths_missing
