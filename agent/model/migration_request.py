"""The requests of a live migration: the destination gets ready, either side gives it up."""

from typing import Annotated, Any

from pydantic import Field, StrictStr, StringConstraints, model_validator

from agent.model.attachment import Attachment
from agent.model.migration import MigrationOptions
from agent.model.request import LARGEST_BATCH, Request, all_apart
from agent.model.value import Id, Positive, Uuid, Value

LEASE_SECONDS = 3600
"""For how long a destination keeps what it has prepared, unless the request says otherwise."""

LONGEST_LEASE_SECONDS = 366 * 24 * 3600
"""Who wants it for ever connects an instance: a lease that nobody ends holds up its instance."""


class ComingAttachment(Attachment):
    """``replaces``: the attachment by which the instance has the volume where it comes from."""

    replaces: Id

    @property
    def plain(self) -> Attachment:
        fields = {name: getattr(self, name) for name in Attachment.model_fields}
        return Attachment.model_construct(**fields)


class Origin(Value):
    """``host``: the name of the agent there, which is asked before a lease ends."""

    host: StrictStr


class PrepareMigrationRequest(Request):
    """To the destination: ``attachments`` of an instance that is to come, all of them or none."""

    migration_id: Id
    instance_id: Uuid
    source: Origin | None = None
    attachments: Annotated[tuple[ComingAttachment, ...], Field(max_length=LARGEST_BATCH)]
    lease_seconds: Annotated[Positive, Field(le=LONGEST_LEASE_SECONDS)] = LEASE_SECONDS

    @property
    def connects(self) -> tuple[Attachment, ...]:
        return tuple(one.plain for one in self.attachments)

    @property
    def wishes(self) -> dict[str, Any]:
        return {
            "migration_id": self.migration_id,
            "replaces": {one.attachment_id: one.replaces for one in self.attachments},
            "lease_seconds": self.lease_seconds,
            "source_host": self.source and self.source.host,
        }

    @model_validator(mode="after")
    def _of_the_instance(self) -> "PrepareMigrationRequest":
        all_apart(self.attachments)
        if any(one.instance_id != self.instance_id for one in self.attachments):
            raise ValueError("attachments are of another instance_id")
        if len({one.replaces for one in self.attachments}) < len(self.attachments):
            raise ValueError("two attachments replace the same one")
        return self


LibvirtUri = Annotated[
    StrictStr,
    StringConstraints(
        pattern=r"^qemu(\+(tcp|tls|ssh|libssh2?|unix))?://[A-Za-z0-9_.:@%\[\]-]+/(system|session)$"
    ),
]
"""Without a query: some of its parameters name programs that libvirt runs."""

MigrateUri = Annotated[
    StrictStr, StringConstraints(pattern=r"^(tcp|rdma)://[A-Za-z0-9_.:%\[\]-]+$")
]


class Destination(Value):
    """``host``: the name of the agent there; ``libvirt_uri``: by which libvirt here reaches the one
    there; ``migrate_uri``: by which QEMU does, where that is another address."""

    host: StrictStr
    libvirt_uri: LibvirtUri
    migrate_uri: MigrateUri | None = None


class MigrateRequest(Request):
    """To the source. ``parts`` as prepare_migration answered them, for each attachment here."""

    migration_id: Id
    instance_id: Uuid
    destination: Destination
    parts: dict[Id, StrictStr]
    options: MigrationOptions = MigrationOptions()

    @property
    def wishes(self) -> dict[str, Any]:
        return {
            "migration_id": self.migration_id,
            "destination": self.destination.model_dump(),
            "parts": self.parts,
            "options": self.options.model_dump(),
        }


class CancelMigrationRequest(Request):
    """To either side. From then on the side takes part in this migration no more."""

    migration_id: Id

    @property
    def instance_id(self) -> None:
        """That of the migration, which the agent knows."""

    @property
    def wishes(self) -> dict[str, Any]:
        return {"migration_id": self.migration_id}
