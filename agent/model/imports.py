"""Attachments that somebody else made, to be taken over as they are (docs/import.rst)."""

import uuid
from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import Field, StrictBool, StrictStr, model_validator

from agent.model.attachment import Attachment
from agent.model.request import LARGEST_BATCH
from agent.model.value import Value

IDS = uuid.UUID("5f6f1f0e-7a59-5c0a-9b7e-0c3f1f0a9d42")
"""Of attachments that nobody has given an id."""


class ImportEntry(Value):
    """``attachment`` as its attach would have it; without an ``attachment_id`` it gets one that is
    the same every time. ``serial``: what the guest sees, where that is not the volume's id."""

    attachment: Attachment
    serial: StrictStr | None = None

    @model_validator(mode="before")
    @classmethod
    def _has_an_id(cls, given: Any) -> Any:
        wanted = given.get("attachment") if isinstance(given, Mapping) else None
        if not isinstance(wanted, Mapping) or wanted.get("attachment_id") is not None:
            return given
        minted = minted_id(wanted.get("instance_id"), wanted.get("volume_id"))
        return {**given, "attachment": {**wanted, "attachment_id": minted}}


class ImportQuery(Value):
    """Each of ``entries`` is an ImportEntry, and is judged by itself."""

    entries: Annotated[tuple[dict[str, Any], ...], Field(max_length=LARGEST_BATCH)]
    dry_run: StrictBool = True


def minted_id(instance_id: object, volume_id: object) -> str:
    """An instance has a volume once."""
    return str(uuid.uuid5(IDS, f"{instance_id} {volume_id}"))
