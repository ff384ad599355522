"""The device is proven to be the volume before a guest may see it (docs/identity.rst)."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from agent.errors import ReadOnlyDevice, Unsupported, WrongDevice
from agent.model.attachment import Attachment
from agent.model.device import Device, same_device, same_identity
from agent.ports import Connectors, Promises
from agent.saga.plan import Learnt, Scene, Step


@dataclass(frozen=True)
class VerifyIdentity(Step):
    """A mismatch is quarantined before it is raised: nothing plugs or disconnects it after."""

    name: ClassVar[str] = "verify-identity"
    attachment: Attachment

    @property
    def about(self) -> str:
        return self.attachment.attachment_id

    def apply(self, scene: Scene) -> Learnt:
        device = scene.device
        assert device is not None, "connect-volume comes first"
        host, operation_id = scene.host, scene.operation_id
        known = host.journal.device_of(self.attachment.attachment_id)
        is_known = known is not None and same_device(known.identity, device.identity)
        earlier = known if is_known else None
        asked = host.journal, host.connectors, self.attachment, device
        _refuse_wrong_request(*asked, besides=operation_id, earlier=earlier)
        prove(*asked, besides=operation_id, earlier=earlier)
        return {}


def _refuse_wrong_request(
    journal: Promises,
    connectors: Connectors,
    attachment: Attachment,
    device: Device,
    *,
    besides: str,
    earlier: Device | None,
) -> None:
    """Raises WrongDevice: the device is the volume by what others were given, and it is the request
    that says otherwise. They keep it, without a quarantine."""
    asked = list(_not_as_asked(attachment, device, earlier))
    if not asked:
        return
    wrong = why_another(journal, connectors, attachment, device, besides=besides, earlier=earlier)
    if wrong == asked and _is_counted_on(journal, attachment, device, besides):
        raise WrongDevice(
            f"others count on volume {attachment.volume_id} here, as {device.shown} of "
            f"{device.size_bytes} bytes, which the request says otherwise: {'; '.join(asked)}; it "
            "was not plugged, and stays as it is for them: see identity and size_bytes"
        )


def prove(
    journal: Promises,
    connectors: Connectors,
    attachment: Attachment,
    device: Device,
    *,
    besides: str,
    earlier: Device | None = None,
) -> None:
    """The device may be used for the attachment; ``besides`` is the operation that asks.

    ``earlier`` is what connect found for an attachment that has not ended since: the device must
    still be that one. It may have grown. Raises WrongDevice, once the device is quarantined;
    ReadOnlyDevice, Unsupported."""
    wrong = why_another(journal, connectors, attachment, device, besides=besides, earlier=earlier)
    if wrong:
        reason = f"{device.path}: {'; '.join(wrong)}"
        journal.quarantine(attachment.volume_id, device, reason)
        raise WrongDevice(
            f"the device is not volume {attachment.volume_id}: {reason}; it was not "
            "plugged and stays here, quarantined: look at it, then 'attachctl quarantine "
            f"release {attachment.volume_id}'"
        )
    refuse_unfit(attachment, device)


def why_another(
    journal: Promises,
    connectors: Connectors,
    attachment: Attachment,
    device: Device,
    *,
    besides: str,
    earlier: Device | None = None,
) -> list[str]:
    """Why the device is not the volume, in words; empty: it is.  As prove; quarantines nothing."""
    return [
        *_not_as_seen(device, earlier),
        *_not_as_asked(attachment, device, earlier),
        *_known_otherwise(journal, connectors, attachment, device, besides),
    ]


def refuse_unfit(attachment: Attachment, device: Device) -> None:
    """The device is the volume, and cannot be used as is asked."""
    if device.read_only and not attachment.read_only:
        raise ReadOnlyDevice(
            f"{device.path} cannot be written, and the attachment is rw: attach it with "
            "access_mode ro, or make the volume writable"
        )
    if attachment.disk.type == "lun" and device.scsi is False:
        raise Unsupported(
            f"disk.type lun: {device.path} takes no SCSI commands, and the guest could not "
            "start with it: use disk.type disk"
        )


def _is_counted_on(journal: Promises, attachment: Attachment, device: Device, besides: str) -> bool:
    """Is it known to be the volume, by what is in place? What is being attached is not proven."""
    return any(
        promise.volume_id == attachment.volume_id
        and promise.operation_id is None
        and promise.device is not None
        and same_device(promise.device.identity, device.identity)
        for promise in journal.promises(besides)
    )


def _not_as_seen(device: Device, earlier: Device | None) -> Iterator[str]:
    """When it was connected, now or before."""
    yield from device.doubts
    if earlier is not None and not same_device(earlier.identity, device.identity):
        yield f"it is {device.shown}, and was {earlier.shown} before"


def _not_as_asked(attachment: Attachment, device: Device, earlier: Device | None) -> Iterator[str]:
    if attachment.identity is not None:
        yield from same_identity(attachment.identity.expected(), device.identity)
    wanted, found = attachment.size_bytes, device.size_bytes
    if wanted is not None and (found < wanted or (found > wanted and earlier is None)):
        yield f"size is {found} bytes, expected {wanted}"


def _known_otherwise(
    journal: Promises,
    connectors: Connectors,
    attachment: Attachment,
    device: Device,
    besides: str,
) -> Iterator[str]:
    """No two volumes may be one device, and a connected volume may not become another one."""
    for promise in journal.promises(besides):
        if promise.device is None:
            continue
        is_same = same_device(promise.device.identity, device.identity)
        if promise.volume_id != attachment.volume_id and is_same:
            yield f"volume {promise.volume_id} is the same device"
        if (
            promise.volume_id == attachment.volume_id
            and not is_same
            and device.is_here  # else every guest has an address of its own
            and connectors.present(promise.device)
        ):
            yield f"the volume is connected here as another device, {promise.device.path}"
