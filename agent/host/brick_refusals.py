"""What an error of os-brick means to the caller: by the commands that it ran, see brick_trail."""

from os_brick import exception
from oslo_concurrency.processutils import ProcessExecutionError
from oslo_utils.strutils import mask_password

from agent.errors import (
    AgentError,
    AuthFailed,
    ConnectFailed,
    Invalid,
    LunMissing,
    NotAllPaths,
    ReadOnlyDevice,
    Unavailable,
    Unsupported,
)
from agent.host.brick_trail import PACKAGES, Trail, failure_of
from agent.model.connection import Connection

FOREIGN = (exception.BrickException, ProcessExecutionError, OSError, ValueError, LookupError)
"""What os-brick is known to raise."""


def connect_refusal(error: Exception, connection: Connection, trail: Trail) -> AgentError:
    """Of an error that connect_volume raised."""
    target = connection.target_names
    if isinstance(error, exception.ExecutionTimeout):
        return _hangs(connection, error)
    if trail.refused:
        return AuthFailed(
            f"{target} refused this host: {reason_of(error, trail)}; nothing stays connected: see "
            "the credentials in connection_info, and whether the storage side lets this host in"
        )
    if isinstance(error, exception.BlockDeviceReadOnly):
        return ReadOnlyDevice(
            f"the device of {target} stays read-only; nothing stays connected: attach it with "
            "access_mode ro, or make the volume writable"
        )
    if isinstance(error, exception.NoFibreChannelHostsFound):
        return ConnectFailed("this host has no working Fibre Channel HBA; look at its ports")
    if isinstance(error, _NOT_FOUND) and _was_reached(connection, trail):
        return LunMissing(
            f"{target} is reached, but shows this host no such LUN or namespace; nothing stays "
            "connected: see whether the volume is mapped to this host, then try again"
        )
    if isinstance(error, LookupError):
        return Invalid(f"connection_info.data lacks what os-brick needs: {error}")
    return ConnectFailed(
        f"{target} did not give this host the volume: {reason_of(error, trail)}; nothing stays "
        "connected: look at the network and the storage side, then try again"
    )


def no_multipath(connection: Connection) -> ConnectFailed:
    """It is enforced, and os-brick found that this host has none."""
    if connection.lane == "nvme":
        lacks, advice = "native NVMe multipath is off in this kernel", "see nvme_core.multipath"
    else:
        lacks, advice = "multipathd does not run on this host", "'systemctl start multipathd'"
    return ConnectFailed(
        f"{lacks}, and multipath is enforced; nothing was connected to {connection.target_names}: "
        f"{advice}, then try again"
    )


def disconnect_refusal(error: Exception, connection: Connection, trail: Trail) -> AgentError:
    """Of an error that disconnect_volume raised."""
    if isinstance(error, exception.ExecutionTimeout):
        return _hangs(connection, error)
    return ConnectFailed(
        f"the volume of {connection.target_names} could not be taken off this host: "
        f"{reason_of(error, trail)}; its device stays, and it is tried again"
    )


def extend_refusal(error: Exception, connection: Connection, trail: Trail) -> AgentError:
    """Of an error that extend_volume raised."""
    if isinstance(error, exception.ExecutionTimeout):
        return _hangs(connection, error)
    if isinstance(error, NotImplementedError):
        return Unsupported(
            f"os-brick cannot extend {connection.driver_volume_type} volumes while they are "
            "connected; nothing was done to any guest: the size is seen after a detach and attach"
        )
    if type(error) is exception.BrickException:  # it raises that where a path does not answer
        return NotAllPaths(
            f"a path to the volume of {connection.target_names} does not work "
            f"({reason_of(error, trail)}); nothing was done to any guest: look at 'multipath -ll' "
            "and the storage network, then send it again"
        )
    return ConnectFailed(
        f"the new size of the volume of {connection.target_names} could not be read: "
        f"{reason_of(error, trail)}; nothing was done to any guest: send it again"
    )


def no_lsscsi() -> Unsupported:
    """os-brick finds the paths of a SCSI device by it."""
    return Unsupported(
        "this host cannot extend SCSI volumes: it has no lsscsi; nothing was done: install "
        f"{PACKAGES['lsscsi']}"
    )


_NOT_FOUND = (
    exception.VolumeDeviceNotFound,
    exception.VolumePathsNotFound,
    exception.NoFibreChannelVolumeDeviceFound,
)


def _was_reached(connection: Connection, trail: Trail) -> bool:
    if connection.driver_volume_type in ("iscsi", "iser", "nvmeof"):
        return trail.reached
    return not trail.failures


def _hangs(connection: Connection, error: exception.ExecutionTimeout) -> Unavailable:
    return Unavailable(
        f"storage of {connection.target_names}",
        f"a command was given up ({mask_password(str(error.stderr))}); it is tried again",
    )


def reason_of(error: Exception, trail: Trail) -> str:
    """Why, in words that are safe to show."""
    if trail.asleep and not trail.reached:
        return trail.asleep
    if trail.reason is not None:
        return str(trail.reason)
    if isinstance(error, exception.ExceptionChainer):  # its text is tracebacks
        return "several of its steps failed, see the log"
    if isinstance(error, ProcessExecutionError):
        return str(failure_of(("a command",), error))
    return mask_password(str(error)) or "os-brick gives no reason"
