"""How attachctl ends, and what makes it end early."""

from enum import IntEnum


class Exit(IntEnum):
    """Exit codes: scripts rely on them (docs/attachctl.rst)."""

    OK = 0
    FAILED = 1
    USAGE = 2
    WAITING = 3
    UNREACHABLE = 4
    FINDINGS = 5
    INTERRUPTED = 130


MEANINGS = {
    Exit.OK: "done as asked",
    Exit.FAILED: "refused, failed or not found: the agent says why",
    Exit.USAGE: "command line, configuration or request file is wrong; nothing was sent",
    Exit.WAITING: "the operation is still open; it goes on",
    Exit.UNREACHABLE: "no answer from the agent or broker, and nothing else to read",
    Exit.FINDINGS: "audit: something does not fit",
    Exit.INTERRUPTED: "interrupted with Ctrl-C; an operation that was accepted goes on",
}


class Trouble(Exception):
    """Ends the command: the message says what happened and what to do next.

    ``code`` is for programs that read --json, beside the codes of the wire."""

    def __init__(self, exit_code: Exit, code: str, detail: str, *, retriable: bool = False) -> None:
        super().__init__(detail)
        self.exit_code = exit_code
        self.code = code
        self.detail = detail
        self.retriable = retriable


def usage(detail: str) -> Trouble:
    return Trouble(Exit.USAGE, "usage", detail)


def not_found(detail: str) -> Trouble:
    return Trouble(Exit.FAILED, "not-found", detail)
