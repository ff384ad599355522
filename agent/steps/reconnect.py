"""A volume that attachments count on and that is not on this host comes back.

After a power loss, before guests start (agent/service/reconnect.py), and while the agent runs
(agent/service/lost.py). What the journal says of its device is a search key: nothing is believed
of it, and no row is changed. Nothing is ever disconnected here.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from agent.errors import ConnectFailed
from agent.journal.book import Book
from agent.model.attachment import Attachment
from agent.model.device import Device
from agent.ports import Connectors, Host, Promises
from agent.steps.identity import prove
from agent.steps.users import uses_of


@dataclass(frozen=True)
class Counted:
    """An attachment that counts on its volume, and what connect found when it was made."""

    attachment: Attachment
    device: Device


@dataclass(frozen=True)
class Lost:
    """One volume that is not on this host, and all who count on it: at least one."""

    volume_id: str
    counted: tuple[Counted, ...]

    @property
    def attachment(self) -> Attachment:
        """What it is connected by. A guest may start with fewer paths than its attach asked for."""
        return self.counted[0].attachment.model_copy(update={"require_all_paths": False})

    @property
    def who(self) -> str:
        """For people: the attachments and their instances."""
        seen = {each.attachment.attachment_id: each.attachment for each in self.counted}
        return ", ".join(
            f"attachment {attachment_id} of instance {attachment.instance_id}"
            for attachment_id, attachment in seen.items()
        )


def counted_on(book: Book) -> list[Counted]:
    """Attachments in place, and those of open operations, that promise their volume.

    An operation may have written the disk into a definition before its attachment got a row.
    Nobody counts on a quarantined volume, nor by a promise that is withdrawn."""
    held = [row for row in book.attachments() if row.promised]
    rows = [
        *((row.attachment, row.device) for row in held),
        *(
            (part.attachment, part.device)
            for record in book.open_operations()
            for part in record.parts
            if part.promised
        ),
    ]
    quarantined = book.quarantined()
    return [
        Counted(attachment, device)
        for attachment, device in rows
        if attachment is not None and device is not None and attachment.volume_id not in quarantined
    ]


def left_alone(book: Book) -> dict[str, str]:
    """{volume: why} of those that attachments have and nobody may use."""
    theirs = {row.attachment.volume_id for row in book.attachments()}
    return {
        volume_id: row["reason"]
        for volume_id, row in book.quarantined().items()
        if volume_id in theirs
    }


def lost_of(connectors: Connectors, counted: Iterable[Counted]) -> list[Lost]:
    """Whose device is not on this host now, or not where disks look for it, by volume."""
    volumes: dict[str, list[Counted]] = {}
    for each in counted:
        volumes.setdefault(each.attachment.volume_id, []).append(each)
    return [
        Lost(volume_id, tuple(those))
        for volume_id, those in volumes.items()
        if not connectors.in_place(those[0].device)
    ]


def prove_back(journal: Promises, connectors: Connectors, lost: Lost, device: Device) -> None:
    """It is the device that it was, for everybody who counts on it, and by the same name.

    Raises as prove; ConnectFailed if guests would not find it."""
    for each in lost.counted:
        prove(journal, connectors, each.attachment, device, besides="", earlier=each.device)
        if not connectors.names(each.device.path) & connectors.names(device.path):
            raise ConnectFailed(
                f"it is back as {device.path}, and its disks name {each.device.path}, which is "
                "not there: guests cannot start with it. See whether use_multipath or the rules "
                "of udev have changed, or detach the attachment and attach it again"
            )


def reconnect_unless_used(host: Host, lost: Lost) -> Device | None:
    """While the agent runs, beside its operations.

    None: nobody counts on it any more, or a guest runs with what it was: that guest has lost its
    disk, and a new device would not give it back.
    Raises as Connectors.connect, prove_back; Unavailable if libvirt does not answer."""
    attachment = lost.attachment
    with host.locks.volume(lost.volume_id):
        if not _is_wanted(host, lost):
            return None
        with host.locks.targets(attachment.connection.targets):
            device = host.connectors.connect(attachment)
    prove_back(host.journal, host.connectors, lost, device)
    return device


def _is_wanted(host: Host, lost: Lost) -> bool:
    """Asked under the volume's lock: who disconnects has withdrawn before he takes it."""
    device = lost.counted[0].device
    promised = {promise.attachment_id for promise in host.journal.promises(besides="")}
    return (
        all(each.attachment.attachment_id in promised for each in lost.counted)
        and host.journal.quarantined(lost.volume_id) is None
        and not any(use.domain.active for use in uses_of(host, lost.volume_id, device.path))
    )
