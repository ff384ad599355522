"""A volume that has become larger on the storage side: on this host, then in its guests."""

from dataclasses import dataclass
from typing import ClassVar

from agent.errors import ConnectFailed, UnknownAttachment, Unsupported, WrongDevice
from agent.guest.domain_xml import DiskFacts, parse_domain
from agent.guest.halves import Halves, halves
from agent.model.attachment import Attachment
from agent.model.device import Device
from agent.ports import Host
from agent.saga.plan import Commit, Lane, Learnt, Scene, Step
from agent.steps.guest_checks import refuse_job
from agent.steps.secret import header_bytes
from agent.steps.users import Use, uses_of
from agent.steps.volume import refuse_quarantined


@dataclass(frozen=True)
class ExtendVolume(Commit):
    """Every path of the device shows the new size. There is nothing to take back: what the host
    shows is what the storage has, and guests are told afterwards.

    ``attachments`` of one volume, at least one: any that is in place by now will do."""

    name: ClassVar[str] = "extend-volume"
    reached: ClassVar[str] = "has given this host the new size, of which guests are told,"
    attachments: tuple[Attachment, ...]
    size_bytes: int

    @property
    def lane(self) -> Lane:
        return self.attachments[0].connection.lane

    @property
    def targets(self) -> tuple[str, ...]:
        return self.attachments[0].connection.targets

    def apply(self, scene: Scene) -> Learnt:
        host, volume_id = scene.host, self.attachments[0].volume_id
        refuse_quarantined(host, volume_id)
        with host.locks.volume(volume_id):
            attachment, device = self._in_place(host)
            with host.locks.targets(attachment.connection.targets):
                found = host.connectors.extend(attachment, device)
            ours, strangers = self._running(host, found)
            self._refuse_small(attachment, found, is_used=bool(ours))
            return {
                "device": found.reveal(),
                "header_bytes": header_bytes(host, attachment, found),
                "warnings": [
                    f"{use} has the volume as well, by no attachment that stays: it is not told"
                    for use in strangers
                ],
            }

    def happened(self, scene: Scene) -> bool:
        """No guest has been told: whatever the host shows, the same request goes on from there."""
        return False

    def _in_place(self, host: Host) -> tuple[Attachment, Device]:
        for attachment in self.attachments:
            device = host.journal.device_of(attachment.attachment_id)
            if device is not None:
                return attachment, device
        raise UnknownAttachment(
            f"no attachment of volume {self.attachments[0].volume_id} is on this host any more; "
            "nothing was done"
        )

    def _running(self, host: Host, device: Device) -> tuple[list[Use], list[Use]]:
        """Disks of running guests: of those that this is about, and of others."""
        known = {attachment.instance_id for attachment in self.attachments}
        live = [
            use
            for use in uses_of(host, self.attachments[0].volume_id, device.path)
            if use.disk in (parse_domain(use.domain.live_xml).disks if use.domain.live_xml else ())
        ]
        ours = [use for use in live if use.domain.instance_id in known]
        return ours, [use for use in live if use not in ours]

    def _refuse_small(self, attachment: Attachment, found: Device, *, is_used: bool) -> None:
        kind = attachment.connection.source_type
        if kind == "network" or found.size_bytes >= self.size_bytes:
            return
        if kind == "block":
            raise ConnectFailed(
                f"{found.path} has {found.size_bytes} bytes by every path, and "
                f"{self.size_bytes} were asked for; nothing was done to any guest: see whether "
                "the storage side has extended the volume, then send it again"
            )
        if not is_used:
            raise Unsupported(
                f"{found.path} has {found.size_bytes} bytes, and only QEMU makes such a file "
                "larger, but no guest runs with it; nothing was done: start one, or let the "
                "storage side extend the file"
            )


@dataclass(frozen=True)
class GrowDisk(Step):
    """One running guest has all of the volume; never less than before. In that guest's turn.

    Optional: what it cannot take is told of its attachment, and the others are grown."""

    name: ClassVar[str] = "grow-disk"
    optional: ClassVar[bool] = True
    attachment: Attachment
    size_bytes: int

    @property
    def about(self) -> str:
        return self.attachment.attachment_id

    @property
    def turn(self) -> str:
        return self.attachment.instance_id

    @property
    def lane(self) -> Lane:
        """A file is looked at before, and its server may be silent."""
        connection = self.attachment.connection
        return connection.lane if connection.source_type == "file" else "guest"

    @property
    def targets(self) -> tuple[str, ...]:
        return () if self.lane == "guest" else self.attachment.connection.targets

    def apply(self, scene: Scene) -> Learnt:
        host, instance_id = scene.host, self.attachment.instance_id
        device = host.journal.device_of(self.attachment.attachment_id)
        if device is None:
            raise UnknownAttachment("it is not in place any more; its guest was not told")
        look = host.domains.look(instance_id)
        if look is None or not look.active:
            return {"guest_size_bytes": None}
        refuse_job(look)
        disk = _live_disk(host, halves(look), device)
        if self.attachment.read_only or disk.read_only:
            raise Unsupported(
                f"{disk.target_dev} is read-only, and QEMU resizes no such disk: the guest sees "
                "the new size when it is attached again, or starts anew"
            )
        if disk.slice_bytes is not None:
            raise Unsupported(
                f"{disk.target_dev} came by a swap to a larger volume, and QEMU resizes no such "
                "disk: the guest sees the new size when it starts anew, or is attached again"
            )
        wanted = max(self.size_bytes, self._file_bytes(host, device)) - scene.known["header_bytes"]
        known = host.domains.size(instance_id, disk.target_dev)
        if self.attachment.connection.source_type == "block":
            # Where QEMU has opened it as large its guest may not know: each resize tells it.
            host.domains.resize(instance_id, disk.target_dev, max(known, wanted))
        elif known < wanted:
            host.domains.resize(instance_id, disk.target_dev, wanted)
        return {"guest_size_bytes": host.domains.size(instance_id, disk.target_dev)}

    def _file_bytes(self, host: Host, device: Device) -> int:
        """Of a file that has become larger since, by a later request on another host: QEMU here
        does not know it, and would cut it off at what is asked."""
        connection = self.attachment.connection
        if connection.source_type != "file":
            return 0
        with (
            host.locks.volume(self.attachment.volume_id),
            host.locks.targets(connection.targets),
        ):
            return host.connectors.extend(self.attachment, device).size_bytes


def _live_disk(host: Host, guest: Halves, device: Device) -> DiskFacts:
    """By its source: alias and serial may be of a volume that it was, or of the caller's XML."""
    names = host.connectors.names
    wanted = names(device.path)
    for disk in guest.live.disks if guest.live else ():
        if disk.source is not None and wanted & names(disk.source):
            return disk
    raise WrongDevice(
        f"the running guest has no disk that is {device.path}; it was not told: see what it has "
        "('attachctl instance'), and attach the volume again"
    )
