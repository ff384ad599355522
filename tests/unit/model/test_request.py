"""Times of the wire, and what makes two payloads the same request."""

import json
import re
from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.model.request import AttachRequest, digest, rfc3339
from tests.samples import INSTANCES, attachment_payload

MOMENTS = st.datetimes(timezones=st.just(UTC))

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)

OBJECTS = st.dictionaries(st.text(), JSON)


def parsed(not_after: str) -> datetime:
    payload = {
        "request_id": INSTANCES[0],
        "not_after": not_after,
        "attachment": attachment_payload(),
    }
    return AttachRequest.parse(payload).not_after


class TestTimes:
    @pytest.mark.parametrize(
        "text",
        [
            "2026-11-24T12:00:00Z",
            "2026-11-24T12:00:00+00:00",
            "2026-11-24T12:00:00.000Z",
            "2026-11-24T12:00:00.000000Z",
        ],
    )
    def test_one_moment_in_its_spellings(self, text: str) -> None:
        assert parsed(text) == datetime(2026, 11, 24, 12, tzinfo=UTC)

    @given(MOMENTS)
    def test_what_we_write_we_read(self, moment: datetime) -> None:
        text = rfc3339(moment)
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", text)
        assert timedelta(0) <= moment - parsed(text) < timedelta(milliseconds=1)

    def test_what_we_write_is_utc(self) -> None:
        paris = datetime(2026, 11, 24, 13, tzinfo=timezone(timedelta(hours=1)))
        assert rfc3339(paris) == "2026-11-24T12:00:00.000Z"

    def test_a_request_is_written_as_it_is_read(self) -> None:
        payload = {
            "request_id": INSTANCES[0],
            "not_after": "2026-11-24T12:00:00.000Z",
            "attachment": attachment_payload(),
        }
        assert AttachRequest.parse(payload).reveal() == payload


class TestDigest:
    @settings(max_examples=40)
    @given(OBJECTS)
    def test_the_order_of_keys_does_not_matter(self, payload: dict[str, object]) -> None:
        turned = dict(reversed(payload.items()))
        assert digest(turned) == digest(payload)
        assert digest(json.loads(json.dumps(payload))) == digest(payload)

    @settings(max_examples=40)
    @given(OBJECTS, OBJECTS)
    def test_another_payload_has_another(
        self, one: dict[str, object], other: dict[str, object]
    ) -> None:
        same = json.dumps(one, sort_keys=True) == json.dumps(other, sort_keys=True)
        assert (digest(one) == digest(other)) is same

    @pytest.mark.parametrize(
        ("one", "other"),
        [
            ({"a": 1}, {"a": True}),
            ({"a": 1}, {"a": "1"}),
            ({"a": None}, {}),
            ({"a": [1, 2]}, {"a": [2, 1]}),
            ({"a": {"b": 1}}, {"a": {"b": 1, "c": None}}),
        ],
    )
    def test_these_are_not_the_same(self, one: dict[str, object], other: dict[str, object]) -> None:
        assert digest(one) != digest(other)
