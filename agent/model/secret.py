"""What QEMU must know and no XML may hold: a secret of libvirt's, named by its uuid."""

import uuid
from typing import Literal

from agent.model.value import Id, Uuid, Value

_NAMESPACE = uuid.UUID("6a4d7f0e-3b0c-4f7e-9c53-2a7c0f7be1d4")
"""Ours alone; changing it would orphan the secrets that definitions name."""

Usage = Literal["volume", "ceph", "iscsi"]

PREFIX = "attachment-agent"
"""What libvirt shows our secrets to be used for begins with it."""


class GuestSecret(Value):
    """Of one volume, for all guests of this host that share it; or for one ``instance_id`` alone.

    ``usage`` is libvirt's word for what it is used for: ``volume`` opens LUKS, ``ceph`` and
    ``iscsi`` tell a storage who asks."""

    usage: Usage
    volume_id: Id
    instance_id: Uuid | None = None

    @property
    def uuid(self) -> str:
        """Follows from the volume: a definition that names it stays right over every restart, and
        nobody has to remember it."""
        return str(uuid.uuid5(_NAMESPACE, f"{self.usage} {self._whose}"))

    @property
    def name(self) -> str:
        """What libvirt shows. Not the bare volume id: another program may have a secret for that,
        and libvirt keeps one for each usage."""
        return f"{PREFIX} {self._whose}"

    @property
    def _whose(self) -> str:
        return " ".join(one for one in (self.volume_id, self.instance_id) if one)
