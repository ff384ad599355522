"""Times of the wire, and what makes two payloads the same request."""

import json
import re
from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.errors import Invalid
from agent.model.moment import rfc3339
from agent.model.request import AttachRequest, DetachRequest, digest
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


class TestDetach:
    """The attachment in it is as it was attached; the detach may be a later attempt."""

    def detach(self, generation: int | None, attached: int | None) -> DetachRequest:
        payload = {
            "request_id": INSTANCES[0],
            "not_after": "2026-11-24T12:00:00Z",
            "attachment_id": "att-1",
            "instance_id": INSTANCES[0],
            "attachment": attachment_payload(**_given(attached)),
        }
        return DetachRequest.parse({**payload, **_given(generation)})

    @pytest.mark.parametrize(
        ("generation", "attached", "counts"),
        [(None, None, None), (None, 3, 3), (3, None, 3), (3, 3, 3), (4, 3, 4), (0, None, 0)],
    )
    def test_its_own_generation_counts(
        self, generation: int | None, attached: int | None, counts: int | None
    ) -> None:
        assert self.detach(generation, attached).generation == counts

    def test_one_that_is_older_than_its_attachment_makes_no_sense(self) -> None:
        with pytest.raises(Invalid, match="older than attachment"):
            self.detach(2, 3)


def _given(generation: int | None) -> dict[str, int]:
    return {} if generation is None else {"generation": generation}


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

    def test_secrets_do_not_count_and_where_they_are_does(self) -> None:
        def of(**encryption: str) -> str:
            return digest({"attachment": {"encryption": encryption}})

        assert of(passphrase="one") == of(passphrase="another")
        assert of(secret_file="/one") != of(secret_file="/another")
        assert of(passphrase="one") != of()
