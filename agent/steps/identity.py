"""The device is proven to be the volume before a guest may see it (design §6)."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from agent.errors import ReadOnlyDevice, Unsupported, WrongDevice
from agent.model.attachment import Attachment
from agent.model.device import Device, same_identity
from agent.ports import Host
from agent.saga.plan import Learnt, Scene, Step


@dataclass(frozen=True)
class VerifyIdentity(Step):
    """A mismatch is quarantined before it is raised: nothing plugs or disconnects it after."""

    name: ClassVar[str] = "verify-identity"
    attachment: Attachment

    def apply(self, scene: Scene) -> Learnt:
        device = scene.device
        assert device is not None, "connect-volume comes first"
        wrong = [
            *_unexpected(self.attachment, device),
            *_known_otherwise(scene.host, self.attachment, device, scene.operation_id),
        ]
        if wrong:
            reason = f"{device.path}: {'; '.join(wrong)}"
            scene.host.journal.quarantine(self.attachment.volume_id, device, reason)
            raise WrongDevice(
                f"the device is not volume {self.attachment.volume_id}: {reason}; it was not "
                "plugged and stays here, quarantined: look at it, then 'attachctl quarantine "
                f"release {self.attachment.volume_id}'"
            )
        if device.read_only and not self.attachment.read_only:
            raise ReadOnlyDevice(
                f"{device.path} cannot be written, and the attachment is rw: attach it with "
                "access_mode ro, or make the volume writable"
            )
        if self.attachment.disk.type == "lun" and device.scsi is False:
            raise Unsupported(
                f"disk.type lun: {device.path} takes no SCSI commands, and the guest could not "
                "start with it: use disk.type disk"
            )
        return {}


def _unexpected(attachment: Attachment, device: Device) -> Iterator[str]:
    """What the request said that the device does not show."""
    if attachment.identity is not None:
        yield from same_identity(attachment.identity.expected(), device.identity)
    if attachment.size_bytes is not None and attachment.size_bytes != device.size_bytes:
        yield f"size is {device.size_bytes} bytes, expected {attachment.size_bytes}"


def _known_otherwise(
    host: Host, attachment: Attachment, device: Device, operation_id: str
) -> Iterator[str]:
    """No two volumes may be one device, and a connected volume may not become another one."""
    shown = set(device.identity.items())
    for promise in host.journal.promises(besides=operation_id):
        if promise.device is None:
            continue
        known = set(promise.device.identity.items())
        if promise.volume_id != attachment.volume_id and shown & known:
            yield f"volume {promise.volume_id} is the same device"
        if (
            promise.volume_id == attachment.volume_id
            and not shown & known
            and host.connectors.present(promise.device)
        ):
            yield f"the volume is connected here as another device, {promise.device.path}"
