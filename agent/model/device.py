"""What a connected volume is on this host."""

from typing import Any

from pydantic import StrictStr

from agent.model.value import Count, Value


class Device(Value):
    """A host block device, file or network image; valid until reboot.

    ``path`` is what the disk XML names and is stable (/dev/disk/by-id/…, never /dev/sdX);
    for a network disk it is ``rbd:pool/image``. ``identity`` is what the device says of itself
    ({name: value}; names as in model.attachment.Identity, and ``path`` where it has nothing
    better). ``device_info`` is os-brick's, handed back at disconnect: without it os-brick skips
    the flush.
    """

    path: StrictStr
    identity: dict[str, str]
    size_bytes: Count
    read_only: bool = False
    device_info: dict[str, Any] = {}
    paths_found: Count = 1
    paths_expected: Count = 1


class Disconnected(Value):
    """The volume is off this host.

    ``awaiting_unmap``: a namespace of a subsystem that other volumes use stays visible until the
    storage side unmaps it; it is flushed and nothing uses it.
    """

    awaiting_unmap: bool = False
