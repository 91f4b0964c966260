"""How an OpenID provider is asked: what is kept, how often it is asked again, and which of its addresses are not believed."""

import base64
import time
from collections.abc import Mapping
from typing import Any

import pytest
from joserfc.jwk import ECKey

from ops.settings import Settings
from workers.console.access.provider import AGAIN_AFTER, KNOWN_FOR, Provider, ProviderAway, Tokens

ISSUER = "https://id.example"
METADATA = {
    "issuer": ISSUER,
    "authorization_endpoint": f"{ISSUER}/authorize?tenant=1",
    "token_endpoint": f"{ISSUER}/token",
    "jwks_uri": f"{ISSUER}/keys",
    "userinfo_endpoint": f"{ISSUER}/me",
}
OLD, NEW = (ECKey.generate_key("P-256", {"kid": kid}) for kid in ("old", "new"))


class Scripted(Provider):
    """Answers from a table, and notes what it was asked."""

    def __init__(self, secret: str = "", **metadata: Any) -> None:
        super().__init__(Settings(oidc_issuer=ISSUER, oidc_client="wax seal", oidc_secret=secret))
        self.answers: dict[str, Any] = {
            f"{ISSUER}/.well-known/openid-configuration": {**METADATA, **metadata},
            f"{ISSUER}/keys": {"keys": [OLD.as_dict(private=False)]},
            f"{ISSUER}/token": {"id_token": "i", "access_token": "a"},
            f"{ISSUER}/me": {"sub": "7", "groups": ["ops"]},
        }
        self.asked: list[tuple[str, Mapping[str, str], Mapping[str, str] | None]] = []

    def _asked(self, url: str, headers: Mapping[str, str], form: Mapping[str, str] | None) -> dict[str, Any]:
        self.asked.append((url.removeprefix(ISSUER), headers, form))
        return dict(self.answers[url])

    def times(self, path: str) -> int:
        return [each[0] for each in self.asked].count(path)


def test_what_it_publishes_is_asked_for_once_an_hour(monkeypatch: pytest.MonkeyPatch) -> None:
    provider, now = Scripted(), [1000.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    for _ in range(3):
        assert provider.login_address({}).startswith(f"{ISSUER}/authorize?tenant=1&response_type=code&client_id=wax%20seal&")
        assert provider.key("old") is not None
    before = (provider.times("/.well-known/openid-configuration"), provider.times("/keys"))
    now[0] += KNOWN_FOR + 1
    provider.key("old")

    assert (1, 1) == before
    assert (2, 2) == (provider.times("/.well-known/openid-configuration"), provider.times("/keys"))


def test_an_unknown_key_is_looked_for_once_a_minute_however_often_it_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    provider, now = Scripted(), [1000.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    assert provider.key("old") is not None
    provider.answers[f"{ISSUER}/keys"] = {"keys": [each.as_dict(private=False) for each in (OLD, NEW)]}
    too_soon = [provider.key(kid) for kid in ("new", "new", "forged")]
    now[0] += AGAIN_AFTER + 1

    assert [None] * 3 == too_soon
    assert provider.key("new") is not None
    assert [None] * 20 == [provider.key(f"forged {n}") for n in range(20)]
    assert 2 == provider.times("/keys")


def test_without_an_id_the_key_is_the_only_one() -> None:
    provider = Scripted()
    only = provider.key(None)
    provider.answers[f"{ISSUER}/keys"] = {"keys": [each.as_dict(private=False) for each in (OLD, NEW)]}
    another = Scripted()
    another.answers = provider.answers

    assert only is not None
    assert another.key(None) is None


@pytest.mark.parametrize("name", ["authorization_endpoint", "token_endpoint", "jwks_uri"])
@pytest.mark.parametrize("url", [None, 7, "", "http://id.example/x", "javascript:alert(1)", "https:", "/relative"])
def test_an_address_that_is_missing_or_not_https_is_not_used(name: str, url: object) -> None:
    provider = Scripted(**{name: url})
    ask = {
        "authorization_endpoint": lambda: provider.login_address({}),
        "token_endpoint": lambda: provider.redeem("code", "verifier", "https://console.example/login/callback"),
        "jwks_uri": lambda: provider.key("old"),
    }[name]

    with pytest.raises(ProviderAway, match=name):
        ask()


@pytest.mark.parametrize("issuer", [None, "https://id.example/", "https://evil.example", ["https://id.example"]])
def test_a_provider_that_calls_itself_otherwise_is_not_asked_further(issuer: object) -> None:
    provider = Scripted(issuer=issuer)

    with pytest.raises(ProviderAway, match="WAXSEAL_OIDC_ISSUER"):
        provider.login_address({})
    assert 1 == len(provider.asked)


@pytest.mark.parametrize(
    ("secret", "methods", "by"),
    [
        ("s:/+", None, "header"),
        ("s:/+", ["client_secret_basic", "client_secret_post"], "header"),
        ("s:/+", ["client_secret_post"], "form"),
        ("", None, "none"),
    ],
)
def test_the_secret_is_sent_as_the_provider_wants_it_and_never_in_an_address(secret: str, methods: Any, by: str) -> None:
    provider = Scripted(secret, token_endpoint_auth_methods_supported=methods)
    provider.redeem("code", "verifier", "https://console.example/login/callback")
    url, headers, form = provider.asked[-1]
    assert form is not None
    basic = f"Basic {base64.b64encode(b'wax%20seal:s%3A%2F%2B').decode()}"

    assert ("/token", "code", "verifier") == (url, form["code"], form["code_verifier"])
    assert (basic if by == "header" else None) == headers.get("Authorization")
    assert (secret if by == "form" else None) == form.get("client_secret")
    assert (None if by == "header" else "wax seal") == form.get("client_id")


def test_an_answer_without_an_id_token_is_none() -> None:
    provider = Scripted()
    provider.answers[f"{ISSUER}/token"] = {"access_token": "a", "id_token": ["i"]}

    with pytest.raises(ProviderAway, match="no ID token"):
        provider.redeem("code", "verifier", "https://console.example/login/callback")


def test_what_the_provider_says_beside_the_id_token_is_asked_for_with_the_access_token() -> None:
    tokens = Tokens("i", "a")

    assert {"sub": "7", "groups": ["ops"]} == (asked := Scripted()).about(tokens)
    assert {"Authorization": "Bearer a"} == asked.asked[-1][1]
    assert {} == Scripted().about(Tokens("i", ""))
    without = Scripted()
    del without.answers[f"{ISSUER}/.well-known/openid-configuration"]["userinfo_endpoint"]
    assert {} == without.about(tokens)
