"""What a sender may choose of a migration."""

from typing import Any

import pytest

from agent.errors import Invalid
from agent.model.migration import Journey, MigrationOptions


def test_everything_may_be_left_out() -> None:
    options = MigrationOptions.parse({})
    assert options.on_timeout == "abort"
    assert options.bandwidth_mib_per_second is None


@pytest.mark.parametrize(
    ("bytes_per_second", "mib_per_second"), [(1, 1), (1 << 20, 1), ((1 << 20) + 1, 2)]
)
def test_a_bandwidth_is_never_rounded_to_no_limit(
    bytes_per_second: int, mib_per_second: int
) -> None:
    options = MigrationOptions.parse({"bandwidth_bytes_per_second": bytes_per_second})
    assert options.bandwidth_mib_per_second == mib_per_second


@pytest.mark.parametrize(
    "wrong",
    [
        {"bandwidth_bytes_per_second": 0},
        {"parallel_connections": 0},
        {"parallel_connections": 256},
        {"max_downtime_milliseconds": 2_000_001},
        {"auto_converge": 1},
        {"max_downtime_milliseconds": "300"},
        {"on_timeout": "pray"},
        {"on_timeout": "post_copy"},
        {"downtime_steps": 2},
        {"tunnelled": True},
    ],
)
def test_what_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(Invalid, match=next(iter(wrong))):
        MigrationOptions.parse(wrong)


def test_a_downtime_is_allowed_step_by_step_and_never_more() -> None:
    wishes = {"max_downtime_milliseconds": 500, "downtime_steps": 3, "downtime_step_seconds": 10}
    options = MigrationOptions.parse(wishes)
    allowed = [options.downtime_milliseconds(seconds) for seconds in (0, 9, 10, 25, 1000)]
    assert allowed == [167, 167, 334, 500, 500]
    at_once = MigrationOptions.parse({"max_downtime_milliseconds": 500})
    assert at_once.downtime_milliseconds() == 500
    assert MigrationOptions.parse({}).downtime_milliseconds(1000) is None


def test_post_copy_at_the_time_out_where_it_is_allowed() -> None:
    options = MigrationOptions.parse({"on_timeout": "post_copy", "post_copy": True})
    assert options.on_timeout == "post_copy"


def test_the_xml_shows_nowhere() -> None:
    """It may hold the password of a console."""
    journey = Journey("qemu+tcp://there/system", None, "<pa55/>", "<pa55/>", MigrationOptions())
    assert "pa55" not in repr(journey)
