"""What libvirt is told of a migration, and what is made of its word. Numbers read off 9.0.0."""

from typing import Any

import libvirt
import pytest

from agent.host.libvirt_migration_words import (
    ARRIVED_IN_POST_COPY,
    HELD,
    flags_of,
    parameters_of,
    post_copy_phase,
    progress_of,
    statistics_of,
)
from agent.model.migration import Journey, MigrationOptions, MigrationProgress, Phase

RUNNING = (libvirt.VIR_DOMAIN_RUNNING, libvirt.VIR_DOMAIN_RUNNING_BOOTED)
STANDING = (libvirt.VIR_DOMAIN_PAUSED, libvirt.VIR_DOMAIN_PAUSED_MIGRATION)

JOB = {
    "operation": 5,
    "type": 2,
    "time_elapsed": 2519,
    "downtime": 300,
    "setup_time": 1,
    "data_total": 268967936,
    "data_processed": 46206525,
    "data_remaining": 187711488,
    "memory_bps": 20977740,
    "memory_dirty_rate": 3,
    "memory_iteration": 1,
    "memory_page_size": 4096,
}


def journey(*, is_persistent: bool = True, **options: Any) -> Journey:
    return Journey(
        libvirt_uri="qemu+tcp://there/system",
        migrate_uri="tcp://there" if options else None,
        live_xml="<live/>",
        persistent_xml="<persistent/>" if is_persistent else None,
        options=MigrationOptions.parse(options),
    )


def test_as_little_as_it_takes() -> None:
    assert flags_of(journey()) == (
        libvirt.VIR_MIGRATE_LIVE
        | libvirt.VIR_MIGRATE_PEER2PEER
        | libvirt.VIR_MIGRATE_PERSIST_DEST
        | libvirt.VIR_MIGRATE_UNDEFINE_SOURCE
    )
    assert parameters_of(journey()) == {
        "destination_xml": "<live/>",
        "persistent_xml": "<persistent/>",
    }


def test_what_is_transient_is_defined_nowhere() -> None:
    flags = flags_of(journey(is_persistent=False))
    assert not flags & (libvirt.VIR_MIGRATE_PERSIST_DEST | libvirt.VIR_MIGRATE_UNDEFINE_SOURCE)
    assert parameters_of(journey(is_persistent=False)) == {"destination_xml": "<live/>"}


@pytest.mark.parametrize(
    ("options", "flag"),
    [
        ({"auto_converge": True}, "VIR_MIGRATE_AUTO_CONVERGE"),
        ({"post_copy": True}, "VIR_MIGRATE_POSTCOPY"),
        ({"tls": True}, "VIR_MIGRATE_TLS"),
        ({"parallel_connections": 4}, "VIR_MIGRATE_PARALLEL"),
    ],
)
def test_each_wish_is_one_flag(options: dict[str, Any], flag: str) -> None:
    assert flags_of(journey(**options)) == flags_of(journey()) | getattr(libvirt, flag)


def test_everything_that_is_a_parameter() -> None:
    told = parameters_of(journey(bandwidth_bytes_per_second=(1 << 20) + 1, parallel_connections=4))
    assert told["bandwidth"] == 2, "MiB/s, rounded up"
    assert told["parallel.connections"] == 4
    assert told["migrate_uri"] == "tcp://there"


def test_volumes_are_never_copied_and_nothing_unsafe_is_done() -> None:
    everything = flags_of(
        journey(auto_converge=True, post_copy=True, tls=True, parallel_connections=2)
    )
    for flag in ("NON_SHARED_DISK", "NON_SHARED_INC", "UNSAFE", "TUNNELLED"):
        assert not everything & getattr(libvirt, f"VIR_MIGRATE_{flag}")


def test_how_far_it_is() -> None:
    assert progress_of(JOB, *RUNNING) == MigrationProgress(
        phase="precopy",
        done_bytes=46206525,
        remaining_bytes=187711488,
        total_bytes=268967936,
        rate_bytes_per_second=20977740,
        dirty_bytes_per_second=3 * 4096,
        downtime_milliseconds=300,
        elapsed_milliseconds=2519,
        iteration=1,
    )


@pytest.mark.parametrize(
    ("job", "condition", "phase"),
    [
        ({**JOB, "data_total": 0}, RUNNING, "setup"),
        ({"operation": 5, "type": 2}, RUNNING, "setup"),
        (JOB, STANDING, "switchover"),
        (JOB, HELD, "precopy"),
    ],
)
def test_where_the_guest_runs(
    job: dict[str, int], condition: tuple[int, int], phase: Phase
) -> None:
    progress = progress_of(job, *condition)
    assert progress is not None
    assert progress.phase == phase


def test_a_post_copy_shows_in_the_state_alone() -> None:
    paused = libvirt.VIR_DOMAIN_PAUSED
    assert post_copy_phase(paused, libvirt.VIR_DOMAIN_PAUSED_POSTCOPY) == "postcopy"
    assert post_copy_phase(paused, libvirt.VIR_DOMAIN_PAUSED_POSTCOPY_FAILED) == "postcopy-failed"
    assert post_copy_phase(paused, libvirt.VIR_DOMAIN_PAUSED_MIGRATION) is None
    same_number = libvirt.VIR_DOMAIN_PAUSED_POSTCOPY
    assert post_copy_phase(libvirt.VIR_DOMAIN_RUNNING, same_number) is None
    assert {
        (libvirt.VIR_DOMAIN_RUNNING, libvirt.VIR_DOMAIN_RUNNING_POSTCOPY),
        (libvirt.VIR_DOMAIN_RUNNING, libvirt.VIR_DOMAIN_RUNNING_POSTCOPY_FAILED),
    } == ARRIVED_IN_POST_COPY


def test_other_jobs_do_not_take_it_away() -> None:
    for operation in range(10):
        found = progress_of({**JOB, "operation": operation}, *RUNNING)
        assert (found is None) == (operation != libvirt.VIR_DOMAIN_JOB_OPERATION_MIGRATION_OUT)
    assert progress_of({"type": 0}, *RUNNING) is None


def test_how_it_was() -> None:
    assert statistics_of(JOB) == {
        "elapsed_milliseconds": 2519,
        "downtime_milliseconds": 300,
        "setup_milliseconds": 1,
        "transferred_bytes": 46206525,
        "total_bytes": 268967936,
        "iterations": 1,
    }
    assert statistics_of({**JOB, "operation": libvirt.VIR_DOMAIN_JOB_OPERATION_DUMP}) == {}
    assert statistics_of({"operation": 4, "time_elapsed": 7}) == {"elapsed_milliseconds": 7}
