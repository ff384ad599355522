"""The client's commands: each makes its envelope, and answers how the operation stands."""

import uuid
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Literal, TypedDict, Unpack

from agent.bus.caller import Caller, Unreachable, operation_of
from agent.bus.wire import COMMANDS_TOPIC
from agent.model.attachment import Attachment
from agent.model.moment import rfc3339
from agent.model.outcome import Answer

VALID_FOR = timedelta(hours=1)
"""How long the agent may take to begin, where the caller does not say ``not_after``."""


class Envelope(TypedDict, total=False):
    """What every command takes beside its own. ``request_id``: a new one if not given; give your
    own, and the same ``not_after``, to send it again after a crash of yours: both are part of the
    request. ``not_after`` (an hour from now; a datetime, local without a time zone, or as the wire
    writes it, which has milliseconds): later the agent refuses to begin.
    ``deadline_seconds``: what is not committed so long after it was accepted is undone. ``host``:
    the only host that may do it."""

    request_id: str | None
    not_after: datetime | str | None
    deadline_seconds: int | None
    host: str | None


class CommandCalls:
    """One method for each command that this version has; all raise Unreachable."""

    _caller: Caller

    def attach(
        self, attachment: Attachment | Mapping[str, Any], **envelope: Unpack[Envelope]
    ) -> Answer:
        """Connect the volume to the host, then plug it into the guest.

        ``attachment`` as in docs/wire, or parsed."""
        return self._command("attach", envelope, attachment=_whole(attachment))

    def attach_batch(
        self, attachments: Sequence[Attachment | Mapping[str, Any]], **envelope: Unpack[Envelope]
    ) -> Answer:
        """Attach several volumes to one instance: all of them, or none.

        ``result`` is a list, in the order of ``attachments``."""
        whole = [_whole(attachment) for attachment in attachments]
        return self._command("attach_batch", envelope, attachments=whole)

    def detach(
        self,
        attachment_id: str,
        instance_id: str,
        *,
        generation: int | None = None,
        attachment: Attachment | Mapping[str, Any] | None = None,
        **envelope: Unpack[Envelope],
    ) -> Answer:
        """Unplug the disk from the guest, then take the volume off the host if nobody else there
        uses it.

        ``attachment``: the whole one, where the agent may never have seen it; after an attach in
        doubt, too: without it an attach that comes late is not fenced off."""
        return self._command(
            "detach",
            envelope,
            attachment_id=attachment_id,
            instance_id=instance_id,
            generation=generation,
            attachment=None if attachment is None else _whole(attachment),
        )

    def connect_instance(
        self,
        instance_id: str,
        attachments: Sequence[Attachment | Mapping[str, Any]],
        **envelope: Unpack[Envelope],
    ) -> Answer:
        """Connect an instance's volumes before its domain is there: all of them, or none.

        ``result`` is a list with the ``disk_xml`` of each, to define the domain from."""
        whole = [_whole(attachment) for attachment in attachments]
        return self._command(
            "connect_instance", envelope, instance_id=instance_id, attachments=whole
        )

    def disconnect_instance(
        self,
        instance_id: str,
        attachments: Sequence[Mapping[str, Any]] | Literal["all"] = "all",
        **envelope: Unpack[Envelope],
    ) -> Answer:
        """Take an instance's volumes off the host, each unless somebody else there uses it. The
        instance does not run.

        ``attachments``: {attachment_id, generation} of each, or all that the agent has."""
        chosen = attachments if attachments == "all" else [dict(one) for one in attachments]
        return self._command(
            "disconnect_instance", envelope, instance_id=instance_id, attachments=chosen
        )

    def extend(
        self,
        volume_id: str,
        size_bytes: int,
        *,
        connection_info: Mapping[str, Any] | None = None,
        **envelope: Unpack[Envelope],
    ) -> Answer:
        """Let this host, and every guest of it that has the volume, see its new size.

        ``result`` is a list with a row for each attachment: its sizes, or its error."""
        return self._command(
            "extend",
            envelope,
            volume_id=volume_id,
            size_bytes=size_bytes,
            connection_info=None if connection_info is None else dict(connection_info),
        )

    def swap(
        self,
        attachment_id: str,
        new: Attachment | Mapping[str, Any],
        *,
        generation: int | None = None,
        sole_user: bool = False,
        bandwidth_bytes_per_second: int | None = None,
        synchronous_writes: bool = False,
        **envelope: Unpack[Envelope],
    ) -> Answer:
        """Move a running guest's disk to another volume, under the guest; takes as long as a copy.

        ``new`` takes the place of the attachment. ``sole_user``: no other host has the volume,
        which may be shared. ``result`` as of an attach."""
        return self._command(
            "swap",
            envelope,
            attachment_id=attachment_id,
            generation=generation,
            new=_whole(new),
            sole_user=sole_user or None,
            bandwidth_bytes_per_second=bandwidth_bytes_per_second,
            synchronous_writes=synchronous_writes or None,
        )

    def set_iotune(
        self,
        attachment_id: str,
        iotune: Mapping[str, int | str],
        *,
        generation: int | None = None,
        **envelope: Unpack[Envelope],
    ) -> Answer:
        """Change what holds back a disk, under its running guest and in the definition.

        ``iotune``: all of its limits from now on, by libvirt's names; {} is none. ``result`` has
        what is in force."""
        return self._command(
            "set_iotune",
            envelope,
            attachment_id=attachment_id,
            generation=generation,
            iotune=dict(iotune),
        )

    def prepare_migration(
        self,
        migration_id: str,
        instance_id: str,
        attachments: Sequence[Mapping[str, Any]],
        *,
        source_host: str | None = None,
        lease_seconds: int | None = None,
        **envelope: Unpack[Envelope],
    ) -> Answer:
        """To the destination: connect the volumes of an instance that is to come, all or none.

        ``attachments``: each with ``replaces``, the attachment where it comes from; ``result`` has
        the ``parts`` for migrate."""
        return self._command(
            "prepare_migration",
            envelope,
            migration_id=migration_id,
            instance_id=instance_id,
            source=None if source_host is None else {"host": source_host},
            attachments=[dict(one) for one in attachments],
            lease_seconds=lease_seconds,
        )

    def migrate(
        self,
        migration_id: str,
        instance_id: str,
        destination: Mapping[str, Any],
        parts: Mapping[str, str],
        *,
        options: Mapping[str, Any] | None = None,
        **envelope: Unpack[Envelope],
    ) -> Answer:
        """To the source: let the instance go to the destination while it runs, then disconnect
        what nobody else here uses.

        ``destination``: {host, libvirt_uri, migrate_uri}; ``parts`` as prepare_migration answered
        them over there."""
        return self._command(
            "migrate",
            envelope,
            migration_id=migration_id,
            instance_id=instance_id,
            destination=dict(destination),
            parts=dict(parts),
            options=None if options is None else dict(options),
        )

    def cancel_migration(self, migration_id: str, **envelope: Unpack[Envelope]) -> Answer:
        """To either side: it keeps nothing of the migration, and takes no further part in it."""
        return self._command("cancel_migration", envelope, migration_id=migration_id)

    def command(self, verb: str, request: Mapping[str, Any]) -> Answer:
        """Any command, ``request`` as it goes over the wire.  Raises Unreachable, and Refused for
        a verb that the agent does not know."""
        try:
            return operation_of(self._caller.call(COMMANDS_TOPIC, verb, request=dict(request)))
        except Unreachable as error:
            error.request = dict(request) if error.in_doubt else None
            raise

    def _command(self, verb: str, envelope: Envelope, **fields: Any) -> Answer:
        """Fields that are None are left out: the agent has its defaults."""
        unknown = envelope.keys() - Envelope.__annotations__.keys()
        if unknown:
            raise TypeError(f"{verb} takes no {', '.join(sorted(unknown))}")
        not_after = envelope.get("not_after") or datetime.now(UTC) + VALID_FOR
        request = {
            "request_id": envelope.get("request_id") or str(uuid.uuid4()),
            "not_after": not_after if isinstance(not_after, str) else rfc3339(not_after),
            "deadline_seconds": envelope.get("deadline_seconds"),
            "host": envelope.get("host"),
            **fields,
        }
        return self.command(verb, {name: v for name, v in request.items() if v is not None})


def _whole(attachment: Attachment | Mapping[str, Any]) -> dict[str, Any]:
    return attachment.reveal() if isinstance(attachment, Attachment) else dict(attachment)
