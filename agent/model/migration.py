"""A live migration: what the sender may choose, what libvirt is given, and how far it has come."""

from dataclasses import dataclass, field
from typing import Final, Literal

from pydantic import StrictBool, StrictStr, ValidationInfo, model_validator

from agent.model.value import Positive, Value, is_asked

Phase = Literal["setup", "precopy", "switchover", "postcopy", "postcopy-failed"]
"""Where the guest runs: here, up to switchover, in which it runs nowhere; over there in postcopy;
nowhere when that has failed."""

IN_POST_COPY: Final[frozenset[Phase]] = frozenset(("postcopy", "postcopy-failed"))

OnTimeout = Literal["abort", "post_copy", "pause"]

_MIB: Final = 1024 * 1024

MOST_CONNECTIONS: Final = 255
MOST_DOWNTIME_MILLISECONDS: Final = 2_000_000
"""Of QEMU's multifd-channels and downtime-limit (migrate_params_check): more is refused once the
guest is on its way."""


class MigrationOptions(Value):
    """``options`` of migrate. What is left out is as libvirt does it.

    ``post_copy`` only allows it; it begins where ``on_timeout`` says so. The time-outs count from
    the start of the copy and from the last time when less was left than ever before.
    ``same_devices``: paths of block devices that are no attachments, and the same over there.
    ``max_downtime_milliseconds`` are allowed in so many ``downtime_steps``, one each
    ``downtime_step_seconds``."""

    bandwidth_bytes_per_second: Positive | None = None
    auto_converge: StrictBool = False
    post_copy: StrictBool = False
    parallel_connections: Positive | None = None
    tls: StrictBool = False
    completion_timeout_seconds: Positive | None = None
    no_progress_timeout_seconds: Positive | None = None
    max_downtime_milliseconds: Positive | None = None
    downtime_steps: Positive = 1
    downtime_step_seconds: Positive = 30
    on_timeout: OnTimeout = "abort"
    same_devices: tuple[StrictStr, ...] = ()

    @model_validator(mode="after")
    def _is_allowed(self, info: ValidationInfo) -> "MigrationOptions":
        most = {
            "parallel_connections": MOST_CONNECTIONS,
            "max_downtime_milliseconds": MOST_DOWNTIME_MILLISECONDS,
        }
        for name, limit in most.items() if is_asked(info) else ():
            if (getattr(self, name) or 0) > limit:
                raise ValueError(f"{name}: QEMU takes at most {limit}")
        if self.on_timeout == "post_copy" and not self.post_copy:
            raise ValueError("on_timeout is post_copy: that needs post_copy true as well")
        if self.downtime_steps > 1 and self.max_downtime_milliseconds is None:
            raise ValueError("downtime_steps: of what, max_downtime_milliseconds says")
        return self

    def downtime_milliseconds(self, after_seconds: float = 0.0) -> int | None:
        """What is allowed so long after the start; None: what libvirt allows."""
        if self.max_downtime_milliseconds is None:
            return None
        step = min(self.downtime_steps, 1 + int(after_seconds // self.downtime_step_seconds))
        return -(-self.max_downtime_milliseconds * step // self.downtime_steps)

    @property
    def bandwidth_mib_per_second(self) -> int | None:
        """libvirt's unit, rounded up: zero would mean no limit."""
        if self.bandwidth_bytes_per_second is None:
            return None
        return -(-self.bandwidth_bytes_per_second // _MIB)


@dataclass(frozen=True)
class Journey:
    """What libvirt is given. The XML is the destination's, and may hold a console's password."""

    libvirt_uri: str
    migrate_uri: str | None
    live_xml: str = field(repr=False)
    persistent_xml: str | None = field(repr=False)
    options: MigrationOptions


@dataclass(frozen=True)
class MigrationProgress:
    """libvirt's word on a migration that runs. What it does not tell is 0: all of it in post-copy.

    ``downtime_milliseconds`` is what it expects; rates are of the guest's memory."""

    phase: Phase
    done_bytes: int = 0
    remaining_bytes: int = 0
    total_bytes: int = 0
    rate_bytes_per_second: int = 0
    dirty_bytes_per_second: int = 0
    downtime_milliseconds: int = 0
    elapsed_milliseconds: int = 0
    iteration: int = 0
