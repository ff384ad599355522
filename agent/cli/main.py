"""attachctl: the entry point, and what becomes of every failure.

Exit codes are in trouble.Exit; a traceback is a defect.
"""

import logging
import os
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any, TextIO

from oslo_config import cfg

from agent import conf as options
from agent.bus.client import AgentClient, Refused, Unreachable
from agent.cli.arguments import parse
from agent.cli.commands import run as run_command
from agent.cli.screen import Screen, Unwritten, Writing
from agent.cli.session import Session
from agent.cli.trouble import Exit, Trouble, usage
from agent.conf import Settings
from agent.errors import AgentError

Connect = Callable[..., AgentClient]


def main() -> None:
    """Entry point of ``attachctl``; does not return."""
    # What the libraries log is for the daemon's log: here every failure is told once, in words.
    logging.disable(logging.CRITICAL)
    try:
        code = run(sys.argv[1:], cfg.CONF, AgentClient, sys.stdout, sys.stderr)
        Writing(sys.stdout).flush()
    except Unwritten as unwritten:
        # Whatever is buffered cannot be written: no second complaint when Python ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = Exit.OK  # the reader, head or less, has seen enough
        if not isinstance(unwritten.error, BrokenPipeError):
            code = Exit.FAILED
            said = f"attachctl: output cannot be written: {unwritten.error.strerror}"
            print(said, file=sys.stderr)
    sys.exit(code)


def run(
    argv: Sequence[str],
    conf: Any,
    connect: Connect,
    out: TextIO,
    err: TextIO,
    now: Callable[[], float] = time.time,
) -> Exit:
    """One command.  Raises SystemExit where the command line is wrong, and after --help; Unwritten
    where ``out`` or ``err`` cannot be written."""
    args = parse(argv)
    screen = Screen(out, err, as_json=args.json, wide=args.wide, now=now)
    try:
        settings = configure(conf, args.config_file)
        session = Session(
            settings,
            lambda: connect(conf, args.host or settings.host, timeout_seconds=args.timeout),
            screen,
            host=args.host,
            offline=args.offline,
        )
        try:
            return run_command(session, args)
        finally:
            session.close()
    except (Trouble, Unreachable, Refused, AgentError) as error:
        return _end(screen, _as_trouble(error))
    except OSError as error:
        return _end(screen, _of_this_host(error))
    except KeyboardInterrupt:
        screen.note("interrupted")
        return Exit.INTERRUPTED


def configure(conf: Any, config_file: str) -> Settings:
    """Raises Trouble (usage)."""
    try:
        options.register(conf)
        conf(["--config-file", config_file], project="attachment-agent")
        return options.settings(conf)
    except cfg.ConfigFilesNotFoundError:
        raise usage(
            f"there is no configuration {config_file}: name the agent's with --config-file"
        ) from None
    except cfg.ConfigFilesPermissionDeniedError:
        raise usage(
            f"the configuration {config_file} cannot be read: only root may, try with sudo"
        ) from None
    except OSError as error:
        why = error.strerror or f"{error}"
        raise usage(f"the configuration {config_file} cannot be read: {why}") from None
    except (cfg.Error, AgentError, ValueError) as error:  # ValueError: it is no text
        raise usage(f"the configuration {config_file} is wrong: {error}") from None


def _as_trouble(error: Trouble | Unreachable | Refused | AgentError) -> Trouble:
    if isinstance(error, Trouble):
        return error
    if isinstance(error, Unreachable):
        return Trouble(Exit.UNREACHABLE, "unreachable", f"{error}", retriable=True)
    return Trouble(Exit.FAILED, error.code, error.detail, retriable=error.retriable)


def _of_this_host(error: OSError) -> Trouble:
    where = f" ({error.filename})" if error.filename else ""
    return Trouble(
        Exit.FAILED,
        "internal",
        f"this host does not let attachctl go on: {error.strerror or error}{where}; what was sent "
        "to the agent goes on: see 'attachctl operations', then try again",
    )


def _end(screen: Screen, trouble: Trouble) -> Exit:
    if screen.as_json:
        about = {name: getattr(trouble, name) for name in ("code", "retriable", "detail")}
        screen.json({"error": about})
    else:
        screen.trouble(f"{trouble.code}: {trouble.detail}")
    return trouble.exit_code
