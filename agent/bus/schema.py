"""The wire as a JSON schema, made from the models that parse it (docs/wire.schema.json)."""

from typing import Any

from pydantic import Field, StrictInt
from pydantic.json_schema import GenerateJsonSchema, models_json_schema

from agent.model.contract import ARGUMENTS, COMMANDS, WIRE_VERSION
from agent.model.moment import Moment
from agent.model.outcome import Answer, Problem, Progress, StepState
from agent.model.value import Value


class Refusal(Value):
    """The answer to a question that has none, and to a wrong one."""

    error: Problem


class Notification(Answer):
    """The payload of a notification: an answer, and what it is about."""

    version: str = Field(description="of the wire")
    event_id: str = Field(description="the same if the notification comes a second time")
    sequence: StrictInt = Field(description="grows with each notification of one host")
    host: str
    attachment_ids: tuple[str, ...]
    instance_id: str | None = Field(description="null for an operation on several instances")
    instance_ids: tuple[str, ...]
    volume_ids: tuple[str, ...]
    at: Moment


class Event(Value):
    """The payload of a notification that is of no operation; each kind has fields of its own."""

    version: str
    event_id: str
    sequence: StrictInt
    host: str
    operation_id: None
    attachment_ids: tuple[str, ...]
    instance_id: str | None
    at: Moment


class _Untitled(GenerateJsonSchema):
    """Without a title for each field that repeats its name."""

    def field_title_should_be_set(self, schema: Any) -> bool:
        return False


def wire_schema() -> dict[str, Any]:
    """JSON Schema 2020-12: {commands: {name: request}, questions: {name: arguments}, answer,
    refusal, notification, event}, by reference into $defs."""
    asked = {**COMMANDS, **ARGUMENTS}
    told = (Answer, Refusal, Notification, Event)
    places, definitions = models_json_schema(
        [(noun, "validation") for noun in dict.fromkeys(asked.values())]
        + [(noun, "serialization") for noun in told],
        schema_generator=_Untitled,
        ref_template="#/$defs/{model}",
    )
    for noun in (*told, Problem, Progress, StepState):
        # What we answer may grow; who reads it ignores what he does not know.
        del definitions["$defs"][noun.__name__]["additionalProperties"]
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": f"libvirt attachment agent, wire {WIRE_VERSION}",
        "commands": {name: places[(noun, "validation")] for name, noun in COMMANDS.items()},
        "questions": {name: places[(noun, "validation")] for name, noun in ARGUMENTS.items()},
        "answer": places[(Answer, "serialization")],
        "refusal": places[(Refusal, "serialization")],
        "notification": places[(Notification, "serialization")],
        "event": places[(Event, "serialization")],
        **definitions,
    }
