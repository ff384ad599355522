"""Storage calls in a process of their own, which can be killed in the middle of one.

A thread that hangs in os-brick or in the kernel can neither be ended nor be made to let go of its
locks. A process can: its locks go with it. One JSON object a line each way::

    parent ◀── {}                                     (its standard output) it is ready
    parent ──▶ an attachment, to be connected         (its standard input; the end of it is ours)
    parent ◀── {"volume_id", "device" | "problem"}

Rejected: fork without exec. The child would hold the journal's claim, and one that hangs in the
kernel outlives its killing: no agent could start.
"""

import json
import logging
import os
import selectors
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import IO, Any, TextIO

from oslo_config import cfg

from agent.errors import AgentError, Internal
from agent.model.attachment import Attachment
from agent.model.device import Device
from agent.model.outcome import Problem
from agent.ports import Connectors, Locks
from agent.service.begin import configured, host_connectors, host_locks
from agent.steps.volume import connect

LOG = logging.getLogger(__name__)

Answer = Device | Problem

READY = b"{}"

START_SECONDS = 60.0
"""A child is ready in two; on a host that is just booting it may take longer."""

DEATH_SECONDS = 2.0
"""Within which the kernel ends what is killed, unless that hangs in the kernel itself."""


class KillableCalls:
    """Connects volumes by a child process, which is begun when it is needed.

    ``argv`` begins one that runs ``serve``. One thread's at a time."""

    def __init__(self, argv: Sequence[str]) -> None:
        self._argv = argv
        self._process: subprocess.Popen[bytes] | None = None
        self._begun: set[str] = set()
        self._rest = b""

    def begin(self, attachment: Attachment, timeout_seconds: float) -> None:
        """Connect it; ``ended`` tells of it. One call a volume at a time.

        Waits until the child is ready, at most so long: its start is not the volume's time."""
        self._begun.add(attachment.volume_id)
        if self._process is None:
            self._process = subprocess.Popen(
                self._argv,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                start_new_session=True,  # its tools are killed with it
            )
            answers = _pipe(self._process.stdout)
            if _is_readable(answers, min(timeout_seconds, START_SECONDS)):
                os.read(answers.fileno(), len(READY) + 1)
        line = json.dumps(attachment.reveal()).encode() + b"\n"
        try:
            _pipe(self._process.stdin).write(line)
            _pipe(self._process.stdin).flush()
        except BrokenPipeError:
            pass  # it has died: ``ended`` says so

    def ended(self, timeout_seconds: float) -> Mapping[str, Answer]:
        """By volume; waits for the first one to end, at most so long."""
        if self._process is None:
            return {}
        answers = _pipe(self._process.stdout)
        if not _is_readable(answers, timeout_seconds):
            return {}
        read = os.read(answers.fileno(), 1 << 16)
        if not read:
            return self._died(self._process)
        *lines, self._rest = (self._rest + read).split(b"\n")
        found = dict(_answer(line) for line in lines if line != READY)
        self._begun -= found.keys()
        return found

    def kill(self) -> bool:
        """With everything it does.  False: it hangs in the kernel; its locks stay until it ends."""
        process, self._process = self._process, None
        self._begun, self._rest = set(), b""
        if process is None:
            return True
        os.killpg(process.pid, signal.SIGKILL)
        for pipe in (process.stdin, process.stdout):
            with suppress(BrokenPipeError):  # what was said to one that had died; it is closed
                _pipe(pipe).close()
        try:
            process.wait(DEATH_SECONDS)
        except subprocess.TimeoutExpired:
            return False
        return True

    def _died(self, process: subprocess.Popen[bytes]) -> Mapping[str, Answer]:
        lost = self._begun
        self.kill()
        error = Internal(
            "the process that made the storage call ended by itself "
            f"({process.returncode}): see the lines before"
        )
        return dict.fromkeys(lost, Problem.of(error))


def answers_on_stdout() -> TextIO:
    """In the child, before anything else: what libraries print or log from here on is no answer."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    return answers


def serve(locks: Locks, connectors: Connectors, answers: TextIO) -> None:
    """In the child: connect what standard input names, until the parent has gone.

    Ends the process, whatever hangs in it: nobody is there any more to hear of it."""
    mutex = threading.Lock()
    print(READY.decode(), file=answers, flush=True)

    def take(line: str) -> None:
        attachment = Attachment.model_validate_json(line)
        answer = {"volume_id": attachment.volume_id, **_connect(locks, connectors, attachment)}
        with mutex:
            print(json.dumps(answer), file=answers, flush=True)

    for line in sys.stdin:
        threading.Thread(target=take, args=(line,), daemon=True).start()
    logging.shutdown()
    os._exit(0)


def _connect(locks: Locks, connectors: Connectors, attachment: Attachment) -> dict[str, Any]:
    try:
        return {"device": connect(locks, connectors, attachment).reveal()}
    except AgentError as error:
        return {"problem": Problem.of(error).reveal()}
    except Exception as error:  # a defect of ours must not pass for a storage that hangs
        LOG.exception("volume %s: an unforeseen error", attachment.volume_id)
        unforeseen = Internal(f"unforeseen {type(error).__name__}: see the lines before")
        return {"problem": Problem.of(unforeseen).reveal()}


def _answer(line: bytes) -> tuple[str, Answer]:
    plain = json.loads(line)
    if "device" in plain:
        return plain["volume_id"], Device.model_validate(plain["device"])
    return plain["volume_id"], Problem.model_validate(plain["problem"])


def _is_readable(pipe: IO[bytes], timeout_seconds: float) -> bool:
    with selectors.DefaultSelector() as selector:
        selector.register(pipe, selectors.EVENT_READ)
        return bool(selector.select(timeout_seconds))


def _pipe(pipe: IO[bytes] | None) -> IO[bytes]:
    assert pipe is not None, "it was asked for"
    return pipe


def _who() -> str:
    return "reconnect after boot"


if __name__ == "__main__":
    to_parent = answers_on_stdout()
    settings = configured(cfg.CONF, "storage call", sys.argv[1:])
    serve(host_locks(settings, _who), host_connectors(settings, _who), to_parent)
