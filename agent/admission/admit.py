"""Whether a request is taken at all: replay, expiry, generation, capacity, conflicts.

Pure over the journal's rows: it runs inside the accepting transaction, so two requests that
exclude each other cannot both be taken. Nothing here asks the host.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta

from agent.admission.ended import known_of_ended, refuse_older
from agent.admission.moving import (
    calls_off,
    moving_attachments,
    parts_of_migration,
    refuse_beside_moves,
    refuse_while_moving,
)
from agent.admission.sharing import refuse_sharing
from agent.admission.staying import all_of_instance, refuse_while_extended, users_of_volume
from agent.admission.swapping import (
    attachment_in_place,
    refuse_while_open,
    refuse_while_swapped,
    swapped_parts,
    taking_the_place,
)
from agent.errors import (
    Busy,
    Expired,
    Invalid,
    QueueFull,
    RequestIdReused,
    Stale,
    UnknownAttachment,
    Unsupported,
    WrongDevice,
)
from agent.journal.book import Book
from agent.journal.record import Held, Part, Record
from agent.model.attachment import Attachment
from agent.model.connection import IscsiConnection
from agent.model.contract import Command
from agent.model.mark import is_user_alias
from agent.model.migration_request import CancelMigrationRequest, MigrateRequest
from agent.model.request import (
    AttachmentRef,
    DetachRequest,
    DisconnectInstanceRequest,
    ExtendRequest,
    Request,
    SetIotuneRequest,
)
from agent.model.swap import SwapRequest
from agent.operations import plan_of


@dataclass(frozen=True)
class Policy:
    """What the operator allows."""

    max_open_operations: int = 4096
    retention_seconds: float = 30 * 86400.0
    allow_multiattach: bool = True
    allow_bootable_multiattach: bool = True


@dataclass(frozen=True)
class Admission:
    """The judge of one moment."""

    book: Book
    policy: Policy
    now: float

    def replay(self, request_id: str, verb: str, digest: str) -> Record | None:
        """The operation this request is already.  Raises RequestIdReused."""
        record = self.book.operation(request_id)
        if record is not None and (record.verb, record.digest) != (verb, digest):
            raise RequestIdReused(
                f"request {request_id} was another {record.verb} request; "
                "send a new request_id with a new payload"
            )
        return record

    def admit(self, request: Command) -> tuple[Part, ...]:
        """The attachments to work on.  Raises the refusal: all of them are taken, or none."""
        self._envelope(request)
        if isinstance(request, CancelMigrationRequest):
            return parts_of_migration(self.book, request.migration_id)
        parts = self._parts(request)
        refuse_beside_moves(self.book, request, parts)
        return parts

    def _parts(self, request: Command) -> tuple[Part, ...]:
        if isinstance(request, DetachRequest):
            return (self._leaving(request, request.instance_id, request.attachment),)
        if isinstance(request, DisconnectInstanceRequest):
            instance_id = request.instance_id
            wanted = request.attachments
            refs = all_of_instance(self.book, instance_id) if wanted == "all" else wanted
            return tuple(self._leaving(ref, instance_id) for ref in refs)
        if isinstance(request, ExtendRequest):
            self._volume_is_settled(request.volume_id)
            refuse_while_swapped(self.book, volume_id=request.volume_id)
            return users_of_volume(self.book, request)
        if isinstance(request, SetIotuneRequest):
            return (self._staying(request),)
        if isinstance(request, SwapRequest):
            return self._swapped(request)
        if isinstance(request, MigrateRequest):
            return moving_attachments(self.book, request)
        return tuple(self._joining(attachment) for attachment in request.connects)

    def in_place(self, attachment: Attachment) -> Held | None:
        """As the journal has it.  Raises Invalid where that is another volume or instance."""
        self._same_attachment(attachment)
        return self.book.attachment(attachment.attachment_id)

    def take_over(self, attachment: Attachment) -> None:
        """Its guest has it already, by somebody else. Raises as an attach, and Busy."""
        refuse_while_moving(self.book, attachment.instance_id)
        for record in self.book.open_operations(attachment_id=attachment.attachment_id):
            raise Busy(
                f"{record.verb} {record.operation_id} of this attachment is {record.state}; "
                "nothing was done: ask again when that has ended"
            )
        self._joining(attachment)

    def draft(self, verb: str, request: Command, digest: str) -> Record:
        """The operation as it would be accepted now.  Raises the refusal."""
        parts = self.admit(request)
        deadline = request.deadline_seconds
        bare = Record(
            operation_id=request.request_id,
            verb=verb,
            digest=digest,
            instance_id=_instance_of(request, parts),
            parts=parts,
            steps=(),
            commit=0,
            not_after=request.not_after.timestamp(),
            deadline_at=None if deadline is None else self.now + deadline,
            created_at=self.now,
            updated_at=self.now,
            known={**request.wishes, **calls_off(self.book, request)},
        )
        for part in parts:
            bare = bare.learn(part.attachment_id, known_of_ended(self.book, part))
        plan = plan_of(bare)
        return bare.but(steps=plan.names, subjects=plan.subjects, commit=plan.commit_position)

    def _joining(self, asked: Attachment) -> Part:
        self._allowed(asked)
        self._same_attachment(asked)
        known = self._attachment_here(asked.attachment_id)
        attachment = asked
        if known is not None and is_user_alias(known.alias):  # others are not plugged again
            attachment = asked.found_as(known)
        if attachment.marks is not None:
            # Behind a detach a new disk would show the guest the serial of what it was by a swap.
            refuse_while_open(self.book, attachment.attachment_id)
        self._generation_for_attach(attachment)
        self._attachment_is_free(attachment.attachment_id, attachment.volume_id)
        self._volume_is_settled(attachment.volume_id)
        refuse_while_extended(self.book, attachment.volume_id)
        self._sharing(attachment)
        return Part.of(attachment, "joins")

    def _leaving(
        self,
        asked: DetachRequest | AttachmentRef,
        instance_id: str,
        whole: Attachment | None = None,
    ) -> Part:
        """Without an attachment where only the guest is to be looked at."""
        attachment_id, generation = asked.attachment_id, asked.generation
        attachment = self._known_attachment(attachment_id, whole)
        if attachment is not None and attachment.instance_id != instance_id:
            raise Invalid(
                f"attachment {attachment_id} is of instance {attachment.instance_id}; "
                "nothing was touched"
            )
        refuse_older(self.book, attachment_id, generation)
        self._attachment_is_free(attachment_id)
        about = attachment or self.book.fence(attachment_id)
        return Part(
            attachment_id=attachment_id,
            instance_id=instance_id,
            volume_id=None if about is None else about.volume_id,
            attachment=attachment,
            role="leaves",
            generation=generation,
        )

    def _staying(self, asked: SetIotuneRequest) -> Part:
        attachment_id, generation = asked.attachment_id, asked.generation
        attachment = self._attachment_here(attachment_id)
        if attachment is None:
            raise UnknownAttachment(
                f"attachment {attachment_id} is not on this host: attach it with the iotune that "
                "it shall have; nothing was touched"
            )
        refuse_older(self.book, attachment_id, generation)
        self._attachment_is_free(attachment_id)
        return Part.of(attachment, "stays").but(generation=generation)

    def _swapped(self, request: SwapRequest) -> tuple[Part, ...]:
        held = attachment_in_place(self.book, request)
        refuse_older(self.book, request.attachment_id, request.generation)
        if self._attachment_here(request.new.attachment_id) is not None:
            raise Invalid(
                f"new.attachment_id {request.new.attachment_id} is attached already; nothing was "
                "touched: ids are not reused"
            )
        for attachment in (held.attachment, request.new):
            self._volume_is_settled(attachment.volume_id)
        self._allowed(request.new)
        self._generation_for_attach(request.new)
        new = taking_the_place(self.book, request, held)
        return swapped_parts(held, new, request.generation)

    # the envelope

    def _envelope(self, request: Request) -> None:
        not_after = request.not_after.timestamp()
        if not_after < self.now:
            raise Expired("not_after has passed; nothing was done: send a new request")
        if not_after > self.now + self.policy.retention_seconds:
            kept = timedelta(seconds=self.policy.retention_seconds)
            raise Invalid(
                f"not_after is more than {kept} (retention_seconds) ahead; nothing was done"
            )
        if self.book.count_open() >= self.policy.max_open_operations:
            raise QueueFull(
                f"{self.policy.max_open_operations} operations are open; send it again later"
            )

    def _allowed(self, attachment: Attachment) -> None:
        if attachment.encryption is not None and attachment.encryption.is_lost:
            raise Invalid("attachment.encryption.passphrase: is empty; nothing was touched")
        connection = attachment.connection
        if isinstance(connection, IscsiConnection) and connection.lacks_credentials:
            raise Invalid(
                f"attachment.connection_info.data: auth_method {connection.data.auth_method} needs "
                "auth_username and auth_password; nothing was touched"
            )
        if attachment.multiattach and not self.policy.allow_multiattach:
            raise Unsupported("the operator has switched multiattach off on this host")
        bootable = attachment.multiattach and attachment.disk.boot_order is not None
        if bootable and not self.policy.allow_bootable_multiattach:
            raise Unsupported("the operator has switched bootable multiattach off on this host")

    # generations: attach needs >= newest seen and > last detached, detach >= newest

    def _generation_for_attach(self, attachment: Attachment) -> None:
        given, fence = attachment.generation, self.book.fence(attachment.attachment_id)
        refuse_older(self.book, attachment.attachment_id, given)
        detached = None if fence is None else fence.detached
        if detached is not None and given is not None and given <= detached:
            raise Stale(
                f"generation {given} of attachment {attachment.attachment_id} was detached; "
                f"a new attach needs more than {detached}"
            )

    # conflicts

    def _attachment_is_free(self, attachment_id: str, volume_id: str | None = None) -> None:
        """Behind a running operation one queues; behind a parked one one would wait for long."""
        refuse_while_swapped(self.book, attachment_id=attachment_id, volume_id=volume_id)
        for record in self.book.open_operations(attachment_id=attachment_id):
            if record.parked or record.trouble:
                raise Busy(
                    f"{record.verb} {record.operation_id} of this attachment is {record.state}, "
                    f"waiting for {record.waiting_for or 'its next try'}; nothing was done: send "
                    "it again when that has ended"
                )

    def _same_attachment(self, attachment: Attachment) -> None:
        known = self._attachment_here(attachment.attachment_id)
        if known is not None and _what(known) != _what(attachment):
            raise Invalid(
                f"attachment {attachment.attachment_id} is volume {known.volume_id} on instance "
                f"{known.instance_id}; nothing was touched: ids are not reused"
            )

    def _volume_is_settled(self, volume_id: str) -> None:
        reason = self.book.quarantined().get(volume_id)
        if reason is not None:
            raise WrongDevice(
                f"volume {volume_id} is quarantined on this host: {reason['reason']}; look at the "
                f"device, then 'attachctl quarantine release {volume_id}'"
            )
        for record in self.book.open_operations(volume_id=volume_id):
            if record.trouble is not None:
                raise Busy(
                    f"{record.verb} {record.operation_id} of volume {volume_id} is unsettled on "
                    f"this host ({record.trouble.detail}); new connects wait until it is"
                )

    def _sharing(self, attachment: Attachment) -> None:
        self._leaves_first(attachment)
        refuse_sharing(attachment, tuple(self._others_of(attachment)))

    def _leaves_first(self, attachment: Attachment) -> None:
        """The instance still has the volume by another attachment, which is being detached."""
        for record in self.book.open_operations(volume_id=attachment.volume_id):
            leaving = [
                part
                for part in _parts_of(record, attachment.volume_id)
                if part.role == "leaves"
                and part.attachment_id != attachment.attachment_id
                and part.instance_id == attachment.instance_id
            ]
            if leaving:
                raise Busy(
                    f"{record.verb} {record.operation_id} of this volume from this instance is "
                    f"{record.state}, waiting for {record.waiting_for or 'its turn'}"
                )

    def _others_of(self, attachment: Attachment) -> Iterator[Attachment]:
        """Who has the volume, or was promised it by an operation that was accepted."""
        volume_id = attachment.volume_id
        here = [
            held.attachment for held in self.book.attachments(volume_id=volume_id) if held.promised
        ]
        coming = [
            part.attachment
            for record in self.book.open_operations(volume_id=volume_id)
            if record.direction != "undoing"
            for part in _parts_of(record, volume_id)
            if part.role == "joins" and part.attachment
        ]
        for other in (*here, *coming):
            if other.attachment_id != attachment.attachment_id:
                yield other

    def _attachment_here(self, attachment_id: str) -> Attachment | None:
        """As it is in place, or as an open operation has it."""
        held = self.book.attachment(attachment_id)
        if held is not None:
            return held.attachment
        for record in self.book.open_operations(attachment_id=attachment_id):
            for part in record.parts:
                if part.attachment_id == attachment_id and part.attachment is not None:
                    return part.attachment
        return None

    def _known_attachment(self, attachment_id: str, whole: Attachment | None) -> Attachment | None:
        """None: ended here already, nothing is left of it but its fence."""
        known = self._attachment_here(attachment_id)
        if known is None and whole is None:
            if self.book.fence(attachment_id) is None:
                raise UnknownAttachment(
                    f"this agent never saw attachment {attachment_id}: send the whole attachment "
                    "with a detach"
                )
            return None
        if known is not None and whole is not None:
            self._same_attachment(whole)
        return known or whole


def _parts_of(record: Record, volume_id: str) -> list[Part]:
    return [part for part in record.parts if part.volume_id == volume_id]


def _instance_of(request: Command, parts: tuple[Part, ...]) -> str | None:
    """Of one attachment it is the attachment's; ``extend`` has as many as there are."""
    if isinstance(request, SetIotuneRequest):
        return parts[0].instance_id
    if isinstance(request, CancelMigrationRequest) and parts:
        return parts[0].instance_id
    return request.instance_id


def _what(attachment: Attachment) -> tuple[str, str]:
    return attachment.volume_id, attachment.instance_id
