"""A volume comes to this host and leaves it."""

from dataclasses import dataclass
from typing import ClassVar

from agent.errors import Busy, WrongDevice
from agent.model.attachment import Attachment
from agent.model.device import Device, Disconnected, conflict, same_device
from agent.model.guest_iscsi import is_guests_own
from agent.ports import Connectors, Host, Locks
from agent.saga.plan import Lane, Learnt, Scene, Step
from agent.steps.users import source_of, users


@dataclass(frozen=True)
class ConnectVolume(Step):
    """Make the volume a device of this host; taken back unless somebody else uses it by then."""

    name: ClassVar[str] = "connect-volume"
    promises: ClassVar[bool] = True
    attachment: Attachment

    @property
    def about(self) -> str:
        return self.attachment.attachment_id

    @property
    def lane(self) -> Lane:
        return self.attachment.connection.lane

    @property
    def targets(self) -> tuple[str, ...]:
        return self.attachment.connection.targets

    def beforehand(self, scene: Scene) -> Learnt:
        """Who is at the address, and should not be. Once connected it looks like what it should be,
        and has the cache of what it was."""
        host, volume_id = scene.host, self.attachment.volume_id
        if self.attachment.connection.lane != "scsi":
            return {}
        with host.locks.volume(volume_id):  # whoever is about to disconnect it has come to his end
            if host.journal.presence(volume_id).connected:
                return {}
            was = host.connectors.find(self.attachment.connection)
        return {} if was is None else {"was": was.reveal()}

    def apply(self, scene: Scene) -> Learnt:
        host, attachment = scene.host, self.attachment
        refuse_quarantined(host, attachment.volume_id)
        device = connect(host.locks, host.connectors, attachment)
        host.journal.reclaim(attachment.volume_id)
        device = device.model_copy(update={"doubts": device.doubts or _doubts(scene, device)})
        missing = [f"{device.degraded}; it is watched until complete"] if device.degraded else []
        return {"device": device.reveal(), "warnings": missing}

    def revert(self, scene: Scene) -> None:
        disconnect_unless_used(scene, self.attachment, scene.device)


@dataclass(frozen=True)
class DisconnectVolume(Step):
    """Take the volume off this host, unless another instance uses it."""

    name: ClassVar[str] = "disconnect-volume"
    attachment: Attachment

    @property
    def about(self) -> str:
        return self.attachment.attachment_id

    @property
    def lane(self) -> Lane:
        return self.attachment.connection.lane

    @property
    def targets(self) -> tuple[str, ...]:
        return self.attachment.connection.targets

    def apply(self, scene: Scene) -> Learnt:
        journal = scene.host.journal
        device = journal.device_of(self.attachment.attachment_id) or scene.device
        journal.withdraw(self.attachment.attachment_id)
        return disconnect_unless_used(scene, self.attachment, device)


@dataclass(frozen=True)
class LookForUsers(Step):
    """Of an attachment that has ended: is its volume still in use here, or here at all?

    Changes nothing: how the volume is reached was forgotten with the attachment."""

    name: ClassVar[str] = "look-for-users"
    only_looks: ClassVar[bool] = True
    attachment_id: str
    volume_id: str
    storage: Lane

    @property
    def lane(self) -> Lane:
        return self.storage

    @property
    def about(self) -> str:
        return self.attachment_id

    def apply(self, scene: Scene) -> Learnt:
        host, volume_id, asks = scene.host, self.volume_id, scene.operation_id
        with host.locks.volume(volume_id):
            stays = _why_quarantined_stays(host, volume_id)
            if is_guests_own(scene.known.get("source")) and not stays:
                return {"disconnected": True}
            is_used = bool(users(host, volume_id, scene.known.get("source"), besides=asks))
            if stays or is_used or host.journal.in_motion(volume_id, besides=asks):
                return {"disconnected": False, "warnings": stays}
            left = host.journal.presence(volume_id)
            may_be_here = left.device is None or host.connectors.present(left.device)
        if left.connected and may_be_here:
            unproven = (
                f"nobody here uses volume {volume_id}, and no disconnect of it was proven: send "
                "the whole attachment to have it disconnected"
            )
            return {"disconnected": False, "warnings": [unproven]}
        return {"disconnected": True, "awaiting_unmap": left.awaiting_unmap and may_be_here}


def connect(locks: Locks, connectors: Connectors, attachment: Attachment) -> Device:
    """A storage call of its own, under its locks; who may make it is asked before.

    Raises as Connectors.connect."""
    with locks.volume(attachment.volume_id), locks.targets(attachment.connection.targets):
        return connectors.connect(attachment)


def disconnect_unless_used(scene: Scene, attachment: Attachment, device: Device | None) -> Learnt:
    """The caller has withdrawn its promise, durably: so the last of several to ask disconnects.

    os-brick logs out of a target when its last device goes, but cannot know that two guests
    share one device. Of what it could not read, which an older agent took, nothing ever came.
    """
    host, volume_id = scene.host, attachment.volume_id
    never_came = device is None and any(attachment.connection.data.flaws())
    with host.locks.volume(volume_id):
        stays = _why_quarantined_stays(host, volume_id)
        if stays:
            return {"disconnected": False, "warnings": stays}
        found = None if never_came else _found(host, attachment, device)
        others = _others(host, volume_id, found)
        source = source_of(scene, attachment, found)
        # What a guest reaches by itself nobody shares with it, and each is mapped by itself.
        is_shared = attachment.initiator == "host" and not others
        if is_shared and users(host, volume_id, source, besides=scene.operation_id):
            return {"disconnected": False}
        gone = Disconnected()
        if not (never_came or others):
            with host.locks.targets(attachment.connection.targets):
                # Who had the lock before may have brought another volume to the same address.
                found = _found(host, attachment, device)
                others = _others(host, volume_id, found)
                if not others:
                    _refuse_unclear(host, attachment, device, found)
                    gone = host.connectors.disconnect(attachment, found)
        host.journal.disconnected(volume_id)
        if others:
            return {"disconnected": True, "warnings": others}
        if gone.awaiting_unmap and found is not None:
            host.journal.leave_behind(volume_id, found)
    return {"disconnected": True, "awaiting_unmap": gone.awaiting_unmap}


def _doubts(scene: Scene, device: Device) -> tuple[str, ...]:
    """What an agent that died since then has seen."""
    if scene.device is not None and scene.device.doubts:
        return scene.device.doubts
    was = Device.model_validate(scene.known["was"]) if "was" in scene.known else None
    if was is None or not conflict(was.identity, device.identity):
        return ()
    return (f"{was.path} was at its address before, as {was.shown}",)


def _found(host: Host, attachment: Attachment, device: Device | None) -> Device | None:
    return host.connectors.find(attachment.connection) if device is None else device


def _refuse_unclear(
    host: Host, attachment: Attachment, device: Device | None, found: Device | None
) -> None:
    """Raises Busy: whose it is that came to the address is not written down yet."""
    if device is not None or found is None:
        return
    ours = set(attachment.connection.targets)
    for promise in host.journal.promises(besides=""):
        if promise.volume_id != attachment.volume_id and not ours.isdisjoint(promise.targets):
            raise Busy(
                f"{found.path} is at the address of volume {attachment.volume_id}, and may be that "
                f"of volume {promise.volume_id}, which is being connected: looked at again when "
                "that has ended"
            )


def _others(host: Host, volume_id: str, device: Device | None) -> list[str]:
    """As warnings: who else's the device is. It is at the address of our volume by a number that
    was given away again, or never became ours: not to be touched."""
    if device is None:
        return []
    theirs = {
        promise.volume_id
        for promise in host.journal.promises(besides="")
        if promise.volume_id != volume_id
        and promise.device is not None
        and same_device(promise.device.identity, device.identity)
    }
    return [f"{device.path} is the device of volume {other}: it stays" for other in sorted(theirs)]


def _why_quarantined_stays(host: Host, volume_id: str) -> list[str]:
    """As warnings; none where the volume is not quarantined."""
    if host.journal.quarantined(volume_id) is None:
        return []
    return [f"volume {volume_id} is quarantined: its device stays on this host"]


def refuse_quarantined(host: Host, volume_id: str) -> None:
    reason = host.journal.quarantined(volume_id)
    if reason is not None:
        raise WrongDevice(
            f"volume {volume_id} is quarantined on this host: {reason}; look at the device, then "
            f"'attachctl quarantine release {volume_id}'"
        )
