"""iSCSI by QEMU's own initiator: every guest is an initiator of its own, the host has no session.

So each guest has its own nexus with the target, and reservations keep guests of one host apart.
"""

from typing import ClassVar, Literal

from pydantic import StrictStr

from agent.model.connection import Connection, IscsiConnection, IscsiData, Lane

PREFIX = "iqn.2008-11.org.linux-kvm"
"""QEMU's own, and what it would call a guest by itself (block/iscsi.c, get_initiator_name)."""

SCHEME = "iscsi:"
"""A source that begins with it is reached by a guest's own initiator."""

ISCSI_PORT = "3260"


def initiator_name(instance_id: str) -> str:
    """Follows from the instance: the same on every host, after every restart."""
    return f"{PREFIX}:{instance_id}"


def source_name(target: str, initiator: str | None) -> str:
    """What a disk is known by; ``target`` is IQN/LUN. The same LUN number may be another volume
    to another initiator."""
    return f"{SCHEME}{target}?initiator={initiator}"


def is_guests_own(source: str | None) -> bool:
    return source is not None and source.startswith(SCHEME)


class GuestIscsiConnection(Connection):
    """A network disk, by the first portal that the request names; os-brick is not called."""

    driver_volume_type: Literal["iscsi"]
    data: IscsiData
    initiator: StrictStr

    lane: ClassVar[Lane] = "other"

    @classmethod
    def of(cls, data: IscsiData, instance_id: str) -> "GuestIscsiConnection":
        name = initiator_name(instance_id)
        return cls(driver_volume_type="iscsi", data=data, initiator=name)

    @property
    def _host_way(self) -> IscsiConnection:
        return IscsiConnection(driver_volume_type="iscsi", data=self.data)

    @property
    def targets(self) -> tuple[str, ...]:
        return self._host_way.targets

    @property
    def target(self) -> str:
        """IQN/LUN, as QEMU and libvirt name it."""
        _, iqn, lun = self._host_way.addresses[0]
        return f"{iqn}/{lun}"

    @property
    def portal(self) -> tuple[str, str]:
        """Address (of IPv6 without its brackets) and port."""
        portal, _, _ = self._host_way.addresses[0]
        address, colon, port = portal.rpartition(":")
        return (address, port) if colon else (portal, ISCSI_PORT)

    @property
    def known_source(self) -> str:
        return source_name(self.target, self.initiator)

    @property
    def source_type(self) -> Literal["block", "file", "network"]:
        return "network"

    @property
    def user(self) -> str | None:
        """Of CHAP; None: the target asks for none."""
        return self.data.auth_username if self.data.auth_method == "CHAP" else None

    @property
    def lacks_credentials(self) -> bool:
        return self.data.auth_method == "CHAP" and not self.data.has_credentials
