"""The client's questions, and what an operator may do to an operation."""

from collections.abc import Mapping, Sequence
from typing import Any

from agent.bus.caller import Caller, Refused, no_refusal, operation_of
from agent.bus.wire import CONTROL_TOPIC
from agent.model.outcome import Answer
from agent.model.request import OPERATIONS_AT_ONCE

LISTINGS = 3
"""So often all of them are listed anew, where that is done at the moment of forgetting."""


class QuestionCalls:
    """One method for each question that this version answers; all raise Unreachable."""

    _caller: Caller

    def ping(self) -> dict[str, Any]:
        """{host, version}"""
        return self._ask("ping")

    def describe(self) -> dict[str, Any]:
        """What the agent can do, and what is missing on its host."""
        return self._ask("describe")

    def get_connector(self, instance_id: str | None = None) -> dict[str, Any]:
        """This host's initiator properties, as the volume service takes them; or those of an
        instance, whose attachments then say ``initiator`` instance.  Raises Refused."""
        whose = {} if instance_id is None else {"instance_id": instance_id}
        connector: dict[str, Any] = self._ask("get_connector", **whose)["connector"]
        return connector

    def get_instance(self, instance_id: str) -> dict[str, Any]:
        """{present, state, persistent, job, disks}, asked of libvirt.  Raises Refused."""
        return self._ask("get_instance", instance_id=instance_id)

    def get_operation(self, operation_id: str) -> Answer:
        """Raises Refused (unknown-operation)."""
        return operation_of(self._ask("get_operation", operation_id=operation_id))

    def cancel_operation(self, operation_id: str) -> Answer:
        """Wish an operation undone; its answer as it is now.  Raises Refused (too-late)."""
        return operation_of(self._ask("cancel_operation", operation_id=operation_id))

    def abandon_operation(self, operation_id: str) -> Answer:
        """Close an operation where it stands; what it leaves on the host is quarantined.

        For operators.  Raises Refused (busy)."""
        return operation_of(self._ask("abandon_operation", operation_id=operation_id))

    def list_operations(
        self, *, limit: int | None = None, before: str | None = None, **filters: Any
    ) -> list[dict[str, Any]]:
        """Answers with their ids, oldest first: of those accepted before the operation ``before``,
        where given, the newest ``limit``, or all, a page in each message. Filters match equal:
        state, open, verb, operation_id, attachment_id, instance_id, volume_id, migration_id.
        Raises Refused."""
        if limit is not None:
            return self._operations(filters, limit, before)
        for _ in range(LISTINGS - 1):
            try:
                return self._all_operations(filters, before)
            except Refused as error:  # the agent has forgotten one that a page began with
                if error.code != "unknown-operation":
                    raise
        return self._all_operations(filters, before)

    def _all_operations(
        self, filters: Mapping[str, Any], before: str | None
    ) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = []
        while True:
            rows = self._operations(filters, OPERATIONS_AT_ONCE, before)
            found = rows + found
            if len(rows) < OPERATIONS_AT_ONCE:
                return found
            before = rows[0]["operation_id"]

    def _operations(
        self, filters: Mapping[str, Any], limit: int, before: str | None
    ) -> list[dict[str, Any]]:
        since = {} if before is None else {"before": before}
        return self._rows("operations", filters=filters, limit=limit, **since)

    def list_attachments(self, **filters: Any) -> list[dict[str, Any]]:
        """Filters match equal: attachment_id, instance_id, volume_id.  Raises Refused."""
        return self._rows("attachments", filters=filters)

    def plan(self, verb: str, request: Mapping[str, Any]) -> dict[str, Any]:
        """What a request would do, without doing it.  Raises Refused."""
        return self._ask("plan", verb=verb, request=dict(request))

    def audit(self) -> dict[str, Any]:
        """Journal, libvirt and host side by side: {attachments, findings}.  Raises Refused."""
        return self._ask("audit")

    def list_locks(self) -> list[dict[str, Any]]:
        """The locks that are held on the host, and by whom."""
        return self._rows("locks")

    def list_quarantine(self) -> list[dict[str, Any]]:
        """Devices that are neither used nor touched until an operator releases them."""
        return self._rows("quarantine")

    def release_quarantine(self, volume_id: str) -> dict[str, Any]:
        """{volume_id, released}: false if it was not quarantined."""
        return self._ask("release_quarantine", volume_id=volume_id)

    def import_attachments(
        self, entries: Sequence[Mapping[str, Any]], *, dry_run: bool = True
    ) -> dict[str, Any]:
        """Take over attachments that somebody else made; by default only look whether that could
        be done. {dry_run, entries}: a row for each (docs/import.rst).  Raises Refused."""
        whole = [dict(entry) for entry in entries]
        return self._ask("import_attachments", entries=whole, dry_run=dry_run)

    def _rows(self, what: str, **arguments: Any) -> list[dict[str, Any]]:
        return list(self._ask(f"list_{what}", **arguments)[what])

    def _ask(self, name: str, **arguments: Any) -> dict[str, Any]:
        return no_refusal(self._caller.call(CONTROL_TOPIC, name, **arguments))
