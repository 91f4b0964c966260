"""Values that operators give to the API: in the form that is said and no other, and only what Postgres can store."""

import re
from datetime import UTC, datetime
from typing import Annotated, Any, Final

from pydantic import AfterValidator, AwareDatetime, BeforeValidator, Field

HIGHEST_ID: Final = 2**63 - 1
_RFC3339: Final = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,9})?(Z|[+-]\d\d:\d\d)", re.ASCII | re.IGNORECASE)
_FIRST, _LAST = datetime(1900, 1, 1, tzinfo=UTC), datetime(9000, 1, 1, tzinfo=UTC)


def _rfc3339(value: Any) -> Any:
    """Text of that form only: pydantic takes numbers and other forms, too; but when it is strict, no text after this."""
    if isinstance(value, datetime):
        return value
    if not isinstance(value, str) or not _RFC3339.fullmatch(value):
        raise ValueError("must be a time as RFC 3339 has it: 2026-05-31T12:00:00Z")
    return datetime.fromisoformat(value.upper())


def _in_bounds(value: datetime) -> datetime:
    if not _FIRST <= value <= _LAST:
        raise ValueError("must be between the years 1900 and 9000")
    return value


#: A time with its zone.
Moment = Annotated[AwareDatetime, BeforeValidator(_rfc3339), AfterValidator(_in_bounds)]
#: Text that Postgres can store.
Words = Annotated[str, Field(min_length=1, max_length=1000, pattern=r"^[^\u0000]*$")]
Slug = Annotated[str, Field(pattern=r"^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$")]
Id = Annotated[int, Field(ge=1, le=HIGHEST_ID)]
Rate = Annotated[float, Field(ge=1, le=10_000, description="rows per second at most")]
