"""docs/wire.schema.json is what the models say. ``pytest --rewrite-golden`` writes it anew.

docs/wire.rst is written by hand: it names at least everything that there is.
"""

import json
import re
from pathlib import Path
from typing import get_args

import pytest

from agent.bus.schema import wire_schema
from agent.errors import ERRORS
from agent.model.attachment import Attachment
from agent.model.connection import VENDOR_PROTOCOLS
from agent.model.contract import ARGUMENTS, COMMANDS, QUESTIONS, WAIT
from agent.model.disk import Disk
from agent.model.outcome import Answer, State
from agent.model.request import Request
from agent.operations import VERBS

DOCS = Path(__file__).parents[3] / "docs"
FILE = DOCS / "wire.schema.json"


def test_the_schema_in_the_documentation_is_current(request: pytest.FixtureRequest) -> None:
    text = json.dumps(wire_schema(), indent=1, ensure_ascii=False) + "\n"
    if request.config.getoption("--rewrite-golden"):
        FILE.write_text(text)
    assert FILE.read_text() == text, "run pytest --rewrite-golden and read the diff"


def test_every_name_on_the_bus_is_in_it() -> None:
    schema = wire_schema()
    assert set(schema["commands"]) == set(COMMANDS)
    assert set(schema["questions"]) == set(ARGUMENTS)


def test_every_verb_has_a_plan() -> None:
    assert set(VERBS) == set(COMMANDS)


def test_every_reference_leads_to_a_definition() -> None:
    schema = wire_schema()
    text = json.dumps(schema)
    names = {part.split('"')[0] for part in text.split('"#/$defs/')[1:]}
    assert names == set(schema["$defs"])


def test_one_connection_matches_one_protocol_only() -> None:
    """They stand in a oneOf: what two of them allow, a validator refuses."""
    definitions = wire_schema()["$defs"]
    seen: list[str] = []
    for reference in definitions["Attachment"]["properties"]["connection_info"]["oneOf"]:
        name = reference["$ref"].removeprefix("#/$defs/")
        kind = definitions[name]["properties"]["driver_volume_type"]
        seen += kind.get("enum") or [kind["const"]]
    assert len(seen) == len(set(seen))
    assert set(VENDOR_PROTOCOLS) < set(seen)


def test_what_we_take_is_closed_and_what_we_answer_may_grow() -> None:
    definitions = wire_schema()["$defs"]
    assert definitions["AttachRequest"]["additionalProperties"] is False
    assert definitions["Attachment"]["additionalProperties"] is False
    for answer in ("Answer", "Problem", "Notification"):
        assert "additionalProperties" not in definitions[answer]


def test_no_request_shows_a_secret_as_a_plain_string() -> None:
    definitions = wire_schema()["$defs"]
    for name, field in (("IscsiData", "auth_password"), ("Encryption", "passphrase")):
        assert {"writeOnly": True, "format": "password", "type": "string"} in definitions[name][
            "properties"
        ][field]["anyOf"]


def test_the_documentation_names_everything() -> None:
    text = (DOCS / "wire.rst").read_text()
    named = set(re.findall(r"``([a-z_]+)\(", text)) | set(re.findall(r"``([a-z0-9_-]+)``", text))
    fields = {
        name
        for noun in (Attachment, Disk, Request, Answer)
        for name in noun.model_json_schema()["properties"]
    }
    wanted = {*ERRORS, *COMMANDS, *QUESTIONS, *WAIT, *get_args(State), *fields}
    assert wanted <= named, wanted - named
