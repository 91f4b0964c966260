"""A shared token: `Authorization: Bearer ...`, or the whole value of the header that option `header` names.

Weaker than a signature: anybody who sees one message can send others. Never read from the query, which ends up in logs.
"""

from datetime import datetime
from hashlib import sha256

from pipeline.sources.kind import Headers, Kind, Unverified, any_equal, first_key, keys_of, need_secret, octets, unknown_options
from schemas.source import Source

_SCHEME = "bearer "


def verify(source: Source, headers: Headers, _body: bytes, _now: datetime) -> None:
    """The token must be one of the secrets. Hashes are compared, so that timing does not reveal the length either."""
    header = source.options.get("header", "Authorization")
    value = headers.get(header.lower(), "")
    if header.lower() == "authorization":
        if not value.lower().startswith(_SCHEME):
            raise Unverified("malformed", "the header Authorization must hold Bearer and the token")
        value = value[len(_SCHEME) :].strip()
    if not value:
        raise Unverified("malformed", f"the header {header} must hold the token")
    expected = [sha256(key).digest() for key in keys_of(source)]
    if not any_equal(expected, [sha256(octets(value)).digest()]):
        raise Unverified("signature", f"the token in {header} is not known")


def check(source: Source) -> list[str]:
    """A secret is needed."""
    return need_secret(source) + unknown_options(source, "header")


def sign(source: Source, _headers: Headers, _body: bytes, _now: datetime) -> dict[str, str]:
    """The header with the token itself."""
    header = source.options.get("header", "Authorization").lower()
    token = first_key(source).decode("latin-1")
    return {header: f"Bearer {token}" if header == "authorization" else token}


KIND = Kind(verify, check, sign, challenge="Bearer")
