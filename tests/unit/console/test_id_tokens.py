"""ID tokens of an OpenID provider: one that says all it must is believed, and any one thing that is wrong is enough not to."""

import base64
import hmac
import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.hashes import SHA256
from joserfc import jwt
from joserfc.jwk import ECKey, Key, OKPKey, RSAKey

from workers.console.access.id_token import Expected, NotBelieved, claims_of, usable_keys

NOW = 1_800_000_000.0
EXPECTED = Expected("https://id.example", "waxseal", "n0nce", ("RS256", "ES256"))
CLAIMS = {"iss": "https://id.example", "aud": "waxseal", "sub": "248289", "nonce": "n0nce", "exp": NOW + 300, "iat": NOW - 2}
RSA = RSAKey.generate_key(2048, {"kid": "rsa", "use": "sig"})
EC = ECKey.generate_key("P-256", {"kid": "ec"})
ED = OKPKey.generate_key("Ed25519", {"kid": "ed"})
FOREIGN = RSAKey.generate_key(2048, {"kid": "rsa"})


def signed(claims: Mapping[str, Any], key: Key = RSA, algorithm: str = "RS256", **header: Any) -> str:
    return jwt.encode({"alg": algorithm, "kid": key.kid, **header}, dict(claims), key, algorithms=[algorithm])


def key_of(kid: str | None) -> Key | None:
    published = usable_keys({"keys": [each.as_dict(private=False) for each in (RSA, EC, ED)]})
    return next((each for each in published if each.kid == kid), None)


def believed(token: str, expected: Expected = EXPECTED) -> Mapping[str, Any]:
    return claims_of(token, key_of, expected, lambda: NOW)


@pytest.mark.parametrize(("key", "algorithm"), [(RSA, "RS256"), (EC, "ES256")])
def test_a_token_that_says_all_it_must_is_believed(key: Key, algorithm: str) -> None:
    assert "248289" == believed(signed(CLAIMS, key, algorithm))["sub"]


@pytest.mark.parametrize(
    "more",
    [
        {"aud": ["waxseal"]},
        {"aud": ["waxseal", "other"], "azp": "waxseal"},
        {"azp": "waxseal"},
        {"exp": NOW - 59},  # clocks differ
        {"iat": NOW + 59},
        {"nbf": NOW + 59},
        {"iat": int(NOW)},
        {"unknown": {"more": [1]}},
    ],
)
def test_what_is_allowed_is_believed(more: dict[str, Any]) -> None:
    assert "248289" == believed(signed({**CLAIMS, **more}))["sub"]


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"iss": "https://evil.example"}, "another issuer"),
    ({"iss": "https://id.example/"}, "another issuer"),
    ({"iss": ["https://id.example"]}, "another issuer"),
    ({"aud": "other"}, "another client"),
    ({"aud": ["other"]}, "another client"),
    ({"aud": []}, "another client"),
    ({"aud": None}, "another client"),
    ({"aud": "waxseal2"}, "another client"),
    ({"aud": ["waxseal", "other"]}, "several clients"),
    ({"aud": ["waxseal", "other"], "azp": "other"}, "to another client"),
    ({"azp": "other"}, "to another client"),
    ({"azp": None}, "to another client"),
    ({"exp": NOW - 61}, "expired"),
    ({"exp": None}, "expired"),
    ({"exp": "2099"}, "expired"),
    ({"exp": True}, "expired"),
    ({"exp": 1e300}, "expired"),
    ({"iat": NOW - 601}, "not issued just now"),
    ({"iat": NOW + 61}, "not issued just now"),
    ({"iat": None}, "not issued just now"),
    ({"nbf": NOW + 61}, "not valid yet"),
    ({"nbf": "soon"}, "not valid yet"),
    ({"sub": ""}, "names nobody"),
    ({"sub": None}, "names nobody"),
    ({"sub": 7}, "names nobody"),
    ({"sub": "a\x00b"}, "names nobody"),
    ({"sub": "x" * 256}, "names nobody"),
    ({"nonce": "other"}, "another login"),
    ({"nonce": None}, "another login"),
    ({"nonce": ["n0nce"]}, "another login"),
]


@pytest.mark.parametrize(("claims", "why"), WRONG)
def test_a_claim_that_is_wrong_is_enough_not_to_believe(claims: dict[str, Any], why: str) -> None:
    with pytest.raises(NotBelieved, match=why):
        believed(signed({**CLAIMS, **claims}))


@pytest.mark.parametrize("name", ["iss", "aud", "sub", "nonce", "exp", "iat"])
def test_a_claim_that_is_missing_is_enough_not_to_believe(name: str) -> None:
    with pytest.raises(NotBelieved):
        believed(signed({each: value for each, value in CLAIMS.items() if each != name}))


def encoded(part: object) -> str:
    return base64.urlsafe_b64encode(part if isinstance(part, bytes) else json.dumps(part).encode()).decode().rstrip("=")


def raw(header: object, claims: object) -> str:
    """Signed by the right key, whatever is said."""
    text = f"{encoded(header)}.{encoded(claims)}"
    key = RSA.private_key
    assert key is not None
    return f"{text}.{encoded(key.sign(text.encode(), PKCS1v15(), SHA256()))}"


def forged() -> dict[str, str]:
    good = signed(CLAIMS)
    head, body, signature = good.split(".")
    other = encoded({**CLAIMS, "sub": "1"})
    shared = f"{encoded({'alg': 'HS256', 'kid': 'rsa'})}.{body}"
    with_shared = encoded(hmac.digest(RSA.as_pem(private=False), shared.encode(), "sha256"))
    unsigned = encoded({"alg": "none", "kid": "rsa"})
    return {
        "no signature": f"{unsigned}.{body}.",
        "no signature, as NONE": f"{encoded({'alg': 'NONE'})}.{body}.",
        "the public key as a shared secret": f"{shared}.{with_shared}",
        "other claims under the signature": f"{head}.{other}.{signature}",
        "without its signature": f"{head}.{body}.",
        "another key of the same id": signed(CLAIMS, FOREIGN),
        "a key that is not published": signed(CLAIMS, RSA, kid="new"),
        "the key of another algorithm": f"{encoded({'alg': 'ES256', 'kid': 'rsa'})}.{body}.{signature}",
        "its own key in its header": signed(CLAIMS, FOREIGN, kid="new", jwk=FOREIGN.as_dict(private=False)),
        "an algorithm that is not in the settings": signed(CLAIMS, RSA, "RS512"),
        "a critical header that nobody knows": raw({"alg": "RS256", "kid": "rsa", "crit": ["x"], "x": 1}, CLAIMS),
        "a key id that is no text": raw({"alg": "RS256", "kid": 7}, CLAIMS),
        "claims that are a list": raw({"alg": "RS256", "kid": "rsa"}, [CLAIMS]),
        "claims that are a text": raw({"alg": "RS256", "kid": "rsa"}, "claims"),
        "an algorithm that is no text": raw({"alg": ["RS256"], "kid": "rsa"}, CLAIMS),
        "no token": "nonsense",
        "nothing": "",
        "five parts": f"{good}.x.y",
        "too large": good + "x" * 70_000,
    }


def test_what_is_signed_by_hand_in_these_tests_is_signed_well() -> None:
    assert "248289" == believed(raw({"alg": "RS256", "kid": "rsa"}, CLAIMS))["sub"]


@pytest.mark.parametrize("how", forged())
def test_a_forged_token_is_not_believed(how: str) -> None:
    with pytest.raises(NotBelieved):
        believed(forged()[how])


def test_only_the_algorithms_of_the_settings_are_taken() -> None:
    token = signed(CLAIMS, ED, "Ed25519")

    assert believed(token, replace(EXPECTED, algorithms=("Ed25519",)))
    with pytest.raises(NotBelieved, match="WAXSEAL_OIDC_ALGORITHMS"):
        believed(token)


def test_of_what_a_provider_publishes_only_keys_that_verify_signatures_are_used() -> None:
    rsa = RSA.as_dict(private=False)
    published = [
        rsa,
        {**rsa, "use": "enc"},
        {"kty": "oct", "k": "c2VjcmV0"},
        {"kty": "new"},
        {"kty": "RSA", "n": "?"},
        7,
        None,
        {},
    ]

    assert ["rsa"] == [key.kid for key in usable_keys({"keys": published})]
    assert [[], [], [], []] == [usable_keys(each) for each in (None, [], {}, {"keys": {}})]
