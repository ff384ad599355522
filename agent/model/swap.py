"""swap: a running guest's disk moves to another volume, under the guest."""

from typing import Any

from pydantic import StrictBool, model_validator

from agent.model.attachment import Attachment
from agent.model.request import Request
from agent.model.value import Count, Id, Positive


class SwapRequest(Request):
    """``attachment_id`` and ``generation`` are of the attachment that is in place, ``new`` is the
    one that takes its place. ``sole_user``: the sender knows that no other host has the volume,
    which may be shared."""

    attachment_id: Id
    generation: Count | None = None
    new: Attachment
    sole_user: StrictBool = False
    bandwidth_bytes_per_second: Positive | None = None
    synchronous_writes: StrictBool = False

    @property
    def instance_id(self) -> str:
        return self.new.instance_id

    @property
    def connects(self) -> tuple[Attachment, ...]:
        return (self.new,)

    @property
    def wishes(self) -> dict[str, Any]:
        return {
            "sole_user": self.sole_user,
            "bandwidth_bytes_per_second": self.bandwidth_bytes_per_second,
            "synchronous_writes": self.synchronous_writes,
        }

    @model_validator(mode="after")
    def _to_another(self) -> "SwapRequest":
        if self.new.attachment_id == self.attachment_id:
            raise ValueError("new.attachment_id is attachment_id: each volume has one of its own")
        if self.new.connection.data.access_mode == "ro":
            raise ValueError("new.connection_info.data.access_mode is ro: it could not be written")
        return self
