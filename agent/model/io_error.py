"""What a guest met on one of its disks, by QEMU's word."""

from typing import Literal

from pydantic import StrictStr

from agent.model.value import Uuid, Value

Action = Literal["report", "stop", "ignore"]
"""What QEMU did: told the guest, paused the guest, or neither."""


class IoError(Value):
    """``alias`` is libvirt's of the disk, a user's or its own; ``reason`` where QEMU gives one
    (``enospc``)."""

    instance_id: Uuid
    alias: StrictStr
    action: Action
    reason: StrictStr | None = None
