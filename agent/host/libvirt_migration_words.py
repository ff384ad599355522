"""A migration in libvirt's words: what it is told, and what it tells. Pure.

Never VIR_MIGRATE_NON_SHARED_*: volumes are not copied. Never VIR_MIGRATE_UNSAFE.
"""

from collections.abc import Mapping
from typing import Any, Final

import libvirt

from agent.model.migration import Journey, MigrationProgress, Phase

_PARALLEL: Final = 1 << 17
POSTCOPY_RESUME: Final = 1 << 19
KEEP_COMPLETED: Final = 1 << 1
"""VIR_MIGRATE_PARALLEL, VIR_MIGRATE_POSTCOPY_RESUME and VIR_DOMAIN_JOB_STATS_KEEP_COMPLETED: a
binding made for libvirt 3.10 has no names for them."""

_MOVING: Final = libvirt.VIR_DOMAIN_JOB_OPERATION_MIGRATION_OUT
_MOVES: Final = frozenset((_MOVING, libvirt.VIR_DOMAIN_JOB_OPERATION_MIGRATION_IN))

_STANDING: Final[Mapping[tuple[int, int], Phase]] = {
    (libvirt.VIR_DOMAIN_PAUSED, libvirt.VIR_DOMAIN_PAUSED_POSTCOPY): "postcopy",
    (libvirt.VIR_DOMAIN_PAUSED, libvirt.VIR_DOMAIN_PAUSED_POSTCOPY_FAILED): "postcopy-failed",
}

ARRIVED_IN_POST_COPY: Final = frozenset(
    (
        (libvirt.VIR_DOMAIN_RUNNING, libvirt.VIR_DOMAIN_RUNNING_POSTCOPY),
        (libvirt.VIR_DOMAIN_RUNNING, 11),
    )
)
"""state() at the destination; 11 is VIR_DOMAIN_RUNNING_POSTCOPY_FAILED."""

BACK: Final = (libvirt.VIR_DOMAIN_RUNNING, libvirt.VIR_DOMAIN_RUNNING_MIGRATION_CANCELED)
"""libvirt says so only where it had the guest standing (qemuMigrationSrcRestoreDomainState), and
until somebody pauses the guest, whether libvirtd restarts meanwhile or not."""

HELD: Final = (libvirt.VIR_DOMAIN_PAUSED, libvirt.VIR_DOMAIN_PAUSED_USER)
"""state() of a domain that somebody has paused; what stands for a migration has other reasons."""

_STATISTICS: Final = {
    "elapsed_milliseconds": libvirt.VIR_DOMAIN_JOB_TIME_ELAPSED,
    "downtime_milliseconds": libvirt.VIR_DOMAIN_JOB_DOWNTIME,
    "setup_milliseconds": libvirt.VIR_DOMAIN_JOB_SETUP_TIME,
    "transferred_bytes": libvirt.VIR_DOMAIN_JOB_DATA_PROCESSED,
    "total_bytes": libvirt.VIR_DOMAIN_JOB_DATA_TOTAL,
    "iterations": libvirt.VIR_DOMAIN_JOB_MEMORY_ITERATION,
}
"""What ports.Migrations calls them, and libvirt (its times are milliseconds)."""


def flags_of(journey: Journey) -> int:
    """What was transient stays so."""
    options, is_persistent = journey.options, journey.persistent_xml is not None
    wanted = {
        libvirt.VIR_MIGRATE_LIVE: True,
        libvirt.VIR_MIGRATE_PEER2PEER: True,
        libvirt.VIR_MIGRATE_PERSIST_DEST: is_persistent,
        libvirt.VIR_MIGRATE_UNDEFINE_SOURCE: is_persistent,
        libvirt.VIR_MIGRATE_AUTO_CONVERGE: options.auto_converge,
        libvirt.VIR_MIGRATE_POSTCOPY: options.post_copy,
        libvirt.VIR_MIGRATE_TLS: options.tls,
        _PARALLEL: options.parallel_connections is not None,
    }
    return sum(flag for flag, is_wanted in wanted.items() if is_wanted)


def parameters_of(journey: Journey) -> dict[str, str | int]:
    bandwidth = journey.options.bandwidth_mib_per_second
    values: dict[str, str | int | None] = {
        libvirt.VIR_MIGRATE_PARAM_DEST_XML: journey.live_xml,
        libvirt.VIR_MIGRATE_PARAM_PERSIST_XML: journey.persistent_xml,
        libvirt.VIR_MIGRATE_PARAM_URI: journey.migrate_uri,
        libvirt.VIR_MIGRATE_PARAM_BANDWIDTH: bandwidth,
        "parallel.connections": journey.options.parallel_connections,
    }
    return {name: value for name, value in values.items() if value is not None}


def post_copy_phase(state: int, reason: int) -> Phase | None:
    """Of the source's state(), which asks nobody.

    QEMU must not be asked then: where the link is cut it answers when TCP gives up, and for so long
    libvirt lets nobody else do anything about the domain (QEMU 7.2, libvirt 9.0)."""
    return _STANDING.get((state, reason))


def progress_of(job: Mapping[str, Any], state: int, reason: int) -> MigrationProgress | None:
    """Of jobStats() and state(); None: it is no job that takes the domain away."""
    if job.get(libvirt.VIR_DOMAIN_JOB_OPERATION) != _MOVING:
        return None
    phase: Phase = "precopy"
    if not job.get(libvirt.VIR_DOMAIN_JOB_DATA_TOTAL):
        phase = "setup"
    if state == libvirt.VIR_DOMAIN_PAUSED and (state, reason) != HELD:
        phase = "switchover"

    def number(name: str) -> int:
        return int(job.get(name, 0))

    return MigrationProgress(
        phase=phase,
        done_bytes=number(libvirt.VIR_DOMAIN_JOB_DATA_PROCESSED),
        remaining_bytes=number(libvirt.VIR_DOMAIN_JOB_DATA_REMAINING),
        total_bytes=number(libvirt.VIR_DOMAIN_JOB_DATA_TOTAL),
        rate_bytes_per_second=number(libvirt.VIR_DOMAIN_JOB_MEMORY_BPS),
        dirty_bytes_per_second=number(libvirt.VIR_DOMAIN_JOB_MEMORY_DIRTY_RATE)
        * number(libvirt.VIR_DOMAIN_JOB_MEMORY_PAGE_SIZE),
        downtime_milliseconds=number(libvirt.VIR_DOMAIN_JOB_DOWNTIME),
        elapsed_milliseconds=number(libvirt.VIR_DOMAIN_JOB_TIME_ELAPSED),
        iteration=number(libvirt.VIR_DOMAIN_JOB_MEMORY_ITERATION),
    )


def statistics_of(job: Mapping[str, Any]) -> dict[str, int]:
    """Empty for another job than a migration."""
    if job.get(libvirt.VIR_DOMAIN_JOB_OPERATION) not in _MOVES:
        return {}
    return {ours: int(job[theirs]) for ours, theirs in _STATISTICS.items() if theirs in job}
