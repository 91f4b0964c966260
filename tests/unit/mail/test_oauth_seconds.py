"""The times that an OAuth provider sends are bounded, whatever it sends."""

from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.mailbox import Mailbox, OAuth
from workers.mail.api.exchange import Answer
from workers.mail.oauth import consent
from workers.mail.oauth.consent import CODE_SECONDS, Code, ask_code
from workers.mail.oauth.tokens import grant_of

OAUTH = OAuth("https://login.example/common/oauth2/v2.0/token", "client", "refresh")
MAILBOX = Mailbox(1, "acme", "support", "graph", "us@x.example", oauth=OAUTH)
GIVEN = {"device_code": "D", "message": "Enter the code U."}


def asked(monkeypatch: pytest.MonkeyPatch, **given: Any) -> Code:
    monkeypatch.setattr(consent, "_post", lambda *_: Answer(200, {}, orjson.dumps(GIVEN | given)))
    return ask_code(MAILBOX, OAUTH)


@pytest.mark.parametrize(
    ("interval", "pause"),
    [
        (7, 7),
        ("7", 7),
        (1e18, 60),
        ("inf", 60),
        (-3, 1),
        (0, 1),
        ("nan", 5),
        ("soon", 5),
        (None, 5),
        ([], 5),
        ("9" * 5000, 60),
    ],
)
def test_the_interval_of_a_device_code_is_bounded(monkeypatch, interval: object, pause: float) -> None:
    assert pause == asked(monkeypatch, interval=interval).pause


def test_a_device_code_without_an_interval_is_polled_every_five_seconds(monkeypatch) -> None:
    """RFC 8628 §3.2."""
    assert (5, CODE_SECONDS) == ((code := asked(monkeypatch)).pause, code.seconds)


@pytest.mark.parametrize(
    ("life", "seconds"), [(60, 60), (1e18, CODE_SECONDS), ("nan", CODE_SECONDS), ("soon", CODE_SECONDS), (-1, 0)]
)
def test_the_life_of_a_device_code_is_bounded(monkeypatch, life: object, seconds: float) -> None:
    assert seconds == asked(monkeypatch, expires_in=life).seconds


@given(st.floats() | st.integers() | st.text() | st.sampled_from(["nan", "inf", "-inf"]) | st.none() | st.lists(st.none()))
def test_the_life_of_an_access_token_is_bounded(life: object) -> None:
    body = orjson.dumps({"access_token": "a", "expires_in": str(life) if isinstance(life, int) else life})

    assert 0 <= grant_of(Answer(200, {}, body)).seconds <= 86_400
