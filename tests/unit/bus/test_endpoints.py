"""Whatever a caller sends, an endpoint answers a value that names no class and shows no secret."""

import math
from collections.abc import Mapping
from typing import Any

import pytest

from agent.bus.endpoints import ADDRESSED, Commands, Control, Wait, flaw
from agent.model.contract import CHANGING, COMMANDS, QUESTIONS
from tests.desk import RecordingDesk, new_id

HERE = {ADDRESSED: True}


class BrokenDesk(RecordingDesk):
    """A defect of ours, with a secret in its message."""

    def command(
        self, verb: str, arguments: Mapping[str, object], *, addressed: bool
    ) -> dict[str, Any]:
        raise ZeroDivisionError("hunter2")

    def query(self, name: str, arguments: Mapping[str, object]) -> dict[str, Any]:
        raise ZeroDivisionError("hunter2")


def test_a_command_reaches_the_desk_as_it_was_sent() -> None:
    desk = RecordingDesk()
    commands = Commands(desk)
    for verb in COMMANDS:
        getattr(commands, verb)(HERE, request={"request_id": new_id()}, other=[1, None, "ü"])
        assert desk.commands[-1][0] == verb
        assert desk.commands[-1][1]["other"] == [1, None, "ü"]


@pytest.mark.parametrize("context", [{}, {ADDRESSED: False}, {ADDRESSED: 1}, {ADDRESSED: "true"}])
def test_only_the_servers_own_mark_addresses(context: dict[str, Any]) -> None:
    desk = RecordingDesk()
    Commands(desk).attach(context, request={"request_id": new_id()})
    assert desk.commands[-1][2] is False
    Commands(desk).attach(HERE, request={"request_id": new_id()})
    assert desk.commands[-1][2] is True


@pytest.mark.parametrize("name", QUESTIONS)
def test_a_question_that_changes_something_needs_an_address(name: str) -> None:
    desk = RecordingDesk()
    answer = getattr(Control(desk), name)({})
    if name in CHANGING:
        assert answer["error"]["code"] == "wrong-host"
        assert desk.queries == []
    else:
        assert desk.queries == [(name, {})]


def deep(levels: int) -> list[Any]:
    nested: list[Any] = []
    for _ in range(levels):
        nested = [nested]
    return nested


@pytest.mark.parametrize(
    "value",
    [
        "bell\x07",
        "\ud800",
        "\ufffe",
        math.nan,
        math.inf,
        2**63,
        -(2**70),
        deep(40),
        {"key\x00": 1},
        {"a": {"b": ["\x01"]}},
    ],
    ids=repr,
)
def test_what_neither_journal_nor_xml_can_hold_is_invalid(value: object) -> None:
    desk = RecordingDesk()
    answer = Commands(desk).attach(HERE, request={"attachment": value})
    assert answer["state"] == "refused"
    assert answer["error"]["code"] == "invalid"
    for refusal in (Control(desk).ping(HERE, x=value), Wait(desk).wait_operation(HERE, x=value)):
        assert refusal["error"]["code"] == "invalid"
    assert desk.commands == desk.queries == []


def test_what_they_can_hold_is_no_flaw() -> None:
    assert (
        flaw({"text": "tab\t newline\n ü 漢 🙂", "int": 2**63 - 1, "none": None, "list": [1.5]})
        is None
    )
    assert flaw(deep(30)) is None


def test_a_flaw_is_told_by_its_place_without_the_value() -> None:
    told = flaw({"request": {"data": [1, {"auth_password": "hunter2\x00"}]}})
    assert told is not None
    assert told.startswith("data.1.auth_password: ")
    assert "hunter2" not in told


def test_a_name_of_any_length_is_not_shown_whole() -> None:
    told = flaw({"x" * 10_000: 2**64})
    assert told is not None
    assert len(told) < 300


def test_a_defect_is_answered_without_its_name_or_message() -> None:
    desk = BrokenDesk()
    answers = [
        Commands(desk).attach(HERE, request={}),
        Control(desk).ping(HERE),
        Wait(desk).wait_operation(HERE),  # a KeyError of the desk
    ]
    for answer in answers:
        assert answer["error"]["code"] == "internal"
        for secret in ("hunter2", "ZeroDivision", "KeyError", "Traceback"):
            assert secret not in f"{answer}"
