"""A client of the wire as it was first promised: its requests, recorded, and what it reads of the
answers.

``wire/1.0.json`` is never edited: what the wire gains is not in it, and what it names must be there
for ever. A text that begins with $ stands for what a host gives (a guest, a volume, a time). Of an
answer every name must be there, whatever its value; of a list every row has the names.
"""

import json
import uuid
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

Json = dict[str, Any]

Call = Callable[[str, str, Json], Json]
"""Topic, method and arguments: the answer."""

PINNED = sorted(Path(__file__).with_name("wire").glob("*.json"))

REQUESTS = 20


def pinned(file: Path) -> Json:
    found: Json = json.loads(file.read_text())
    return found


def given(**by_host: object) -> Json:
    """What the texts stand for: ``instance``, ``volume``, ``connection_info``, ``size_bytes`` and
    ``not_after`` are the host's."""
    own = ("attachment", "other_attachment", "third_attachment", "absent", "request_90")
    names = (*own, *(f"request_{number}" for number in range(1, REQUESTS)))
    return {**{name: str(uuid.uuid4()) for name in names}, **by_host}


def filled(part: Any, values: Mapping[str, object]) -> Any:
    if isinstance(part, str) and part.startswith("$"):
        return values[part.removeprefix("$")]
    if isinstance(part, dict):
        return {name: filled(inner, values) for name, inner in part.items()}
    if isinstance(part, list):
        return [filled(inner, values) for inner in part]
    return part


def lacking(answer: Any, wanted: Any, place: str = "answer") -> Iterator[str]:
    """The names that are not there."""
    if isinstance(wanted, dict):
        if not isinstance(answer, dict):
            yield f"{place} is no object"
            return
        for name, inner in wanted.items():
            if name not in answer:
                yield f"{place}.{name}"
            else:
                yield from lacking(answer[name], inner, f"{place}.{name}")
    if isinstance(wanted, list):
        if not isinstance(answer, list) or (wanted and not answer):
            yield f"{place} is no list with rows"
            return
        for number, row in enumerate(answer if wanted else ()):
            yield from lacking(row, wanted[0], f"{place}.{number}")


def tell(story: list[Json], values: Mapping[str, object], call: Call, end: Call) -> None:
    """``end`` is asked as ``wait_operation`` is, and answers when the operation has ended."""
    for step in filled(story, values):
        answer = call(step["topic"], step["method"], step["arguments"])
        assert not list(lacking(answer, step["answer"])), (step["method"], answer)
        ends = step.get("ends")
        if ends is not None:
            assert answer["state"] != "refused", answer
            asked = {"operation_id": answer["operation_id"], "timeout_seconds": 30}
            last = end("attachment-agent-wait", "wait_operation", asked)
            assert last["state"] == ends["state"], last
            assert not list(lacking(last, ends["answer"])), (step["method"], last)
