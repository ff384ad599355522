"""Volumes for an instance whose domain somebody else defines: before it is there, or after."""

from dataclasses import dataclass
from typing import Any, ClassVar

from agent.errors import Busy
from agent.guest.disk_xml import disk_xml
from agent.guest.domain_xml import DiskFacts
from agent.guest.halves import halves
from agent.guest.placement import Place, name_targets
from agent.model.attachment import Attachment
from agent.ports import Host
from agent.saga.plan import Commit, Learnt, Scene, Step
from agent.steps.guest_checks import (
    forced_caches,
    refuse_another,
    refuse_job,
    refuse_missing_abilities,
)
from agent.steps.users import Everyone, own_use, refuse_conflicts


@dataclass(frozen=True)
class CheckVolumes(Step):
    """Refuse what others here exclude. Changes nothing; the instance's domain need not be there."""

    name: ClassVar[str] = "check-volumes"
    only_looks: ClassVar[bool] = True
    instance_id: str
    attachments: tuple[Attachment, ...]

    def apply(self, scene: Scene) -> Learnt:
        host = scene.host
        look = host.domains.look(self.instance_id)
        if look is not None:
            refuse_job(look)
        everyone = Everyone.on(host)
        for attachment in self.attachments:
            refuse_missing_abilities(host, attachment)
            refuse_conflicts(everyone, attachment, attachment.connection.known_source)
        return {"warnings": forced_caches(self.attachments)}


@dataclass(frozen=True)
class HandOver(Commit):
    """The disks for the instance's domain, as XML. From the closing of the operation on the
    attachments promise; until then all of it is taken back."""

    name: ClassVar[str] = "hand-over"
    attachments: tuple[Attachment, ...]

    def apply(self, scene: Scene) -> Learnt:
        targets = name_targets([attachment.disk for attachment in self.attachments])
        everyone = Everyone.on(scene.host)
        return {
            "disks": {
                attachment.attachment_id: _disk(scene, everyone, attachment, target_dev)
                for attachment, target_dev in zip(self.attachments, targets, strict=True)
            }
        }

    def happened(self, scene: Scene) -> bool:
        """Nobody but the journal tells, and it would have closed the operation."""
        return False


@dataclass(frozen=True)
class CheckInstance(Step):
    """Refuse to take anything from under a running guest. Changes nothing.

    ``disks`` are (attachment_id, alias, attachment); None for one that has ended."""

    name: ClassVar[str] = "check-instance"
    only_looks: ClassVar[bool] = True
    instance_id: str
    disks: tuple[tuple[str, str, Attachment | None], ...]

    def apply(self, scene: Scene) -> Learnt:
        look = scene.host.domains.look(self.instance_id)
        if look is None:
            return {}
        refuse_job(look)
        guest = halves(look)
        for attachment_id, known_as, attachment in self.disks:
            alias = guest.alias_of(attachment_id, known_as)
            live, defined = guest.live_disk(alias), guest.defined_disk(alias)
            if live is not None:
                raise _runs_with(live)
            if look.active and attachment is not None:
                refuse_running_user(scene.host, attachment)
            if defined is not None:
                refuse_another(scene.host, defined, attachment)
        return {}


@dataclass(frozen=True)
class WithdrawPromises(Commit):
    """The attachments count no longer as users of their volumes. Nobody can tell afterwards what
    was disconnected since, so there is no way back."""

    name: ClassVar[str] = "withdraw-promises"
    irrevocable: ClassVar[bool] = True
    instance_id: str
    attachment_ids: tuple[str, ...]

    def apply(self, scene: Scene) -> Learnt:
        for attachment_id in self.attachment_ids:
            scene.host.journal.withdraw(attachment_id)
        return {"instance_present": scene.host.domains.look(self.instance_id) is not None}


def refuse_running_user(host: Host, attachment: Attachment) -> None:
    use = own_use(host, attachment)
    if use is not None:
        raise _runs_with(use.disk)


def _runs_with(disk: DiskFacts) -> Busy:
    return Busy(
        f"the instance runs with the volume as {disk.target_dev}: detach that disk, or stop the "
        "instance first"
    )


def _disk(
    scene: Scene, everyone: Everyone, attachment: Attachment, target_dev: str
) -> dict[str, Any]:
    device = scene.device_of(attachment.attachment_id)
    assert device is not None, "connect-volume comes first"
    refuse_conflicts(everyone, attachment, device.path)
    return {
        "disk": {
            "target_dev": target_dev,
            "alias": attachment.alias,
            "serial": attachment.serial,
            "address": None,
            "live": False,
            "persistent": False,
        },
        "disk_xml": disk_xml(attachment, device, Place(target_dev, {})),
    }
