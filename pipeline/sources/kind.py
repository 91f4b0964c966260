"""The definition of a source kind: how its signature is verified, and how its messages are described."""

import binascii
import hmac
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final, Literal

from schemas.source import Source

#: By lower-case name, decoded as Latin-1, which is lossless; the values of a repeated header are joined with a comma.
#: `PATH`, named as in HTTP/2, holds the path and query of the request; no sender's header can have that name.
Headers = Mapping[str, str]
PATH: Final = ":path"
Reason = Literal["signature", "timestamp", "malformed"]


class Unverified(Exception):
    """The message is not proved to come from its source. `detail` is shown to the sender and never contains a secret."""

    def __init__(self, reason: Reason, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail


class Unsignable(Exception):
    """The source has no secret that can sign its messages; the text says what is needed."""


@dataclass(frozen=True, slots=True)
class Reply:
    """A response in place of the ingress's usual one."""

    status: int
    content_type: bytes
    body: bytes


#: The headers of a message, and the members of a JSON object or the fields of a form.
Sample = tuple[dict[str, str], dict[str, Any]]

JSON: Final = "application/json"


def iso(now: datetime) -> str:
    """A time as most senders write it."""
    return now.astimezone(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


def plain_sample(fresh: str, now: datetime) -> Sample:
    """A sample for a kind without a message format of its own."""
    content = {"id": fresh, "type": "order.paid", "subject": "order-7", "time": iso(now), "amount": 42}
    return {"content-type": JSON}, content


def _unchanged(options: Mapping[str, str], _url: str) -> Mapping[str, str]:
    return options


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of source. To add one: a file with a `KIND`, and its place in `pipeline.sources.KINDS`.

    `verify` returns if the message was signed with one of the source's secrets; otherwise it raises `Unverified` and nothing
    else, whatever the input. `describe` reads the attributes from the kind's own headers and body, and raises `Rejected` for
    JSON beyond the limits; it is None for a kind without a format of its own, whose messages may be CloudEvents. `check` lists
    the problems of a source's secrets and options. `sign` is the sender's side, for trying a source out: it returns the headers
    that make a message verify, signed with the first secret, or raises `Unsignable`. `greet` answers a verified message that
    only probes the URL and is not recorded. `replies` are the values of the option `answer`, for senders that act on the
    response to an accepted message. `sample` makes a message for trying a source out, from a new id and the time. `posted_to`
    gives the options of a source that is not configured but tried out at a URL. `extensions` are attributes that `describe`
    returns beyond those of CloudEvents.
    """

    verify: Callable[[Source, Headers, bytes, datetime], None]
    check: Callable[[Source], list[str]]
    sign: Callable[[Source, Headers, bytes, datetime], dict[str, str]]
    describe: Callable[[Source, Headers, bytes], dict[str, str]] | None = None
    greet: Callable[[Headers, bytes], Reply | None] | None = None
    replies: Mapping[str, Reply] = field(default_factory=dict)
    challenge: str = "Signature"  # the scheme in WWW-Authenticate of a 401
    sample: Callable[[str, datetime], Sample] = plain_sample
    posted_to: Callable[[Mapping[str, str], str], Mapping[str, str]] = _unchanged
    extensions: tuple[str, ...] = ()


def octets(value: str) -> bytes:
    """A header's value as it was on the wire."""
    return value.encode("latin-1", "replace")


def keys_of(source: Source) -> list[bytes]:
    """The secrets as UTF-8 bytes, without empty ones, with which anybody could sign."""
    return [secret.encode(errors="replace") for secret in source.secrets if secret]


def first_key(source: Source) -> bytes:
    """The secret to sign with, as bytes. Raises `Unsignable` if there is none."""
    keys = keys_of(source)
    if not keys:
        raise Unsignable(f"kind {source.kind} signs with a secret: give one")
    return keys[0]


def base64_bytes(text: str) -> bytes | None:
    """The bytes in standard base64, padded or not; None if the text is something else."""
    try:
        return binascii.a2b_base64(text + "=" * (-len(text) % 4), strict_mode=True)
    except (binascii.Error, ValueError):
        return None


def any_equal(expected: list[bytes], given: list[bytes]) -> bool:
    """Whether one of `given` is one of `expected`. Its timing reveals neither which, nor how many bytes agree."""
    found = False
    for one in expected:
        for other in given:
            found |= hmac.compare_digest(one, other)
    return found


def check_time(text: str, header: str) -> int:
    """The Unix seconds in a header. Raises `Unverified` if it holds anything but digits."""
    if not (text.isascii() and text.isdigit() and len(text) <= 12):
        raise Unverified("malformed", f"{header} must hold Unix seconds")
    return int(text)


def check_age(sent: int, now: datetime, tolerance: int) -> None:
    """Raises `Unverified` if `sent` is more than `tolerance` seconds before or after `now`."""
    age = now.timestamp() - sent
    if abs(age) > tolerance:
        when = f"{age:.0f} s old" if age > 0 else f"{-age:.0f} s ahead"
        raise Unverified("timestamp", f"the message is {when}; {tolerance} s are allowed, so look at the clocks")


def need_secret(source: Source) -> list[str]:
    """The problems of missing or empty secrets."""
    if not source.secrets:
        return [f"kind {source.kind} needs at least one secret"]
    return [f"secret {n} is empty" for n, secret in enumerate(source.secrets, 1) if not secret]


def secrets_alone(source: Source) -> list[str]:
    """The problems of a source whose kind needs a secret and has no options."""
    return need_secret(source) + unknown_options(source)


def unknown_options(source: Source, *known: str) -> list[str]:
    """The problems of options that the kind does not have."""
    has = f"it has {', '.join(known)}" if known else "it has none"
    return [f"kind {source.kind} has no option {name!r:.80}; {has}" for name in source.options if name not in known]


def check_answer(source: Source, replies: Mapping[str, Reply]) -> list[str]:
    """The problem of an option `answer` that names none of `replies`; empty if there is none."""
    answer = source.options.get("answer")
    if answer is None or answer in replies:
        return []
    return [f"option answer is {answer!r:.80}; it must be {' or '.join(replies)}, or left out for JSON with the id"]
