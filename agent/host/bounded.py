"""Commands that ask a server which may be away: whoever runs one has an answer in time, or none.

One that sleeps in the kernel is not killed by a signal, and subprocess.run waits for its end.
"""

import os
import subprocess
import threading
from collections.abc import Callable, Sequence

from agent.errors import ConnectFailed, Unavailable

Spawn = Callable[..., "subprocess.Popen[str]"]

ANSWER_SECONDS = 30.0
"""What storage may take to show the beginning of a volume. Who asks one that is away is stuck in
the kernel: for ever, where a map queues without a path."""

BLOCK_BYTES = 4096
"""Of no device is this less than a block: a read past the cache of a part of one asks nobody."""


def run_bounded(
    command: Sequence[str], seconds: float, spawn: Spawn = subprocess.Popen
) -> tuple[str, str]:
    """What it wrote to stdout and to stderr, in plain English, however it ended.

    Raises subprocess.TimeoutExpired after ``seconds``: it is killed then, and nobody waits for it
    but a thread. Raises Unavailable where it cannot be begun."""
    process = _begun(command, spawn)
    try:
        return process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        process.kill()
        reaper = threading.Thread(
            target=_reap, args=(process,), name=f"end of {command[0]}", daemon=True
        )
        reaper.start()
        raise


def refuse_silent(path: str, spawn: Spawn, *flags: str) -> None:
    """A child opens it and reads, past the cache, which may know what nobody says any more: it may
    be stuck, and we are not. What it is told, or that it cannot read, says nothing here.

    Raises ConnectFailed where there is no answer in time."""
    how = ",".join(("direct", *flags))
    read = ["dd", f"if={path}", "of=/dev/null", f"bs={BLOCK_BYTES}", "count=1", f"iflag={how}"]
    try:
        run_bounded(read, ANSWER_SECONDS, spawn)
    except subprocess.TimeoutExpired as error:
        raise ConnectFailed(
            f"{path} has not answered for {ANSWER_SECONDS:g} s, or has not taken yet what this "
            "host had still to write; nothing was done to any guest: look at its server, or its "
            "paths, then try again"
        ) from error


def _begun(command: Sequence[str], spawn: Spawn) -> "subprocess.Popen[str]":
    try:
        return spawn(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",  # it may name a file whose name is not UTF-8
            env={**os.environ, "LC_ALL": "C"},
        )
    except OSError as error:
        raise Unavailable(
            command[0],
            f"it could not be started ({error.strerror or error}) and is tried again: see whether "
            "this host has it, and memory and processes to spare ('systemctl status' tells the "
            "agent's limit of tasks)",
        ) from error


def _reap(process: "subprocess.Popen[str]") -> None:
    with process:
        process.wait()
