"""Values that operators give to the API, and the cursors that they give back."""

from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import example, given
from hypothesis import strategies as some
from pydantic import TypeAdapter, ValidationError

from ops.admin.search import cursors
from ops.admin.search.cursors import BadCursor
from schemas.given import Moment

MOMENT = TypeAdapter(Moment)
FIRST, LAST = datetime(1901, 1, 1), datetime(8999, 1, 1)  # noqa: DTZ001 - hypothesis adds the zone
ZONES = some.integers(-14 * 60, 14 * 60).map(lambda minutes: timezone(timedelta(minutes=minutes)))


@given(some.datetimes(FIRST, LAST, timezones=ZONES))
def test_a_time_is_taken_in_the_form_of_rfc_3339_whatever_its_zone(at) -> None:
    assert at == MOMENT.validate_json(f'"{at.isoformat()}"', strict=True)
    assert at.astimezone(UTC) == MOMENT.validate_python(at.astimezone(UTC).isoformat().replace("+00:00", "Z"))


NO_TIMES = (
    *("", "now", "0", "1700000000", "2026-01-01", "2026-01-01T00:00:00", "2026-01-01 00:00:00Z", "2026-02-30T00:00:00Z"),
    *("2026-01-01T25:00:00Z", "\uff12026-01-01T00:00:00Z", "0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-14:00"),
)


@pytest.mark.parametrize("text", NO_TIMES)
def test_no_other_text_is_a_time(text) -> None:
    for strict in (True, False):
        with pytest.raises(ValidationError):
            MOMENT.validate_python(text, strict=strict)


@given(some.text())
@example("=")
@example("A" * 9000)
@example("é")
def test_no_text_that_we_did_not_make_is_a_cursor(text) -> None:
    with pytest.raises(BadCursor):
        cursors.decode(text, {})


@given(
    some.lists(some.one_of(some.integers(-(2**62), 2**62), some.text(some.characters(codec="utf-8")), some.none())),
    some.dictionaries(some.sampled_from("abc"), some.text(some.characters(codec="utf-8"))),
)
def test_a_cursor_gives_back_its_key_for_its_own_filter_only(key, filter_) -> None:
    made = cursors.encode(key, filter_)

    assert key == cursors.decode(made, filter_)
    with pytest.raises(BadCursor):
        cursors.decode(made, {**filter_, "more": 1})
