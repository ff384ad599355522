"""A volume is here for a guest that is to come, for as long as its lease says."""

from dataclasses import dataclass
from typing import ClassVar

from agent.errors import Busy, TooLate, Unsupported
from agent.guest.disk_xml import host_side_xml
from agent.model.attachment import Attachment
from agent.ports import INCOMING_MIGRATION
from agent.saga.plan import Commit, Learnt, Parked, Scene, Step
from agent.steps.disk import JOB_SECONDS
from agent.steps.instance import CheckVolumes
from agent.steps.users import Everyone, own_use, refuse_conflicts
from agent.steps.volume import DisconnectVolume


@dataclass(frozen=True)
class CheckArrival(Step):
    """Refuse what could not come, or not run here. Changes nothing."""

    name: ClassVar[str] = "check-arrival"
    only_looks: ClassVar[bool] = True
    instance_id: str
    attachments: tuple[Attachment, ...]

    def apply(self, scene: Scene) -> Learnt:
        look = scene.host.domains.look(self.instance_id)
        if look is not None:
            state = look.job or look.state
            raise Busy(f"the instance is on this host already ({state}): it cannot come here")
        for attachment in self.attachments:
            if attachment.reserves:
                raise Unsupported(
                    f"attachment {attachment.attachment_id}: a disk with reservations does not "
                    "migrate: the target would keep them for the host that it leaves"
                )
        return CheckVolumes(self.instance_id, self.attachments).apply(scene)


@dataclass(frozen=True)
class HandOverParts(Commit):
    """What of each disk is another on this host, as XML. From the closing of the operation on the
    attachments promise, for as long as their leases last; until then all of it is taken back.

    ``replaces``: {attachment: the one by which the instance has the volume now}."""

    name: ClassVar[str] = "hand-over-parts"
    attachments: tuple[Attachment, ...]
    replaces: dict[str, str]

    def apply(self, scene: Scene) -> Learnt:
        parts, everyone = {}, Everyone.on(scene.host)
        for attachment in self.attachments:
            device = scene.device_of(attachment.attachment_id)
            assert device is not None, "connect-volume comes first"
            refuse_conflicts(everyone, attachment, device.path)
            replaced = self.replaces[attachment.attachment_id]
            parts[replaced] = host_side_xml(attachment, device)
        return {"parts": parts}

    def happened(self, scene: Scene) -> bool:
        """Nobody but the journal tells, and it would have closed the operation."""
        return False


@dataclass(frozen=True)
class CheckGone(Step):
    """Refuse to take anything from a guest that has come, and wait while it comes.

    ``called_off``: operations that were cancelled for it, and have ended."""

    name: ClassVar[str] = "check-gone"
    only_looks: ClassVar[bool] = True
    attachments: tuple[Attachment, ...]
    called_off: tuple[str, ...]

    def apply(self, scene: Scene) -> Learnt | Parked:
        host = scene.host
        for operation_id in self.called_off:
            if host.journal.has_moved(operation_id):
                raise TooLate(
                    f"the instance had gone before migrate {operation_id} could be cancelled; "
                    "nothing was touched: migrate it back"
                )
        for attachment in self.attachments:
            look = host.domains.look(attachment.instance_id)
            if look is None:
                continue
            if look.job == INCOMING_MIGRATION:
                later = host.clock.now() + JOB_SECONDS
                return Parked(
                    f"the end of the {look.job} of domain {look.name}: cancel it where it comes "
                    "from",
                    later,
                )
            use = own_use(host, attachment)
            if use is not None:
                raise TooLate(
                    f"the instance has come to this host, and has the volume as "
                    f"{use.disk.target_dev}; nothing was touched: migrate it back, or detach"
                )
        return {}


@dataclass(frozen=True)
class EndLeases(Commit):
    """The attachments count no longer as users of their volumes. Nobody can tell afterwards what
    was disconnected since, so there is no way back."""

    name: ClassVar[str] = "end-leases"
    irrevocable: ClassVar[bool] = True
    attachments: tuple[Attachment, ...]

    def apply(self, scene: Scene) -> Learnt:
        for attachment in self.attachments:
            scene.host.journal.withdraw(attachment.attachment_id)
        return {}


@dataclass(frozen=True)
class GiveBack(DisconnectVolume):
    """Its instance may have come meanwhile, by a migrate that had begun before the other host could
    know: then it has the volume, and the attachment stays."""

    def apply(self, scene: Scene) -> Learnt:
        learnt = super().apply(scene)
        if learnt["disconnected"] or own_use(scene.host, self.attachment) is None:
            return learnt
        warning = (
            "the instance has come to this host meanwhile, and has volume "
            f"{self.attachment.volume_id}: the attachment stays; migrate it back, or detach"
        )
        return {**learnt, "has_come": True, "warnings": [*learnt.get("warnings", ()), warning]}
