"""What holds back a disk: two halves, the running guest and its definition."""

import re
from dataclasses import dataclass
from typing import ClassVar

from agent.errors import WrongDevice
from agent.guest.domain_xml import DiskFacts
from agent.guest.halves import Halves, halves
from agent.model.attachment import Attachment
from agent.model.disk import IoTune
from agent.ports import Host
from agent.saga.plan import Commit, Learnt, Scene, Step
from agent.steps.guest_checks import find_guest, halves_at_rest, refuse_another, refuse_job

Limits = dict[str, int | str]


@dataclass(frozen=True)
class LimitDisk(Commit):
    """The running guest's disk has the limits, or that in the definition of one that is shut off.

    QEMU takes all of them at once or none, so there is nothing to take back."""

    name: ClassVar[str] = "limit-disk"
    attachment: Attachment
    alias: str
    iotune: IoTune

    @property
    def about(self) -> str:
        return self.attachment.attachment_id

    def apply(self, scene: Scene) -> Learnt:
        guest = find_guest(scene.host, self.attachment.instance_id)
        disk = guest.first_disk(self.alias)
        if disk is None:
            half = "running guest" if guest.look.active else "definition"
            raise WrongDevice(
                f"the {half} has no disk {self.alias}: attach it again with the iotune that it "
                "shall have"
            )
        refuse_another(scene.host, disk, self.attachment)
        change = scene.host.domains.limit
        if not guest.look.active:
            change = scene.host.domains.define_limits
        change(
            self.attachment.instance_id,
            disk.target_dev,
            self.iotune.complete(_group_of(self.alias)),
        )
        return {"limits": _in_force(scene.host, guest, disk)}

    def happened(self, scene: Scene) -> bool:
        look = scene.host.domains.look(self.attachment.instance_id)
        if look is None:
            return False
        guest = halves_at_rest(look)
        disk = guest.first_disk(self.alias)
        return disk is not None and not self.iotune.not_in(_in_force(scene.host, guest, disk))


@dataclass(frozen=True)
class LimitOtherHalf(Step):
    """Every half that has the disk by now has the limits; asked of QEMU, and of the definition."""

    name: ClassVar[str] = "limit-other-half"
    attachment: Attachment
    alias: str
    iotune: IoTune

    @property
    def about(self) -> str:
        return self.attachment.attachment_id

    def apply(self, scene: Scene) -> Learnt:
        domains, instance_id = scene.host.domains, self.attachment.instance_id
        look = domains.look(instance_id)
        if look is None:
            return {"warnings": ["the domain has gone since"]}
        refuse_job(look)
        guest = halves(look)
        wanted = self.iotune.complete(_group_of(self.alias))
        live, defined = guest.live_disk(self.alias), guest.defined_disk(self.alias)
        if live and self.iotune.not_in(domains.limits(instance_id, live.target_dev)):
            domains.limit(instance_id, live.target_dev, wanted)
        if defined and self.iotune.not_in(domains.defined_limits(instance_id, defined.target_dev)):
            domains.define_limits(instance_id, defined.target_dev, wanted)
        disk = guest.first_disk(self.alias)
        if disk is None:
            return {"warnings": ["the disk has gone since"]}
        return {"limits": _in_force(scene.host, guest, disk)}


def _group_of(alias: str) -> str:
    """A name that QEMU takes, also of a disk without an alias (model.mark)."""
    return re.sub(r"[^A-Za-z0-9_.-]", "-", alias)


def _in_force(host: Host, guest: Halves, disk: DiskFacts) -> Limits:
    """By QEMU's word where it runs, else by the definition's. Every name is there."""
    domains, instance_id = host.domains, guest.look.instance_id
    ask = domains.limits if guest.look.active else domains.defined_limits
    return {**IoTune().complete(""), "group_name": "", **ask(instance_id, disk.target_dev)}
