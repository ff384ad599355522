"""What libvirt 9.0.0 says of migrations, and what callers are told. Read off a real one."""

import libvirt
import pytest

from agent.errors import (
    AgentError,
    Busy,
    Invalid,
    MigrationFailed,
    Unavailable,
    Unsupported,
)
from agent.host.libvirt_refusals import is_no_such_job, is_on_its_way_here, migration_refusal

REFUSALS: list[tuple[int | None, str, type[AgentError], str]] = [
    (
        38,
        "unable to connect to server at '192.0.2.2:16509': Connection refused",
        MigrationFailed,
        "does not reach",
    ),
    (
        38,
        "unable to connect to server at 'h:16509': No route to host",
        MigrationFailed,
        "does not reach",
    ),
    (1, "internal error: client socket is closed", MigrationFailed, "broke"),
    (38, "End of file while reading data: Input/output error", MigrationFailed, "broke"),
    (
        55,
        "Requested operation is not valid: QEMU reports migration is still running",
        Busy,
        "by themselves",
    ),
    (42, "Domain not found: no domain with matching name 'g'", MigrationFailed, "has lost"),
    (
        78,
        "operation aborted: job 'migration out' canceled by client",
        MigrationFailed,
        "given up as asked",
    ),
    (9, "operation failed: migration out job: unexpectedly failed", MigrationFailed, "did not"),
    (9, "operation failed: domain 'g' already exists with uuid 8e", MigrationFailed, "did not"),
    (81, "Unsafe migration: Migration without shared storage is unsafe", Unsupported, "cache none"),
    (
        1,
        "internal error: unable to execute QEMU command 'object-add': Unable to access credentials "
        "/etc/pki/qemu/ca-cert.pem: No such file or directory",
        Unsupported,
        "options.tls",
    ),
    (
        67,
        "unsupported configuration: the CPU is incompatible with host CPU",
        Unsupported,
        "cannot move",
    ),
    (
        84,
        "Operation not supported: auto-converge is not supported by QEMU binary",
        Unsupported,
        "cannot move",
    ),
    (
        1,
        "internal error: Attempt to migrate guest to the same host cea92e58",
        Invalid,
        "back to this host",
    ),
    (
        55,
        "Requested operation is not valid: switching to post-copy requires migration to be started "
        "with VIR_MIGRATE_POSTCOPY flag",
        Invalid,
        "options.post_copy",
    ),
    (
        55,
        "Requested operation is not valid: another migration job is already running for domain 'g'",
        Busy,
        "occupied",
    ),
    (55, "Requested operation is not valid: domain has active block job", Busy, "occupied"),
    (68, "Timed out during operation: cannot acquire state change lock", Busy, "occupied"),
    (None, "virDomainMigrateToURI3() failed", Unavailable, "failed"),
]


@pytest.mark.parametrize(("code", "message", "expected", "words"), REFUSALS)
def test_a_caller_can_decide_by_the_class(
    code: int | None, message: str, expected: type[AgentError], words: str
) -> None:
    refusal = migration_refusal(code, message)
    assert type(refusal) is expected
    assert words in refusal.detail
    if expected is not Invalid:
        assert message in refusal.detail


def test_what_says_that_nothing_goes_away() -> None:
    invalid, unsupported = libvirt.VIR_ERR_OPERATION_INVALID, libvirt.VIR_ERR_OPERATION_UNSUPPORTED
    comes = "Operation not supported: migration statistics are available only on the source host"
    assert is_on_its_way_here(unsupported, comes)
    assert not is_on_its_way_here(invalid, comes)
    assert is_no_such_job(
        invalid, "Requested operation is not valid: no job is active on the domain"
    )
    assert not is_no_such_job(
        invalid, "Requested operation is not valid: cannot abort migration in post-copy mode"
    )
