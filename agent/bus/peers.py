"""ports.Peers over RabbitMQ: the agents of other hosts are asked as anybody asks them."""

import logging
import threading
import time
from collections.abc import Mapping
from typing import Any

from agent.bus.caller import Caller, Refused, Unreachable, no_refusal
from agent.bus.wire import CONTROL_TOPIC
from agent.model.contract import MOVE_INSTANCE
from agent.ports import Prepared, Readiness, Sighting

LOG = logging.getLogger(__name__)

ANSWER_SECONDS = 10.0
"""How long one of them is waited for: who asks is tried again."""

IDLE_SECONDS = 300.0
"""After that a connection to another host's agent is closed when the next one is asked."""

Question = tuple[str, Mapping[str, Any]]
"""Its name and its arguments."""


class BusPeers:
    """Any thread may call. A host that is asked again soon is asked over the same connection: one
    leaves a queue on the broker for half an hour, and threads for as long as that is away."""

    def __init__(self, conf: Any, url: str | None = None) -> None:
        """``url`` or else ``[DEFAULT] transport_url``."""
        self._conf = conf
        self._url = url
        self._mutex = threading.Lock()
        self._callers: dict[str, tuple[Caller, float]] = {}
        """And when each was used last."""

    def close(self) -> None:
        """The connections; nobody asks any more."""
        with self._mutex:
            known, self._callers = self._callers, {}
        for caller, _at in known.values():
            caller.close()

    def look(self, host: str, instance_id: str) -> Sighting | None:
        found = self._ask(host, "get_instance", instance_id=instance_id)
        return None if found is None else _sighting(found)

    def readiness(self, host: str, instance_id: str) -> Readiness | None:
        answers = self._ask_all(
            host,
            ("describe", {}),
            ("get_instance", {"instance_id": instance_id}),
            ("list_attachments", {"filters": {"instance_id": instance_id}}),
        )
        if answers is None or answers[0]["libvirt"] is None:
            return None
        able, found, listed = answers
        kept = [row for row in listed["attachments"] if row.get("lease") and row["promised"]]
        return Readiness(
            verbs=frozenset(able["verbs"]),
            libvirt=tuple(int(part) for part in able["libvirt"].split(".")),
            sighting=_sighting(found),
            prepared={row["lease"]["replaces"]: _prepared(row) for row in kept},
        )

    def has_given_up(self, host: str, instance_id: str, migration_id: str) -> bool | None:
        """An agent that cannot tell operations by ``migration_id`` refuses: as if it were away.

        A cancel that found nothing there is of no instance."""
        migrate = {"instance_id": instance_id, "migration_id": migration_id, "verb": "migrate"}
        cancel = {"migration_id": migration_id, "verb": "cancel_migration", "state": "done"}
        answers = self._ask_all(
            host,
            ("list_operations", {"filters": migrate, "limit": 1}),
            ("list_operations", {"filters": cancel, "limit": 1}),
        )
        if answers is None:
            return None
        return any(_is_given_up(row) for answer in answers for row in answer["operations"])

    def _ask(self, host: str, question: str, **arguments: Any) -> dict[str, Any] | None:
        answers = self._ask_all(host, (question, arguments))
        return None if answers is None else answers[0]

    def _ask_all(self, host: str, *questions: Question) -> list[dict[str, Any]] | None:
        """All that they answer, or None."""
        try:
            caller = self._caller(host)
            return [
                no_refusal(caller.call(CONTROL_TOPIC, question, **arguments))
                for question, arguments in questions
            ]
        except (Refused, Unreachable) as error:
            LOG.info("the agent of %s does not answer: %s", host, error)
            return None

    def _caller(self, host: str) -> Caller:
        now = time.monotonic()
        with self._mutex:
            known = self._callers.pop(host, None)
            idle = [name for name, (_, at) in self._callers.items() if at + IDLE_SECONDS < now]
            for name in idle:
                self._callers.pop(name)[0].close()
            caller = known[0] if known else Caller(self._conf, host, self._url, ANSWER_SECONDS)
            self._callers[host] = caller, now
            return caller


def _sighting(found: Mapping[str, Any]) -> Sighting:
    """Of get_instance."""
    if not found["present"]:
        return Sighting(state=None)
    return Sighting(state=found["state"], job=found["job"])


def _prepared(row: Mapping[str, Any]) -> Prepared:
    """Of list_attachments."""
    device = row["device"] or {"size_bytes": 0}
    return Prepared(
        migration_id=row["lease"]["migration_id"],
        size_bytes=device["size_bytes"],
        volume_id=row["volume_id"],
        multiattach=row["multiattach"],
        access_mode=row["access_mode"],
    )


def _is_given_up(row: Mapping[str, Any]) -> bool:
    """Of list_operations."""
    if row["verb"] == "cancel_migration":
        return True
    begun = any(s["name"] == MOVE_INSTANCE and s["state"] != "planned" for s in row["steps"])
    return row["state"] == "cancelled" or (row["state"] == "undone" and begun)
