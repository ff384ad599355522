"""The envelope of every command, and what each verb takes."""

import hashlib
import json
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    StrictBool,
    StrictStr,
    model_validator,
)

from agent.model.attachment import Attachment
from agent.model.connection import AnyConnection, refuse_flat
from agent.model.disk import IoTune
from agent.model.moment import Moment
from agent.model.outcome import State
from agent.model.value import Count, Id, Positive, Uuid, Value, without_secrets


class Request(Value):
    """``request_id`` becomes the operation's id; ``not_after`` is judged once, on arrival."""

    request_id: Uuid
    not_after: Moment
    deadline_seconds: Positive | None = None
    host: StrictStr | None = None

    @property
    def connects(self) -> tuple[Attachment, ...]:
        """The attachments whose volumes it brings to the host."""
        return ()

    @property
    def sent_along(self) -> tuple[Attachment, ...]:
        """Whole attachments of which only the ids were needed, had the agent seen them."""
        return ()

    @property
    def wishes(self) -> dict[str, Any]:
        """JSON-like: what its operation knows from the beginning, besides its attachments."""
        return {}


class AttachRequest(Request):
    attachment: Attachment

    @property
    def instance_id(self) -> str:
        return self.attachment.instance_id

    @property
    def connects(self) -> tuple[Attachment, ...]:
        return (self.attachment,)


def all_apart(attachments: tuple[Attachment, ...]) -> tuple[Attachment, ...]:
    """Several attachments of one instance.  Raises ValueError where they would collide in it."""
    wishes: dict[str, list[object]] = {
        "attachment_id": [one.attachment_id for one in attachments],
        "volume_id": [one.volume_id for one in attachments],
        "disk.target_dev": [one.disk.target_dev for one in attachments],
        "disk.boot_order": [one.disk.boot_order for one in attachments],
    }
    for name, values in wishes.items():
        given = [value for value in values if value is not None]
        for value in given:
            if given.count(value) > 1:
                raise ValueError(f"{name} {value} is there twice, and an instance has it once")
    if len({one.instance_id for one in attachments}) > 1:
        raise ValueError("they are of several instances: send a request for each")
    return attachments


LARGEST_BATCH = 256
"""Attachments in one request; a virtio-scsi controller has as many units."""

Together = Annotated[
    tuple[Attachment, ...], Field(max_length=LARGEST_BATCH), AfterValidator(all_apart)
]


class AttachBatchRequest(Request):
    """``attachments`` of one instance: all of them are attached, or none."""

    attachments: Annotated[Together, Field(min_length=1)]

    @property
    def instance_id(self) -> str:
        return self.attachments[0].instance_id

    @property
    def connects(self) -> tuple[Attachment, ...]:
        return self.attachments


class ConnectInstanceRequest(Request):
    """``attachments`` of the instance: all of their volumes are connected, or none."""

    instance_id: Uuid
    attachments: Together

    @property
    def connects(self) -> tuple[Attachment, ...]:
        return self.attachments

    @model_validator(mode="after")
    def _of_the_instance(self) -> "ConnectInstanceRequest":
        if any(one.instance_id != self.instance_id for one in self.attachments):
            raise ValueError("attachments are of another instance_id")
        return self


class AttachmentRef(Value):
    attachment_id: Id
    generation: Count | None = None


class DisconnectInstanceRequest(Request):
    """``attachments``: which; or "all" that this agent has of the instance."""

    instance_id: Uuid
    attachments: (
        Literal["all"] | Annotated[tuple[AttachmentRef, ...], Field(max_length=LARGEST_BATCH)]
    ) = "all"

    @model_validator(mode="after")
    def _each_once(self) -> "DisconnectInstanceRequest":
        ids = [] if self.attachments == "all" else [one.attachment_id for one in self.attachments]
        if len(set(ids)) < len(ids):
            raise ValueError("attachments has an attachment_id twice")
        return self


class DetachRequest(Request):
    """``attachment``, as it was attached, is needed only where this agent never saw it; its
    generation counts where the detach gives none."""

    attachment_id: Id
    instance_id: Uuid
    generation: Count | None = None
    attachment: Attachment | None = None

    @property
    def sent_along(self) -> tuple[Attachment, ...]:
        return () if self.attachment is None else (self.attachment,)

    @model_validator(mode="before")
    @classmethod
    def _generation_of_the_attachment(cls, given: Any) -> Any:
        whole = given.get("attachment") if isinstance(given, dict) else None
        if not isinstance(whole, dict) or given.get("generation") is not None:
            return given
        return {**given, "generation": whole.get("generation")}

    @model_validator(mode="after")
    def _same_attachment(self) -> "DetachRequest":
        whole = self.attachment
        if whole and (whole.attachment_id, whole.instance_id) != (
            self.attachment_id,
            self.instance_id,
        ):
            raise ValueError("attachment is of another attachment_id or instance_id")
        if whole and (whole.generation or 0) > (self.generation or 0):
            raise ValueError("generation is older than attachment.generation: send the newer one")
        return self


SECTOR_BYTES = 512
"""A guest counts in these: of a file that ends within one QEMU shows more than there is."""


class ExtendRequest(Request):
    """``size_bytes``: what the volume has on the storage side by now; of a file, what it shall
    have. ``connection_info``: how it is reached, where that is not as it was attached."""

    volume_id: Id
    size_bytes: Annotated[Positive, Field(multiple_of=SECTOR_BYTES)]
    connection: Annotated[AnyConnection, BeforeValidator(refuse_flat)] | None = Field(
        default=None, alias="connection_info"
    )

    @property
    def instance_id(self) -> None:
        """Whoever has the volume."""

    @property
    def wishes(self) -> dict[str, Any]:
        return {"size_bytes": self.size_bytes}


class SetIotuneRequest(Request):
    """``iotune``: all limits that the disk shall have from now on; what is left out is none."""

    attachment_id: Id
    generation: Count | None = None
    iotune: IoTune

    @property
    def instance_id(self) -> None:
        """That of the attachment, which the agent knows."""

    @property
    def wishes(self) -> dict[str, Any]:
        return {"iotune": self.iotune.limits()}


class Nothing(Value):
    """A query without arguments."""


class InstanceRef(Value):
    instance_id: Uuid


class ConnectorOf(Value):
    """Of the host; or of one instance, whose QEMU is an initiator of its own."""

    instance_id: Uuid | None = None


class VolumeRef(Value):
    volume_id: Id


class OperationRef(Value):
    operation_id: Uuid


LONGEST_WAIT_SECONDS = 30.0
"""Of one wait_operation: it holds a thread of the agent."""


class WaitRequest(Value):
    operation_id: Uuid
    timeout_seconds: Annotated[float, Field(ge=0, le=LONGEST_WAIT_SECONDS, strict=True)] = (
        LONGEST_WAIT_SECONDS
    )


class OperationFilters(Value):
    """Equal-match; what is left out matches everything."""

    state: State | None = None
    open: StrictBool | None = None
    verb: StrictStr | None = None
    operation_id: Uuid | None = None
    attachment_id: Id | None = None
    instance_id: Uuid | None = None
    volume_id: Id | None = None
    migration_id: Id | None = None


class AttachmentFilters(Value):
    """Equal-match; what is left out matches everything."""

    attachment_id: Id | None = None
    instance_id: Uuid | None = None
    volume_id: Id | None = None
    generation: Count | None = None
    newest_generation: Count | None = None
    multiattach: StrictBool | None = None
    initiator: Literal["host", "instance"] | None = None
    access_mode: Literal["rw", "ro"] | None = None
    driver_volume_type: StrictStr | None = None
    operation_id: Uuid | None = None
    promised: StrictBool | None = None
    paths_found: Count | None = None
    paths_expected: Count | None = None


OPERATIONS_AT_ONCE = 500
"""A page: of one message, and of one read of the journal, between which others have their turn. A
host keeps tens of thousands."""


class ListOperations(Value):
    """Of those accepted before ``before``, if given, the newest ``limit``, if given."""

    filters: OperationFilters = OperationFilters()
    limit: Positive | None = None
    before: Uuid | None = None


class ListAttachments(Value):
    filters: AttachmentFilters = AttachmentFilters()


class PlanQuery(Value):
    """``request`` as the verb would take it; nothing of it is accepted."""

    verb: StrictStr
    request: dict[str, Any]


def digest(payload: dict[str, Any]) -> str:
    """Tells two payloads of one ``request_id`` apart; the order of keys does not matter.

    Nor do secrets: the digest is kept long after them, and whoever knows the rest of the payload
    could try passwords against it. A key of ours would lie beside the journal."""
    text = json.dumps(without_secrets(payload), sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()
