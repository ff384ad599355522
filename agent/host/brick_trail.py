"""The commands that os-brick runs for one call: how they ended, and for how long they may go on.

os-brick hides reasons: a wrong CHAP password, a portal that is down and a LUN that is missing all
end as "volume device not found". The reason is in the commands, so those that failed are written
down on the way (never their arguments: passwords are among them).

It also tries what cannot succeed again and again, with its lock held. So a login that iscsid has
given up, and a mount that was given up, fail at once when they are tried a second time.
"""

import re
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from os_brick import exception
from oslo_concurrency.processutils import ProcessExecutionError
from oslo_utils.strutils import mask_password

from agent.host.sysfs import text

TOOLS = {
    "iscsi": ("iscsiadm",),
    "iser": ("iscsiadm",),
    "nvmeof": ("nvme",),
    "lightos": ("nvme",),
    "nfs": ("mount.nfs",),
}
"""What os-brick runs, by protocol; what is missing is told before anything is touched."""

PACKAGES = {
    "iscsiadm": "open-iscsi",
    "multipath": "multipath-tools",
    "multipathd": "multipath-tools",
    "nvme": "nvme-cli",
    "mount.nfs": "nfs-common",
    "lsscsi": "lsscsi",
}
"""Debian's, by tool."""

ISCSI_LOGIN_REFUSED = 24
"""iscsiadm(8), exit status ISCSI_ERR_LOGIN_AUTH_FAILED."""

ISCSI_NOTHING_FOUND = 21
"""ISCSI_ERR_NO_OBJS_FOUND, which iscsiadm itself would say if it looked."""

LOGIN_TIMEOUTS = 2
"""node.session.initial_login_retry_max, in node.conn[0].timeo.login_timeout: iscsid tries a first
login anew for as long. With its own 8 times 15 seconds a silent portal would hold os-brick's lock
for two minutes; so it is half a minute. It says nothing about sessions that were there before."""

LOGINS_AT_MOST = 5
"""os-brick logs in until iscsiadm lists the session under the portal's and the target's very names,
for ever, with its lock held: it may be listed under others, or iscsid may only say that it is there
(exit status 15)."""

MOUNT_SECONDS = 60
"""What a server may take for a mount. mount(8) has no time-out of its own, and what it has started
lives on when it alone is killed, so timeout(1) ends both."""

MOUNTS = ("mount", "pstorage-mount")

SYSTEMD_RUNS = Path("/run/systemd/system")
"""Where it does (sd_booted(3))."""

IN_A_SCOPE = ("systemd-run", "--scope", "--quiet", "--property=Before=libvirt-guests.service", "--")
"""A file system in user space is served by a process that the mount starts. In our unit's control
group it would be killed when we are stopped, and every guest with a file below it would lose its
disk; so it has a group of its own, which at a shutdown outlives the guests (docs/operate.rst)."""

SCOPE_SECONDS = 15
"""What systemd may take to begin it."""

TIMED_OUT = 124
"""Exit status of timeout(1)."""

SCSI_HOSTS = "/sys/class/scsi_host/"

Execute = Callable[..., tuple[str, str]]


@dataclass(frozen=True)
class Failure:
    """A command that failed; ``exit_code`` None: it could not be run. ``way``: the portal or export
    that it tried to get in by; None: it tried something else."""

    tool: str
    exit_code: int | None
    said: str
    way: str | None = None

    def __str__(self) -> str:
        if self.exit_code is None:
            package = PACKAGES.get(self.tool)
            advice = f" (install {package})" if package else ""
            return f"{self.tool} could not be run{advice}"
        where = f" of {self.way}" if self.way else ""
        said = f": {self.said}" if self.said else ""
        return f"{self.tool}{where} ended with {self.exit_code}{said}"


class Trail:
    """Runs commands for one call of os-brick, and remembers how they ended.

    ``reached``: a target let us in, so what is missing is missing behind it. ``asleep`` tells of a
    session that was scanned and does not work. ``systemd_runs`` and ``sys`` are what tests
    replace."""

    def __init__(
        self, execute: Execute, systemd_runs: Path = SYSTEMD_RUNS, sys: Path = Path("/sys")
    ) -> None:
        self._execute = execute
        self._sys = sys
        self._systemd_runs = systemd_runs
        self._given_up: dict[tuple[str, ...], ProcessExecutionError] = {}
        self._logins = Counter[tuple[str, ...]]()
        self.failures: list[Failure] = []
        self.asleep: str | None = None
        self._reached: set[str | None] = set()
        self._open_ways: set[str | None] = set()

    def execute(self, *command: str, **how: Any) -> tuple[str, str]:
        hopeless = self._given_up.get(_attempt(command))
        if hopeless is not None:
            raise hopeless
        try:
            done = self._run(command, how)
        except ProcessExecutionError as error:
            self._note(command, error)
            raise
        if _is_login(command):
            self._limit_logins(command)
        elif "--logout" in command:  # it had found the session, and begins anew
            self._logins.clear()
        if state := self._asleep(command):
            self.asleep = f"a session that is there does not work ({state}): its portal is silent"
        elif _reaches(command) and _attempt(command) not in self._given_up:
            self._reached.add(_way(command))
        self._open_ways.add(_way(command))
        return done

    def _asleep(self, command: tuple[str, ...]) -> str | None:
        """The state of the iSCSI session that was scanned, where it is none that works: the kernel
        leaves the scan out, and says nothing."""
        if command[0] != "tee" or not command[-1].startswith(SCSI_HOSTS):
            return None
        host = self._sys / Path(command[-1]).parent.relative_to("/sys")
        states = {text(path, "state") for path in host.glob("device/session*/iscsi_session/*")}
        return None if not states or states & {"LOGGED_IN", ""} else ", ".join(sorted(states))

    @property
    def reached(self) -> bool:
        return bool(self._reached)

    @property
    def refused(self) -> bool:
        """Were our credentials, or was this host as such?"""
        refused = any(
            failure.tool == "iscsiadm" and failure.exit_code == ISCSI_LOGIN_REFUSED
            for failure in self.failures
        )
        denied = any("access denied" in failure.said for failure in self.failures)  # mount.nfs
        return (refused and not self.reached) or denied

    @property
    def closed_ways(self) -> frozenset[str]:
        """Portals and exports by which nobody got in."""
        tried = {failure.way for failure in self.failures if failure.way is not None}
        return frozenset(tried - self._open_ways)

    @property
    def reason(self) -> Failure | None:
        """Of several failures the last one in getting in, else the last one."""
        ways = [failure for failure in self.failures if failure.way is not None]
        return next(reversed(ways or self.failures), None)

    def _run(self, command: tuple[str, ...], how: dict[str, Any]) -> tuple[str, str]:
        if _is_login(command):
            self._limit_login(command, how)
        if command[0] not in MOUNTS:
            return self._execute(*command, **how)
        is_in_kernel = command[:3] == ("mount", "-t", "nfs")
        bounded = _bounded(MOUNT_SECONDS, *command)
        if not is_in_kernel and self._systemd_runs.is_dir():
            # It may let the scope wait, as while guests are shut down.
            bounded = _bounded(MOUNT_SECONDS + SCOPE_SECONDS, *IN_A_SCOPE, *bounded)
        return self._execute(*bounded, **how)

    def _limit_login(self, command: tuple[str, ...], how: dict[str, Any]) -> None:
        """In the node record that os-brick has just made; one that refuses it has its own limit."""
        limit = ("--op", "update", "-n", "node.session.initial_login_retry_max", "-v")
        record = command[: command.index("--login")]
        self._execute(*record, *limit, str(LOGIN_TIMEOUTS), **{**how, "check_exit_code": False})

    def _limit_logins(self, command: tuple[str, ...]) -> None:
        """What follows the last one fails at once."""
        self._logins[command] += 1
        if self._logins[command] == LOGINS_AT_MOST:
            why = f"error: after {LOGINS_AT_MOST} logins no session has the name that was asked for"
            error = ProcessExecutionError(stderr=why, exit_code=ISCSI_NOTHING_FOUND)
            self.failures.append(failure_of(command, error))
            self._given_up[_attempt(command)] = error
            self._reached.discard(_way(command))

    def _note(self, command: tuple[str, ...], error: ProcessExecutionError) -> None:
        if str(command[0]).startswith("grep "):  # in sysfs, for ports of which each HBA has some
            return
        self.failures.append(failure_of(command, error))
        if _is_login(command) or error.exit_code == TIMED_OUT:
            self._given_up[_attempt(command)] = error


def failure_of(command: tuple[str, ...], error: ProcessExecutionError) -> Failure:
    tool = str(command[0])
    if isinstance(error, exception.ExecutionTimeout) or error.exit_code == TIMED_OUT:
        return Failure(tool, TIMED_OUT, "it was given up, there was no answer", _way(command))
    code = error.exit_code
    return Failure(
        tool,
        None if code in (None, "-") else int(code),
        _said(str(error.stderr or "")),
        _way(command),
    )


def _said(stderr: str) -> str:
    """The line with the reason: iscsiadm's last one only says that there was a reason."""
    lines = stderr.strip().splitlines()
    reasons = [line for line in lines if re.search(r"error|denied|refused|reason", line, re.I)]
    return str(mask_password((reasons or lines or [""])[-1].strip()))


def _attempt(command: tuple[str, ...]) -> tuple[str, ...]:
    """A mount is tried with several versions of the protocol: of the same server and export."""
    return ("mount", *command[-2:]) if command[0] == "mount" else command


def _way(command: tuple[str, ...]) -> str | None:
    if _is_login(command) and "-p" in command:
        return command[command.index("-p") + 1]
    if command[:2] == ("nvme", "connect") and "-s" in command:
        return f"{command[command.index('-a') + 1]}:{command[command.index('-s') + 1]}"
    return command[-2] if command[0] == "mount" else None


def _is_login(command: tuple[str, ...]) -> bool:
    return command[0] == "iscsiadm" and "--login" in command


def _reaches(command: tuple[str, ...]) -> bool:
    """Does it only succeed where the target answers? A scan is of a session that is there."""
    if command[0] == "tee":
        return command[-1].startswith(SCSI_HOSTS)
    if command[0] == "nvme":
        return command[1] in ("connect", "ns-rescan")
    return _is_login(command)


def _bounded(seconds: int, *command: str) -> tuple[str, ...]:
    return ("timeout", "--kill-after=5", str(seconds), *command)
