"""Secrets that libvirt tells QEMU: there before the disk, gone with the volume's last user.

A volume's secret belongs to all guests of this host that share it. Who they are is asked of
libvirt and the journal each time, as for the volume itself: a count would be wrong after the first
crash.
"""

from dataclasses import dataclass
from typing import ClassVar

from agent.errors import Invalid, NotEncrypted, PassphraseLost, Unsupported
from agent.model.attachment import Attachment, Encryption
from agent.model.connection import Connection, RbdConnection
from agent.model.device import Device
from agent.model.secret import GuestSecret
from agent.ports import LUKS2, Host
from agent.saga.plan import Lane, Learnt, Scene, Step
from agent.steps.users import source_of, users

LUKS_MAGIC = b"LUKS\xba\xbe"
"""The first bytes of a LUKS header; the version follows, two bytes, big-endian (both versions:
https://gitlab.com/cryptsetup/cryptsetup/-/wikis/LUKS-standard/on-disk-format.pdf)."""

VERSIONS = {"luks": 1, "luks2": 2}

LUKS_PAYLOAD_OFFSET, LUKS_SECTOR_BYTES = slice(104, 108), 512
"""Where a header of version 1 says behind how many sectors the payload begins, big-endian."""


@dataclass(frozen=True)
class CheckSecrets(Step):
    """Can this host open the volume, and are its secrets to be had? Changes nothing."""

    name: ClassVar[str] = "check-secrets"
    only_looks: ClassVar[bool] = True
    attachment: Attachment

    @property
    def about(self) -> str:
        return self.attachment.attachment_id

    def apply(self, scene: Scene) -> Learnt:
        host, encryption = scene.host, self.attachment.encryption
        if encryption is not None and encryption.format == "luks2":
            _refuse_luks2(host)
        for secret in self.attachment.secrets:
            host.secrets.has(secret.uuid)  # does libvirt keep secrets at all?
            if _value(host, self.attachment, secret) is None:
                raise _lost()
        _refuse_unknown_secret(host, self.attachment.connection)
        return {}


@dataclass(frozen=True)
class VerifyEncryption(Step):
    """The device begins with the LUKS header that is asked for; nothing is ever formatted here.

    One that does not is quarantined before that is raised: it may be another volume, or one whose
    guest wrote to it in the clear."""

    name: ClassVar[str] = "verify-encryption"
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
        host, attachment, device = scene.host, self.attachment, scene.device
        assert device is not None, "connect-volume comes first"
        assert attachment.encryption is not None
        wrong = _wrong_header(host, attachment.encryption, device)
        if wrong:
            reason = f"{device.path} {wrong}"
            host.journal.quarantine(attachment.volume_id, device, reason)
            raise NotEncrypted(
                f"volume {attachment.volume_id} is not encrypted as asked: {reason}; it was not "
                "plugged and stays here, quarantined: look at it, then 'attachctl quarantine "
                f"release {attachment.volume_id}'"
            )
        return {}


@dataclass(frozen=True)
class MakeSecrets(Step):
    """libvirt knows what QEMU will need; taken back unless somebody else needs it by then."""

    name: ClassVar[str] = "make-secrets"
    attachment: Attachment

    @property
    def about(self) -> str:
        return self.attachment.attachment_id

    def apply(self, scene: Scene) -> Learnt:
        make_secrets(scene.host, self.attachment)
        return {}

    def revert(self, scene: Scene) -> None:
        _drop_unless_used(scene, self.attachment)


@dataclass(frozen=True)
class DropSecrets(Step):
    """After the volume has lost this user: gone, unless another instance needs them."""

    name: ClassVar[str] = "drop-secrets"
    attachment: Attachment

    @property
    def about(self) -> str:
        return self.attachment.attachment_id

    def apply(self, scene: Scene) -> Learnt:
        _drop_unless_used(scene, self.attachment)
        return {}


def make_secrets(host: Host, attachment: Attachment) -> None:
    """Anew each time: they vanish with libvirtd, and one whose value is missing looks the same.

    Raises PassphraseLost, Invalid, Unsupported."""
    for secret in attachment.secrets:
        value = _value(host, attachment, secret)
        if value is not None:
            host.secrets.make(secret, value)
        elif not host.secrets.has(secret.uuid):
            raise _lost()


def are_secrets_lost(host: Host, attachment: Attachment) -> bool:
    """libvirt has forgotten one, and nobody can make it anew."""
    return any(
        _value(host, attachment, secret) is None and not host.secrets.has(secret.uuid)
        for secret in attachment.secrets
    )


def remake_secrets(host: Host, attachment: Attachment) -> bool:
    """Of an attachment in place: what libvirt has forgotten. False: nothing.

    Raises PassphraseLost, Invalid, Unsupported."""
    if all(host.secrets.has(secret.uuid) for secret in attachment.secrets):
        return False
    with host.locks.volume(attachment.volume_id):  # whoever drops them asks under it who is left
        is_counted = any(
            promise.attachment_id == attachment.attachment_id
            for promise in host.journal.promises(besides="")
        )
        if not is_counted or all(host.secrets.has(secret.uuid) for secret in attachment.secrets):
            return False
        make_secrets(host, attachment)
        return True


def _value(host: Host, attachment: Attachment, secret: GuestSecret) -> bytes | None:
    """None: it came by value, and nobody knows it any more."""
    if secret.usage == "ceph":
        assert isinstance(attachment.connection, RbdConnection)
        return attachment.connection.data.key
    if secret.usage == "iscsi":
        password = attachment.connection.data.auth_password
        assert password is not None, "checked when parsed"
        return password.get_secret_value().encode()
    encryption = attachment.encryption
    assert secret.usage == "volume"
    assert encryption is not None
    if encryption.secret_file is not None:
        return host.secrets.key_in(encryption.secret_file)
    assert encryption.passphrase is not None, "checked when parsed"
    return None if encryption.is_lost else encryption.passphrase.get_secret_value().encode()


def _lost() -> PassphraseLost:
    return PassphraseLost(
        "the passphrase came by value, is never written down, and the agent has been restarted "
        "since: send the request anew, with a new request_id"
    )


def _refuse_luks2(host: Host) -> None:
    if LUKS2 in host.domains.capabilities().missing:
        raise Unsupported(
            "encryption.format luks2: QEMU opens LUKS version 1 only; convert the volume "
            "('cryptsetup convert --type luks1', where its key slots allow it), or make it anew"
        )


def _refuse_unknown_secret(host: Host, connection: Connection) -> None:
    uuid = connection.kept_secret
    if uuid is not None and not host.secrets.has(uuid):
        raise Invalid(
            f"connection_info.data.secret_uuid: libvirt on this host has no secret {uuid}: define "
            "it (virsh secret-define, secret-set-value), or send the keyring"
        )


def _wrong_header(host: Host, encryption: Encryption, device: Device) -> str | None:
    """In words; None: it is as asked."""
    header = host.connectors.header(device)
    if not header.startswith(LUKS_MAGIC):
        return "does not begin with a LUKS header"
    version = int.from_bytes(header[len(LUKS_MAGIC) : len(LUKS_MAGIC) + 2], "big")
    if version != VERSIONS[encryption.format]:
        return f"has a LUKS header of version {version}, not of {encryption.format}"
    return None


def header_bytes(host: Host, attachment: Attachment, device: Device) -> int:
    """What the guest does not see of an encrypted volume; 0 where nothing is encrypted.

    Raises NotEncrypted, Unsupported, ConnectFailed."""
    if attachment.encryption is None:
        return 0
    if attachment.connection.source_type == "network":
        raise Unsupported(
            f"{device.path} is encrypted, and its header is not to be read from this host, so how "
            "much of it is the guest's is not known; nothing was done: attach it again, the guest "
            "then sees all of it"
        )
    wrong = _wrong_header(host, attachment.encryption, device)
    if wrong:
        raise NotEncrypted(f"{device.path} {wrong}; nothing was done to any guest")
    header = host.connectors.header(device)
    return int.from_bytes(header[LUKS_PAYLOAD_OFFSET], "big") * LUKS_SECTOR_BYTES


def _drop_unless_used(scene: Scene, attachment: Attachment) -> None:
    """The caller's promise is withdrawn, durably: the last of several to ask drops them."""
    host, volume_id = scene.host, attachment.volume_id
    device = host.journal.device_of(attachment.attachment_id) or scene.device
    source = source_of(scene, attachment, device)
    with host.locks.volume(volume_id):
        for secret in attachment.secrets:
            asks, whose = scene.operation_id, secret.instance_id
            if not users(host, volume_id, source, besides=asks, instance_id=whose):
                host.secrets.drop(secret.uuid)
