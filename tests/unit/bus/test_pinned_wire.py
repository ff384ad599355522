"""Who was written against an older wire goes on: on the simulated host, and every request in all
its fields."""

import json
from pathlib import Path
from typing import Any

import pytest

from agent.model.contract import ARGUMENTS, COMMANDS, noun_of
from tests.contract.pinned_wire import PINNED, Json, given, lacking, pinned, tell
from tests.unit.saga.stories import ONE
from tests.world.story import VOLUMES, attachment, moment
from tests.world.world import World


def values() -> Json:
    return given(
        instance=ONE,
        volume=VOLUMES[0],
        connection_info=attachment()["connection_info"],
        size_bytes=1 << 30,
        not_after=moment(3600),
    )


@pytest.mark.parametrize("file", PINNED, ids=lambda file: file.stem)
class TestPinned:
    def test_every_request_is_read(self, file: Path) -> None:
        for verb, requests in pinned(file)["requests"].items():
            for request in requests:
                assert noun_of(verb).parse(request).request_id == request["request_id"]

    def test_every_answer_has_what_it_had(self, file: Path, world: World) -> None:
        def call(topic: str, method: str, arguments: Json) -> Json:
            sent = json.loads(json.dumps(arguments))
            if topic == "attachment-agent":
                return world.agent.command(method, sent, addressed=True)
            if topic == "attachment-agent-wait":
                return world.agent.wait(sent)
            return world.agent.query(method, sent)

        def end(topic: str, method: str, arguments: Json) -> Json:
            world.run()
            return call(topic, method, arguments)

        tell(pinned(file)["story"], values(), call, end)
        wanted = pinned(file)["notification"]
        for letter in world.letters():
            assert not list(lacking(letter, wanted)), letter
            assert letter["version"] == "1.0"


def test_the_first_wire_is_kept() -> None:
    assert "1.0" in [file.stem for file in PINNED]
    kept = pinned(next(file for file in PINNED if file.stem == "1.0"))
    told = {step["method"] for step in kept["story"]}
    assert told >= set(ARGUMENTS) - {"abandon_operation"}
    assert set(kept["requests"]) == set(COMMANDS)


@pytest.mark.parametrize(
    ("answer", "wanted", "names"),
    [
        ({"a": 1}, {"a": None}, []),
        ({"a": None}, {"a": None}, []),
        ({}, {"a": None}, ["answer.a"]),
        ({"a": {}}, {"a": {"b": None}}, ["answer.a.b"]),
        ({"a": [{"b": 1}, {}]}, {"a": [{"b": None}]}, ["answer.a.1.b"]),
        ({"a": []}, {"a": [{"b": None}]}, ["answer.a is no list with rows"]),
        ({"a": []}, {"a": []}, []),
        ({"a": 5}, {"a": {"b": None}}, ["answer.a is no object"]),
    ],
)
def test_what_is_lacking_is_named(answer: Any, wanted: Any, names: list[str]) -> None:
    assert list(lacking(answer, wanted)) == names
