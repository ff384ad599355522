"""A copy of a running guest's disk to another volume: what is asked of it, how far it is."""

from dataclasses import dataclass


@dataclass(frozen=True)
class CopyWishes:
    """``synchronous_writes``: the guest's writes end when both volumes have them, so that the copy
    comes to an end however much it writes. ``bandwidth_bytes_per_second`` None: no limit."""

    bandwidth_bytes_per_second: int | None = None
    synchronous_writes: bool = False


@dataclass(frozen=True)
class CopyProgress:
    """QEMU's word on a copy that runs. ``total_bytes`` grows with what the guest writes
    meanwhile."""

    done_bytes: int
    total_bytes: int
