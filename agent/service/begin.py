"""What every program of the agent begins with: configuration, log, os-brick, journal, storage."""

import sys
import time
from collections.abc import Callable, Sequence
from importlib.metadata import version
from typing import Any, NoReturn

from oslo_config import cfg
from oslo_log import log as oslo_log

from agent import conf as options
from agent.conf import Settings
from agent.errors import AgentError, Unavailable
from agent.host.brick import BrickConnectors
from agent.host.brick_library import prepare_os_brick
from agent.host.locks import FileLocks
from agent.journal.store import Journal
from agent.operations import VERBS

PROJECT = "attachment-agent"

EXIT_CONFIGURATION = 78
"""EX_CONFIG of sysexits.h: starting again does not help."""

EXIT_JOURNAL = 75
"""EX_TEMPFAIL: another agent has the journal, or it cannot be opened."""


class SystemClock:
    """ports.Clock."""

    def now(self) -> float:
        return time.time()

    def monotonic(self) -> float:
        return time.monotonic()


def configured(conf: Any, program: str, argv: Sequence[str]) -> Settings:
    """As configure; where that fails the process ends with a word of it."""
    try:
        return configure(conf, argv)
    except (cfg.Error, oslo_log.LogConfigError, AgentError) as error:
        give_up(program, EXIT_CONFIGURATION, f"{error}")
    except SystemExit as end:  # --help, a wrong argument; 1: a value that oslo.config has named
        sys.exit(EXIT_CONFIGURATION if end.code == 1 else end.code)


def configure(conf: Any, argv: Sequence[str]) -> Settings:
    """Read files and command line, set up logging and os-brick.

    Raises cfg.Error, Invalid, LogConfigError; SystemExit as oslo.config does."""
    options.register(conf)
    oslo_log.register_options(conf)
    conf(
        list(argv),
        project=PROJECT,
        version=version("libvirt-attachment-agent"),
        default_config_files=None,
    )
    oslo_log.setup(conf, PROJECT, fix_eventlet=False)
    found = options.settings(conf)
    prepare_os_brick(conf)
    return found


def opened(settings: Settings, program: str) -> tuple[Journal, SystemClock]:
    """The journal, claimed; where that fails the process ends with a word of it."""
    clock = SystemClock()
    try:
        return Journal(settings.state_path, clock), clock
    except (AgentError, ValueError, OSError) as error:
        why = f"the journal in {settings.state_path} cannot be used: {error}"
        give_up(program, EXIT_JOURNAL, why)


def refuse_unknown_verbs(journal: Journal) -> None:
    """Raises ValueError where a newer agent has left an operation open that this one cannot go on
    with."""
    for record in journal.read(lambda book: book.open_operations()):
        if record.verb not in VERBS:
            raise ValueError(
                f"{record.verb} {record.operation_id} is open, and this agent has no such verb: "
                "install the newer agent again; nothing was changed"
            )


def refuse_another_name(journal: Journal, host: str) -> None:
    """Raises Unavailable where this host had another name when it took what it has: the right one
    may come yet."""
    known = journal.read(lambda book: book.host())
    if known in (None, host):
        return
    if journal.read(lambda book: bool(book.attachments() or book.count_open())):
        raise Unavailable(
            "the name of this host",
            f"[DEFAULT] host is {host}, and the journal is that of {known}, with attachments or "
            "open operations: whoever asks for them asks that name, and so do other hosts and the "
            f"storage. Set host to {known}, or see docs/lifecycle on another name; nothing was "
            "changed",
        )


def _tell_nobody(_kind: str, _seconds: float) -> None:
    """Of a wait for a lock."""


def host_connectors(
    settings: Settings,
    who: Callable[[], str],
    mount_needed: Callable[[str], bool] | None = None,
    on_wait: Callable[[str, float], None] = _tell_nobody,
) -> BrickConnectors:
    """This host's storage. Without ``mount_needed`` nothing is ever unmounted."""
    return BrickConnectors(
        host=settings.host,
        my_ip=settings.my_ip,
        use_multipath=settings.use_multipath,
        enforce_multipath=settings.enforce_multipath,
        device_scan_attempts=settings.device_scan_attempts,
        nfs_mount_point_base=settings.nfs_mount_point_base,
        nfs_mount_options=settings.nfs_mount_options,
        local_allowed_paths=settings.local_allowed_paths,
        lock_timeout_seconds=settings.lock_timeout_seconds,
        who=who,
        mount_needed=mount_needed,
        on_wait=on_wait,
        mount_notes=settings.state_path / "mounts",
    )


def host_locks(
    settings: Settings,
    who: Callable[[], str],
    on_wait: Callable[[str, float], None] = _tell_nobody,
) -> FileLocks:
    return FileLocks(
        settings.state_path / "locks",
        timeout_seconds=settings.lock_timeout_seconds,
        who=who,
        on_wait=on_wait,
    )


def give_up(program: str, code: int, why: str) -> NoReturn:
    print(f"{program}: {why}", file=sys.stderr)
    sys.exit(code)
