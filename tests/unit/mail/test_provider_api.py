import pytest

from workers.mail.api.exchange import Answer
from workers.mail.api.provider_api import number, server_time


@pytest.mark.parametrize(
    ("said", "taken"),
    [
        ("12", 12),
        (12, 12),
        (-1, 0),
        (1e23, 2**63 - 1),
        ("9" * 30, 2**63 - 1),
        ("9" * 5000, None),
        (float("inf"), None),
        (float("nan"), None),
        (None, None),
        ({}, None),
    ],
)
def test_a_number_of_an_api_is_one_that_postgres_can_store(said: object, taken: int | None) -> None:
    assert taken == number(said)


def test_a_date_before_the_first_year_is_taken_for_none() -> None:
    assert 1 < server_time(Answer(200, {"date": "Mon, 01 Jan 0001 00:00:00 +2359"}, b"")).year
