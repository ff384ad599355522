"""After the pivot of a swap: the definition, the note and the size follow the running guest."""

from dataclasses import dataclass
from typing import Any, ClassVar

from agent.guest.disk_xml import swapped_xml
from agent.guest.halves import Halves, halves, live_disk
from agent.model.attachment import Attachment
from agent.saga.plan import Learnt, Parked, Scene, Step
from agent.steps.copy import payload_bytes
from agent.steps.disk import NoteInDomain
from agent.steps.users import is_at

RESTART_SECONDS = 60.0
"""Between two looks whether a guest was stopped; an event tells at once."""


@dataclass(frozen=True)
class RedefineDisk(Step):
    """The definition has the new volume, all of it; libvirt may have been killed in the pivot."""

    name: ClassVar[str] = "redefine-disk"
    attachment: Attachment

    @property
    def about(self) -> str:
        return self.attachment.attachment_id

    def apply(self, scene: Scene) -> Learnt | Parked:
        host, attachment = scene.host, self.attachment
        look = host.domains.look(attachment.instance_id)
        if look is None:
            return {"warnings": ["the domain has gone since"], "disk": _told(attachment, None)}
        guest, device = halves(look), scene.device
        assert device is not None
        defined = guest.defined_disk(attachment.alias)
        is_whole = defined is not None and defined.slice_bytes is None
        if defined is not None and not (is_whole and is_at(host, defined.source, device)):
            assert look.inactive_xml is not None
            xml = swapped_xml(look.inactive_xml, attachment.alias, attachment, device)
            assert xml is not None, "it was found just now"
            host.domains.redefine(attachment.instance_id, xml)
        live = guest.live_disk(attachment.alias)
        is_elsewhere = live is not None and not is_at(host, live.source, device)
        if live and is_elsewhere and host.copies.astray(look.instance_id, live.target_dev):
            return Parked(
                f"domain {look.name} to be shut off, and started anew: libvirtd died in the pivot, "
                f"and takes {live.target_dev} to be on the old volume for as long as it runs",
                wake_at=host.clock.now() + RESTART_SECONDS,
            )
        warnings = [
            "the guest was started anew from its old definition, and runs with the old volume: "
            "what it has written since the swap is on the new one; stop it, and start it again"
        ]
        return {
            "warnings": warnings if is_elsewhere else [],
            "disk": _told(attachment, guest),
        }


@dataclass(frozen=True)
class NoteNewOwner(NoteInDomain):
    """As in an attach; but until it is written the disk's serial says the old volume, and so it
    would be taken for a user of that."""

    optional: ClassVar[bool] = False


@dataclass(frozen=True)
class GrowCopied(Step):
    """The guest has all of a volume that is larger than the old one, where QEMU can do it."""

    name: ClassVar[str] = "grow-disk"
    optional: ClassVar[bool] = True
    attachment: Attachment

    @property
    def about(self) -> str:
        return self.attachment.attachment_id

    def apply(self, scene: Scene) -> Learnt:
        host, attachment, device = scene.host, self.attachment, scene.device
        assert device is not None
        disk = live_disk(host.domains.read(attachment.instance_id), attachment.alias)
        if disk is None or not is_at(host, disk.source, device):
            return {}
        has = host.domains.size(attachment.instance_id, disk.target_dev)
        wanted = payload_bytes(host, attachment, device)
        if has >= wanted:
            return {}
        if disk.slice_bytes is None and not disk.read_only:
            host.domains.resize(attachment.instance_id, disk.target_dev, wanted)
            return {}
        return {
            "warnings": [
                f"not-grown: the guest has {has} of the {wanted} bytes; it sees all of them when "
                "it starts anew, or when the volume is detached and attached again"
            ]
        }


def _told(attachment: Attachment, guest: Halves | None) -> dict[str, Any]:
    """The disk, as an attach tells it."""
    gone = {"target_dev": None, "serial": attachment.serial, "address": None}
    shown = None if guest is None else guest.shown(attachment.alias)
    return {**(shown or {**gone, "live": False, "persistent": False}), "alias": attachment.alias}
