"""Whether an ID token of an OpenID provider is to be believed (OpenID Connect Core 1.0, 3.1.3.7)."""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from hmac import compare_digest
from typing import Any, Final

from joserfc import jws, jwt
from joserfc.errors import JoseError
from joserfc.jwk import JWKRegistry, Key

LEEWAY: Final = 60  # seconds by which clocks may differ
OLDEST: Final = 600  # seconds since it was issued: a login takes no longer
LONGEST_SUBJECT: Final = 255  # characters (2, `sub`)
LARGEST: Final = 64 * 1024  # characters of a token

KeyOf = Callable[[str | None], Key | None]
"""The provider's key with this id; without an id, the only one."""


class NotBelieved(Exception):
    """An ID token that does not say who somebody is; the text says why, for the log."""


@dataclass(frozen=True, slots=True)
class Expected:
    """What an ID token must say: who issued it, to whom, and for which login."""

    issuer: str
    client: str
    nonce: str
    algorithms: Sequence[str]


def claims_of(token: str, key_of: KeyOf, expected: Expected, clock: Callable[[], float] = time.time) -> Mapping[str, Any]:
    """The claims of a token that is believed. Raises `NotBelieved`."""
    if len(token) > LARGEST:
        raise NotBelieved("it is too large")
    try:
        header = jws.extract_compact(token.encode()).headers()
        algorithm, kid = header.get("alg"), header.get("kid")
        if algorithm not in expected.algorithms:
            raise NotBelieved(
                f"its algorithm is {algorithm!r:.40}; WAXSEAL_OIDC_ALGORITHMS has {', '.join(expected.algorithms)}"
            )
        if kid is not None and not isinstance(kid, str):
            raise NotBelieved("its key id is no text")
        key = key_of(kid)
        if key is None:
            raise NotBelieved(f"the provider publishes no key {kid!r:.80}")
        claims = jwt.decode(token, key, algorithms=list(expected.algorithms)).claims
    except (JoseError, ValueError, TypeError) as error:
        raise NotBelieved(f"{type(error).__name__}: {error}"[:300]) from error
    _check(claims, expected, clock())
    return claims


def usable_keys(published: object) -> list[Key]:
    """The keys in a JWK Set that can verify signatures; what is not understood is left out (RFC 7517, 5)."""
    listed = published.get("keys") if isinstance(published, Mapping) else None
    found = []
    for each in listed if isinstance(listed, list) else []:
        if not isinstance(each, dict) or each.get("use", "sig") != "sig" or each.get("kty") == "oct":
            continue
        try:
            found.append(JWKRegistry.import_key(each))
        except (JoseError, ValueError, TypeError, KeyError):
            continue
    return found


def _check(claims: Mapping[str, Any], expected: Expected, now: float) -> None:
    audience = claims.get("aud")
    audiences = audience if isinstance(audience, list) else [audience]
    subject, nonce = claims.get("sub"), claims.get("nonce")
    named = isinstance(subject, str) and 0 < len(subject) <= LONGEST_SUBJECT and subject.isprintable()
    ours = isinstance(nonce, str) and compare_digest(nonce.encode(errors="replace"), expected.nonce.encode())
    ends, issued = _time(claims.get("exp"), -math.inf), _time(claims.get("iat"), -math.inf)
    begins = _time(claims["nbf"], math.inf) if "nbf" in claims else -math.inf
    wrong = (
        (claims.get("iss") != expected.issuer, "it is of another issuer"),
        (expected.client not in audiences, "it is for another client"),
        (len(audiences) > 1 and "azp" not in claims, "it is for several clients, and does not say to whom it was issued"),
        (claims.get("azp", expected.client) != expected.client, "it was issued to another client"),
        (ends <= now - LEEWAY, "it has expired"),
        (not now - OLDEST <= issued <= now + LEEWAY, "it was not issued just now"),
        (begins > now + LEEWAY, "it is not valid yet"),
        (not named, "it names nobody"),
        (not ours, "it is of another login"),
    )
    for is_wrong, why in wrong:
        if is_wrong:
            raise NotBelieved(why)


def _time(value: object, otherwise: float) -> float:
    """The seconds since 1970 that a claim says; `otherwise` if it says none."""
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < 1e12 else otherwise
