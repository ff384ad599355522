"""A desk for tests of the bus: takes every message, remembers it, answers like an agent.

``python -m tests.desk URL HOST`` serves one until it is killed.
"""

import sys
import threading
import uuid
from collections.abc import Mapping
from typing import Any

from oslo_config import cfg

from agent.bus.servers import Servers
from agent.model.outcome import Answer, State


class RecordingDesk:
    """ports.Desk. While ``go`` is cleared no command is answered."""

    def __init__(self) -> None:
        self.commands: list[tuple[str, Mapping[str, object], bool]] = []
        self.queries: list[tuple[str, Mapping[str, object]]] = []
        self.answers: dict[str, dict[str, Any]] = {}
        self.closed: set[str] = set()
        self.closes_all = False
        self.go = threading.Event()
        self.go.set()
        self._changed = threading.Condition()

    def command(
        self, verb: str, arguments: Mapping[str, object], *, addressed: bool
    ) -> dict[str, Any]:
        with self._changed:
            self.commands.append((verb, arguments, addressed))
            self._changed.notify_all()
        self.go.wait(30)
        request = arguments.get("request")
        known = request.get("request_id") if isinstance(request, dict) else None
        return Answer(operation_id=f"{known}", verb=verb, state="accepted").wire()

    def query(self, name: str, arguments: Mapping[str, object]) -> dict[str, Any]:
        with self._changed:
            self.queries.append((name, arguments))
            self._changed.notify_all()
        return self.answers.get(name, {"asked": name})

    def wait(self, arguments: Mapping[str, object]) -> dict[str, Any]:
        operation_id, seconds = arguments["operation_id"], arguments["timeout_seconds"]
        assert isinstance(operation_id, str)
        assert isinstance(seconds, int | float)
        with self._changed:
            done = self._changed.wait_for(
                lambda: self.closes_all or operation_id in self.closed, seconds
            )
        state: State = "done" if done else "running"
        return Answer(operation_id=operation_id, verb="attach", state=state).wire()

    def close(self, operation_id: str) -> None:
        with self._changed:
            self.closed.add(operation_id)
            self._changed.notify_all()

    def wait_for_commands(self, count: int, *, seconds: float) -> None:
        """AssertionError if fewer came."""
        with self._changed:
            came = self._changed.wait_for(lambda: len(self.commands) >= count, seconds)
        assert came, f"{len(self.commands)} of {count} commands came"

    @property
    def request_ids(self) -> list[str]:
        """Of the commands that came, in order."""
        found = []
        for _, arguments, _ in self.commands:
            request = arguments["request"]
            assert isinstance(request, dict)
            found.append(request["request_id"])
        return found


def new_id() -> str:
    return str(uuid.uuid4())


if __name__ == "__main__":
    Servers(cfg.CONF, RecordingDesk(), sys.argv[2], url=sys.argv[1]).start()
    threading.Event().wait()
