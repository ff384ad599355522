"""What of an instance goes to another host, and whether that has all that it needs."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from agent.errors import Busy, Invalid, MigrationFailed, Unsupported
from agent.guest.migration_xml import moved_xml, unnamed_devices
from agent.guest.whereabouts import Where, whereabouts
from agent.model.attachment import Attachment
from agent.model.migration import Journey, MigrationOptions
from agent.model.migration_request import Destination
from agent.ports import DomainLook, Host, Prepared, dotted
from agent.saga.plan import Scene


@dataclass(frozen=True)
class Travel:
    """``parts`` is {alias of a disk: what of it is of the other host, as XML}."""

    instance_id: str
    migration_id: str
    destination: Destination
    options: MigrationOptions
    parts: Mapping[str, str] = field(repr=False)
    attachments: tuple[Attachment, ...]

    def journey(self, host: Host) -> Journey:
        """Raises Invalid, UnknownInstance, Unavailable."""
        return self._by(*host.migrations.descriptions(self.instance_id))

    def _by(self, live: str, persistent: str | None) -> Journey:
        return Journey(
            libvirt_uri=self.destination.libvirt_uri,
            migrate_uri=self.destination.migrate_uri,
            live_xml=moved_xml(live, self.parts),
            persistent_xml=None if persistent is None else moved_xml(persistent, self.parts),
            options=self.options,
        )

    def first_journey(self, host: Host) -> Journey:
        """Before libvirt is asked for it.  Raises Unsupported, too: over there the name of a device
        may mean another volume."""
        live, persistent = host.migrations.descriptions(self.instance_id)
        for description in (live, persistent):
            unnamed = {} if description is None else unnamed_devices(description, self.parts)
            strange = [f"{dev} ({path})" for dev, path in unnamed.items() if not self._same(path)]
            if strange:
                raise Unsupported(
                    f"{', '.join(strange)} of the guest is no attachment of this agent: over there "
                    "that path may be another volume. Import it ('attachctl import') and prepare "
                    "it as well, or detach it; or name it in options.same_devices, where it is the "
                    "same there"
                )
        return self._by(live, persistent)

    def _same(self, path: str) -> bool:
        return path in self.options.same_devices

    def is_begun(self, scene: Scene) -> bool:
        """Written with the intent to begin: from then on it may be on its way."""
        return "checked" in scene.known

    def refuse_unready(self, host: Host, *, has_begun: bool) -> None:
        """Raises MigrationFailed, Unsupported, Busy: the other host has not what it needs.

        ``has_begun``: by the journal, so that the other host then gives back what it has."""
        there = self.destination.host
        ready = host.peers.readiness(there, self.instance_id)
        if ready is None:
            raise MigrationFailed(
                f"the agent of {there}, or its libvirt, does not answer: see that they run",
                retriable=not has_begun,
            )
        if "prepare_migration" not in ready.verbs:
            raise Unsupported(f"the agent of {there} is too old for migrations")
        here = host.domains.capabilities().libvirt
        if ready.libvirt[:2] < here[:2]:
            raise Unsupported(
                f"libvirt {dotted(ready.libvirt)} of {there} is older than {dotted(here)} here"
            )
        found = ready.sighting
        if found.state is not None:
            raise Busy(f"{there} has the instance already ({found.job or found.state})")
        for attachment in self.attachments:
            prepared = ready.prepared.get(attachment.attachment_id)
            if prepared is None or prepared.migration_id != self.migration_id:
                raise MigrationFailed(
                    f"{there} has not prepared attachment {attachment.attachment_id} for migration "
                    f"{self.migration_id}, or has given it back: send prepare_migration to it, "
                    "with a new migration_id where this one was begun or cancelled"
                )
            self._refuse_another(attachment, prepared)
            self._refuse_smaller(host, attachment, prepared.size_bytes, has_begun=has_begun)

    def _refuse_another(self, attachment: Attachment, prepared: Prepared) -> None:
        """What the guest would write over there is another volume, or is cached otherwise."""
        pairs = {
            "volume_id": (attachment.volume_id, prepared.volume_id),
            "multiattach": (attachment.multiattach, prepared.multiattach),
            "access_mode": ("ro" if attachment.read_only else "rw", prepared.access_mode),
        }
        for name, (here, there) in pairs.items():
            if here != there:
                raise Invalid(
                    f"{self.destination.host} has prepared attachment {attachment.attachment_id} "
                    f"with {name} {there}, and here it has {here}: cancel this migration, and "
                    "prepare another with the same"
                )

    def _refuse_smaller(
        self, host: Host, attachment: Attachment, size_bytes: int, *, has_begun: bool
    ) -> None:
        """What the guest has beyond that would be I/O errors over there. A file, and what QEMU
        reaches by itself, is as large on every host."""
        here = host.journal.device_of(attachment.attachment_id)
        if here is None or attachment.connection.source_type != "block" or not size_bytes:
            return
        if size_bytes < here.size_bytes:
            raise MigrationFailed(
                f"volume {attachment.volume_id} has {here.size_bytes} bytes here, and "
                f"{self.destination.host} shows {size_bytes} still: send extend to that host, too, "
                "or cancel this migration and prepare another; then migrate again",
                retriable=not has_begun,
            )

    def where(self, host: Host, look: DomainLook | None) -> Where:
        return whereabouts(look, host.peers.look(self.destination.host, self.instance_id))
