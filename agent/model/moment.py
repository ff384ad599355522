"""A moment on the clock on the wall, as the wire writes it: RFC 3339, UTC, milliseconds."""

import re
from datetime import UTC, datetime
from typing import Annotated

from pydantic import BeforeValidator, PlainSerializer


def _parse_time(value: object) -> object:
    """RFC 3339, in UTC: Z, +00:00 or -00:00."""
    if not isinstance(value, str):
        raise ValueError("must be an RFC 3339 time in UTC like 2026-11-24T12:00:00Z")
    written = value.upper()
    try:
        if not _RFC3339.fullmatch(written):
            raise ValueError
        moment = datetime.fromisoformat(written)
    except ValueError:
        raise ValueError("must be an RFC 3339 time in UTC like 2026-11-24T12:00:00Z") from None
    if moment.utcoffset() != UTC.utcoffset(None):
        raise ValueError("must be in UTC: end it with Z")
    return moment


_RFC3339 = re.compile(
    r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,9})?(Z|[+-]\d\d:\d\d)", flags=re.ASCII
)


def rfc3339(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def rfc3339_of(seconds: float) -> str:
    """Of seconds since the epoch."""
    return rfc3339(datetime.fromtimestamp(seconds, UTC))


Moment = Annotated[
    datetime, BeforeValidator(_parse_time), PlainSerializer(rfc3339, return_type=str)
]
