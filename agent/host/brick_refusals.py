"""What an error of os-brick means to the caller.

os-brick hides reasons: a wrong CHAP password, a portal that is down and a LUN that is missing all
end as "volume device not found". The reason is in the commands that it ran, so those that failed
are written down on the way (never their arguments: passwords are among them).
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from os_brick import exception
from oslo_concurrency.processutils import ProcessExecutionError
from oslo_utils.strutils import mask_password

from agent.errors import AgentError, AuthFailed, ConnectFailed, Invalid, LunMissing, Unavailable
from agent.model.connection import Connection

ISCSI_LOGIN_REFUSED = 24
"""iscsiadm(8), exit status ISCSI_ERR_LOGIN_AUTH_FAILED."""

PACKAGES = {
    "iscsiadm": "open-iscsi",
    "multipath": "multipath-tools",
    "multipathd": "multipath-tools",
    "nvme": "nvme-cli",
    "mount.nfs": "nfs-common",
    "lsscsi": "lsscsi",
}
"""Debian's, by tool."""

Execute = Callable[..., tuple[str, str]]

FOREIGN = (exception.BrickException, ProcessExecutionError, OSError, ValueError, LookupError)
"""What os-brick is known to raise."""


@dataclass(frozen=True)
class Failure:
    """A command that failed; ``exit_code`` None: it could not be run."""

    tool: str
    exit_code: int | None
    said: str

    def __str__(self) -> str:
        if self.exit_code is None:
            package = PACKAGES.get(self.tool)
            advice = f" (install {package})" if package else ""
            return f"{self.tool} could not be run{advice}"
        said = f": {self.said}" if self.said else ""
        return f"{self.tool} ended with {self.exit_code}{said}"


class Trail:
    """Runs commands for one call of os-brick, and remembers how they ended."""

    def __init__(self, execute: Execute) -> None:
        self._execute = execute
        self.failures: list[Failure] = []
        self.logged_in = False

    def execute(self, *command: str, **how: Any) -> tuple[str, str]:
        try:
            done = self._execute(*command, **how)
        except ProcessExecutionError as error:
            self.failures.append(_failure(str(command[0]), error))
            raise
        if command[0] == "iscsiadm" and "--login" in command:
            self.logged_in = True
        return done


def connect_refusal(error: Exception, connection: Connection, trail: Trail) -> AgentError:
    """Of an error that connect_volume raised."""
    target = connection.target_names
    if isinstance(error, exception.ExecutionTimeout):
        return _hangs(connection, error)
    if _refused_us(trail):
        return AuthFailed(
            f"{target} refused this host: {reason_of(error, trail)}; nothing stays connected: see "
            "the credentials in connection_info, and whether the storage side lets this host in"
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


def disconnect_refusal(error: Exception, connection: Connection, trail: Trail) -> AgentError:
    """Of an error that disconnect_volume raised."""
    if isinstance(error, exception.ExecutionTimeout):
        return _hangs(connection, error)
    return ConnectFailed(
        f"the volume of {connection.target_names} could not be taken off this host: "
        f"{reason_of(error, trail)}; its device stays, and it is tried again"
    )


_NOT_FOUND = (
    exception.VolumeDeviceNotFound,
    exception.VolumePathsNotFound,
    exception.NoFibreChannelVolumeDeviceFound,
)


def _failure(tool: str, error: ProcessExecutionError) -> Failure:
    said = str(error.stderr or "").strip().splitlines()
    code = error.exit_code
    last = mask_password(said[-1]) if said else ""
    return Failure(tool, None if code in (None, "-") else int(code), last)


def _refused_us(trail: Trail) -> bool:
    refused = any(
        failure.tool == "iscsiadm" and failure.exit_code == ISCSI_LOGIN_REFUSED
        for failure in trail.failures
    )
    denied = any("access denied" in failure.said for failure in trail.failures)  # mount.nfs
    return (refused and not trail.logged_in) or denied


def _was_reached(connection: Connection, trail: Trail) -> bool:
    if connection.driver_volume_type in ("iscsi", "iser"):
        return trail.logged_in
    return not trail.failures


def _hangs(connection: Connection, error: exception.ExecutionTimeout) -> Unavailable:
    return Unavailable(
        f"storage of {connection.target_names}",
        f"a command was given up ({mask_password(str(error.stderr))}); it is tried again",
    )


def reason_of(error: Exception, trail: Trail) -> str:
    """Why, in words that are safe to show."""
    if trail.failures:
        return str(trail.failures[-1])
    if isinstance(error, exception.ExceptionChainer):  # its text is tracebacks
        return "several of its steps failed, see the log"
    if isinstance(error, ProcessExecutionError):
        return str(_failure("a command", error))
    return mask_password(str(error)) or "os-brick gives no reason"
