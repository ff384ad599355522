"""One volume, one instance, one host: what the orchestrator asks for."""

from typing import Annotated, Any, Literal

from pydantic import (
    BeforeValidator,
    StrictBool,
    StrictStr,
    ValidationInfo,
    field_validator,
    model_validator,
)
from pydantic.json_schema import SkipJsonSchema

from agent.errors import Invalid
from agent.model.connection import (
    AnyConnection,
    Connection,
    IscsiConnection,
    RbdConnection,
    refuse_flat,
)
from agent.model.device import is_blank
from agent.model.disk import Disk
from agent.model.guest_iscsi import GuestIscsiConnection
from agent.model.mark import user_alias
from agent.model.secret import GuestSecret, Usage
from agent.model.value import Count, Id, Positive, Secret, Uuid, Value, is_asked

SERIAL_LENGTH = 36
"""libvirt's longest <serial>; virtio-blk shows the guest the first 20 characters."""


class Identity(Value):
    """What the device must say of itself; each name is one way of asking it."""

    wwn: StrictStr | None = None
    nguid: StrictStr | None = None
    eui64: StrictStr | None = None
    uuid: StrictStr | None = None
    serial: StrictStr | None = None

    @model_validator(mode="after")
    def _names_a_device(self) -> "Identity":
        if not self.expected():
            raise ValueError("names nothing: leave it out, or give what the device shows")
        for name, value in self.expected().items():
            if is_blank(value):
                raise ValueError(f"{name} is empty or all zeros, which names no device")
        return self

    def expected(self) -> dict[str, str]:
        return {name: value for name, value in self if value is not None}


class Encryption(Value):
    """``format``: the version of the LUKS header. ``secret_file`` is on the host."""

    format: Literal["luks", "luks2"]
    secret_file: StrictStr | None = None
    passphrase: Secret | None = None

    @property
    def is_lost(self) -> bool:
        """The passphrase came by value, and this was read from the journal."""
        return self.passphrase is not None and not self.passphrase.get_secret_value()

    def kept(self) -> dict[str, Any]:
        """For the journal: that a passphrase came, and not which."""
        return self.public() if self.passphrase is None else {**self.public(), "passphrase": ""}

    @model_validator(mode="after")
    def _one_key(self) -> "Encryption":
        if (self.secret_file is None) == (self.passphrase is None):
            raise ValueError("needs exactly one of secret_file and passphrase")
        return self


class Marks(Value):
    """What plugging has stored of the disk, where that is not by the ids of its attachment: alias
    and serial outlive a swap, a migration and an import (docs/identity.rst).

    ``alias``: or what a disk that has none is found by (model.mark). ``serial`` None: it has none.
    """

    alias: StrictStr
    serial: StrictStr | None = None


class Attachment(Value):
    attachment_id: Id
    instance_id: Uuid
    volume_id: Id
    generation: Count | None = None
    connection_info: Annotated[AnyConnection, BeforeValidator(refuse_flat)]
    initiator: Literal["host", "instance"] = "host"
    multiattach: StrictBool = False
    max_writers: Positive | None = None
    shared_targets: StrictBool | None = None
    service_uuid: StrictStr | None = None
    require_all_paths: StrictBool = False
    access_mode: Literal["rw", "ro"] = "rw"
    size_bytes: Positive | None = None
    identity: Identity | None = None
    encryption: Encryption | None = None
    disk: Disk = Disk()
    marks: SkipJsonSchema[Marks | None] = None  # nobody's wish: learnt, and kept in the journal

    @property
    def connection(self) -> Connection:
        """The way to the volume: of this host, or of the guest itself."""
        of_host = self.connection_info
        if self.initiator == "host" or not isinstance(of_host, IscsiConnection):
            return of_host
        if of_host.driver_volume_type != "iscsi":
            return of_host
        return GuestIscsiConnection.of(of_host.data, self.instance_id)

    def reached_by(self, other: Connection) -> "Attachment":
        """Raises Invalid where the two do not fit together."""
        reached = self.model_copy(update={"connection_info": other})
        for wrong in _contradictions(reached):
            raise Invalid(f"{wrong}; nothing was touched")
        return reached

    @property
    def alias(self) -> str:
        """The disk's user alias in the guest: how it is found again (docs/identity.rst)."""
        return user_alias(self.attachment_id) if self.marks is None else self.marks.alias

    @property
    def serial(self) -> str | None:
        """The guest-visible serial; ``type='lun'`` shows the device's own."""
        if self.marks is not None:
            return self.marks.serial
        return None if self.disk.type == "lun" else self.volume_id

    @property
    def read_only(self) -> bool:
        return "ro" in (self.access_mode, self.connection.data.access_mode)

    @property
    def cache(self) -> str:
        """``none`` whatever was asked when several may share: QEMU would cache others' writes.

        libvirt takes a shareable disk with any cache mode (measured with 9.0).
        """
        return "none" if self.multiattach else self.disk.cache

    @property
    def forced_cache(self) -> bool:
        return self.cache != self.disk.cache

    @property
    def error_policy(self) -> str | None:
        """``report`` also of a ``lun``: left out, QEMU would pause the guest where the storage is
        full, and die when it is resumed (7.2: scsi_write_data, aiocb == NULL)."""
        is_reported = self.multiattach or self.disk.type == "lun"
        return self.disk.error_policy or ("report" if is_reported else None)

    @property
    def reserves(self) -> bool:
        """The guest may make SCSI persistent reservations in this host's name: to the target all
        sessions of a host's kernel are one."""
        return self.disk.reservations is not None and self.initiator == "host"

    @property
    def secrets(self) -> tuple[GuestSecret, ...]:
        """What libvirt must tell QEMU before the guest can have the disk."""
        by_usage: dict[Usage, bool] = {
            "volume": self.encryption is not None,
            "ceph": isinstance(self.connection, RbdConnection) and self.connection.brings_key,
            "iscsi": isinstance(self.connection, GuestIscsiConnection)
            and self.connection.user is not None,
        }
        return tuple(
            GuestSecret(
                usage=usage,
                volume_id=self.volume_id,
                # LUKS opens the same for all; credentials are of who asks.
                instance_id=None if usage == "volume" else self.instance_id,
            )
            for usage, is_needed in by_usage.items()
            if is_needed
        )

    def secret_uuid(self, usage: str) -> str | None:
        return next((secret.uuid for secret in self.secrets if secret.usage == usage), None)

    @property
    def without_boot_order(self) -> "Attachment":
        disk = self.disk.model_copy(update={"boot_order": None})
        return self.model_copy(update={"disk": disk})

    def found_as(self, known: "Attachment") -> "Attachment":
        """The same, by what the disk of ``known`` is found by in the guest."""
        return self.marked(known.alias, known.serial)

    def marked(self, alias: str, serial: str | None) -> "Attachment":
        """The same, with what its disk was plugged with: stored where its ids do not tell."""
        if (alias, serial) == (self.alias, self.serial):
            return self
        return self.model_copy(update={"marks": Marks(alias=alias, serial=serial)})

    @field_validator("marks", mode="before")
    @classmethod
    def _learnt(cls, marks: object, info: ValidationInfo) -> object:
        if is_asked(info):
            raise ValueError("Extra inputs are not permitted")
        return marks

    @model_validator(mode="after")
    def _fits_together(self, info: ValidationInfo) -> "Attachment":
        """Of what is asked: what an older agent has accepted is read back, and undone."""
        for wrong in _contradictions(self) if is_asked(info) else ():
            raise ValueError(wrong)
        return self


def _contradictions(attachment: Attachment) -> list[str]:
    disk, connection = attachment.disk, attachment.connection
    rules = [
        (
            attachment.serial == attachment.volume_id and len(attachment.volume_id) > SERIAL_LENGTH,
            f"volume_id becomes the disk's serial: at most {SERIAL_LENGTH} characters",
        ),
        (
            attachment.max_writers is not None and not attachment.multiattach,
            "max_writers needs multiattach: without it there is one writer anyway",
        ),
        (
            disk.io == "native" and attachment.cache not in ("none", "directsync"),
            "disk.io native needs disk.cache none or directsync",
        ),
        (
            attachment.multiattach and connection.source_format == "qcow2",
            "a qcow2 file cannot be shared by several writers: multiattach needs format raw",
        ),
        (
            disk.type == "lun"
            and connection.source_type != "block"
            and not isinstance(connection, GuestIscsiConnection),
            "disk.type lun needs a block device, and this connection gives a "
            f"{connection.source_type}",
        ),
        (
            disk.type == "lun" and connection.lane == "nvme",
            "disk.type lun needs a SCSI device, and this connection gives an NVMe namespace",
        ),
        (
            attachment.encryption is not None and connection.source_format != "raw",
            "encryption opens a raw volume, and this connection gives a "
            f"{connection.source_format} file",
        ),
        (
            attachment.encryption is not None and disk.type == "lun",
            "encryption needs disk.type disk: a lun passes the raw ciphertext to the guest",
        ),
        (
            isinstance(connection, IscsiConnection) and connection.data.has_a_strange_portal,
            "connection_info.data: a portal must be ADDRESS:PORT with an IPv4 address, an IPv6 one "
            "in brackets, or a name with a dot",
        ),
        (
            bool(connection.data.encrypted) and attachment.encryption is None,
            "connection_info says encrypted, and encryption is missing: the guest would see "
            "(and could overwrite) the raw ciphertext",
        ),
    ]
    if attachment.initiator == "instance":
        rules += _limits_of_own_initiator(attachment)
    elif attachment.identity is not None:
        rules += _never_shown(attachment.identity, connection)
    return [message for broken, message in rules if broken]


def _never_shown(identity: Identity, connection: Connection) -> list[tuple[bool, str]]:
    """What would make the right device a wrong one, and quarantine its volume."""
    return [
        (
            connection.source_type != "block",
            f"identity cannot be proven: this connection gives a {connection.source_type}, which "
            "shows none; leave it out",
        ),
        (
            identity.serial is not None and connection.gives_namespace,
            "identity.serial is no namespace's: NVMe controllers have one, and all their volumes "
            "share it; give nguid, uuid or eui64",
        ),
    ]


def _limits_of_own_initiator(attachment: Attachment) -> list[tuple[bool, str]]:
    connection = attachment.connection
    return [
        (
            not isinstance(connection, GuestIscsiConnection),
            "initiator instance needs driver_volume_type iscsi: for "
            f"{connection.driver_volume_type} QEMU is no initiator",
        ),
        (
            isinstance(connection, GuestIscsiConnection) and connection.lacks_credentials,
            "auth_method CHAP needs auth_username and auth_password",
        ),
        (
            attachment.identity is not None,
            "identity cannot be proven with initiator instance: this host does not see the "
            "device; leave it out",
        ),
        (
            attachment.require_all_paths,
            "require_all_paths needs initiator host: QEMU's own initiator has one path",
        ),
    ]
