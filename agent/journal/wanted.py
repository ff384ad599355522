"""Which of the journal's operations are asked for."""

from collections.abc import Collection
from typing import TypedDict

from agent.model.outcome import State


class Wanted(TypedDict, total=False):
    """What is left out, or None, matches all.

    Of what was accepted before a sequence, and of that only so many (``limit``) of the newest."""

    open: bool | None
    operation_id: str | None
    verb: str | None
    state: State | None
    migration_id: str | None
    attachment_id: str | None
    instance_id: str | None
    volume_id: str | None
    before: int | None
    limit: int | None


_OWN = {
    "open": "o.open = :open",
    "operation_id": "o.operation_id = :operation_id",
    "verb": "json_extract(o.body, '$.verb') = :verb",
    "state": "json_extract(o.body, '$.state') = :state",
    "migration_id": "json_extract(o.body, '$.known.migration_id') = :migration_id",
    "before": "o.sequence < :before",
}

_OF_ONE_PART = ("attachment_id", "instance_id", "volume_id")


def selection(given: Collection[str]) -> str:
    """sequence, cancel_wanted, body, and of each part attachment and body: in the order in which
    they were accepted. ``given`` names what is not None; the values are named parameters."""
    where = [condition for name, condition in _OWN.items() if name in given]
    of_part = [name for name in _OF_ONE_PART if name in given]
    if of_part:
        columns = [*of_part, "open"] if "open" in given else of_part
        matches = " AND ".join(f"{name} = :{name}" for name in columns)
        one_of = f"operation_id IN (SELECT operation_id FROM operation_parts WHERE {matches})"
        if of_part == ["instance_id"]:  # an operation on it may have no part at all
            one_of = f"({one_of} OR json_extract(o.body, '$.instance_id') = :instance_id)"
        where.append(one_of)
    newest = "ORDER BY o.sequence DESC LIMIT :limit" if "limit" in given else ""
    return (
        "SELECT o.sequence, o.cancel_wanted, o.body, p.attachment, p.body"
        f" FROM (SELECT * FROM operations o WHERE {' AND '.join(where) or 'true'} {newest}) AS o"
        " LEFT JOIN operation_parts p USING (operation_id) ORDER BY o.sequence, p.number"
    )
