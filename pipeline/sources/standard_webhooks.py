"""Standard Webhooks 1.0.0: HMAC-SHA256 (`v1`, secret whsec_...) and Ed25519 (`v1a`, public key whpk_...).

The signed content is `id.timestamp.body`. The headers of Svix, from which the standard grew, are accepted as well.
"""

import base64
import hmac
from datetime import UTC, datetime
from functools import lru_cache
from operator import itemgetter
from typing import Final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from pipeline.sources.kind import (
    Headers,
    Kind,
    Sample,
    Unsignable,
    Unverified,
    any_equal,
    base64_bytes,
    check_age,
    check_time,
    need_secret,
    octets,
    plain_sample,
    unknown_options,
)
from schemas.source import Source

_SECRET, _PUBLIC, _PRIVATE = "whsec_", "whpk_", "whsk_"
_STANDARD: Final = itemgetter("webhook-id", "webhook-timestamp", "webhook-signature")
_SVIX: Final = itemgetter("svix-id", "svix-timestamp", "svix-signature")
_MAX_SIGNATURES: Final = 20  # each costs a verification per key
_MAX_SECONDS: Final = 253_402_300_799  # the last second that a datetime holds


def verify(source: Source, headers: Headers, body: bytes, now: datetime) -> None:
    """One signature of the header must be made with one of the secrets; the timestamp, which is signed, must be recent."""
    identity, timestamp, signatures = _fields(headers)
    sent = check_time(timestamp, "webhook-timestamp")
    content = b"%b.%b.%b" % (octets(identity), timestamp.encode(), body)
    if not _signed(source.secrets, content, signatures.split()):
        raise Unverified("signature", "no signature in webhook-signature matches")
    check_age(sent, now, source.tolerance)


def describe(_source: Source, headers: Headers, _body: bytes) -> dict[str, str]:
    """The id, which stays the same when the message is resent, and the time of this sending."""
    identity, timestamp, _ = _fields(headers)
    return {"id": identity, "time": _written(timestamp)}


def check(source: Source) -> list[str]:
    """Each secret must hold a key, and not the sender's private key."""
    problems = need_secret(source) + unknown_options(source)
    for n, secret in enumerate(source.secrets, 1):
        if secret.startswith(_PRIVATE):
            problems.append(f"secret {n} is a private key; a source needs the sender's public one, whpk_...")
        elif secret and _key(secret) is None:
            problems.append(f"secret {n} is neither whsec_ and base64, nor whpk_ and the base64 of an Ed25519 public key")
    return problems


def sign(source: Source, headers: Headers, body: bytes, now: datetime) -> dict[str, str]:
    """All three headers, with the given `webhook-id`: `v1` with a whsec_ secret, `v1a` with a private key, whsk_..."""
    identity, timestamp = headers["webhook-id"], str(int(now.timestamp()))
    content = b"%b.%b.%b" % (octets(identity), timestamp.encode(), body)
    secret = source.secrets[0] if source.secrets else ""
    if secret.startswith(_PRIVATE):
        seed = base64_bytes(secret.removeprefix(_PRIVATE)) or b""
        if len(seed) not in (32, 64):  # the seed, or the seed and the public key
            raise Unsignable("a private key is whsk_ and the base64 of 32 or 64 bytes")
        version, signature = "v1a", Ed25519PrivateKey.from_private_bytes(seed[:32]).sign(content)
    else:
        key = _key(secret)
        if not isinstance(key, bytes):
            raise Unsignable("the source has only the sender's public key: signing takes the private one, whsk_...")
        version, signature = "v1", hmac.digest(key, content, "sha256")
    signed = f"{version},{base64.b64encode(signature).decode()}"
    return {"webhook-id": identity, "webhook-timestamp": timestamp, "webhook-signature": signed}


def _fields(headers: Headers) -> tuple[str, str, str]:
    names = _STANDARD if "webhook-id" in headers else _SVIX
    try:
        identity, timestamp, signature = names(headers)
    except KeyError:
        identity = timestamp = signature = ""
    if not (identity and timestamp and signature):
        raise Unverified("malformed", "the headers webhook-id, webhook-timestamp and webhook-signature are needed")
    return identity, timestamp, signature


@lru_cache(256)
def _written(timestamp: str) -> str:
    sent = datetime.fromtimestamp(min(int(timestamp), _MAX_SECONDS), UTC)
    return sent.isoformat().replace("+00:00", "Z")


def _signed(secrets: tuple[str, ...], content: bytes, signatures: list[str]) -> bool:
    if len(signatures) > _MAX_SIGNATURES:
        raise Unverified("malformed", f"webhook-signature holds more than {_MAX_SIGNATURES} signatures")
    shared, public = _keys(secrets)
    expected = [hmac.digest(key, content, "sha256") for key in shared]
    if expected and any_equal(expected, _decoded(signatures, "v1,")):
        return True
    if not public:
        return False
    given = _decoded(signatures, "v1a,")
    return any(_verifies(key, one, content) for key in public for one in given)


@lru_cache(maxsize=1024)
def _keys(secrets: tuple[str, ...]) -> tuple[tuple[bytes, ...], tuple[Ed25519PublicKey, ...]]:
    """The keys of a source: shared secrets, and public keys."""
    keys = [_key(secret) for secret in secrets]
    public = tuple(key for key in keys if isinstance(key, Ed25519PublicKey))
    return tuple(key for key in keys if isinstance(key, bytes)), public


def _decoded(signatures: list[str], version: str) -> list[bytes]:
    return [found for one in signatures if one.startswith(version) and (found := base64_bytes(one[len(version) :]))]


def _verifies(key: Ed25519PublicKey, signature: bytes, content: bytes) -> bool:
    try:
        key.verify(signature, content)
    except InvalidSignature:
        return False
    return True


@lru_cache(maxsize=1024)
def _key(secret: str) -> bytes | Ed25519PublicKey | None:
    if secret.startswith(_PUBLIC):
        raw = base64_bytes(secret.removeprefix(_PUBLIC))
        return Ed25519PublicKey.from_public_bytes(raw) if raw and len(raw) == 32 else None
    return base64_bytes(secret.removeprefix(_SECRET)) or None


def sample(fresh: str, now: datetime) -> Sample:
    """A plain sample with the id in the header as well."""
    headers, content = plain_sample(fresh, now)
    return {**headers, "webhook-id": fresh}, content


KIND = Kind(verify, check, sign, describe, sample=sample)
