"""Any sender that signs the body with an HMAC, as configured by the options.

    header            where the signature is               X-Signature
    algorithm         sha256, sha512 or sha1               sha256
    encoding          hex or base64                        hex
    prefix            what stands before the signature     nothing
    timestamp_header  Unix seconds, held to the tolerance  none
    signed            what is signed                       {body}; with a timestamp {timestamp}.{body}

As an example, what Slack does: X-Slack-Signature, prefix v0=, timestamp_header X-Slack-Request-Timestamp, signed
v0:{timestamp}:{body}.
"""

import base64
import hmac
import re
from datetime import datetime

from pipeline.sources.kind import (
    Headers,
    Kind,
    Unverified,
    any_equal,
    base64_bytes,
    check_age,
    check_time,
    first_key,
    keys_of,
    need_secret,
    octets,
    unknown_options,
)
from schemas.source import Source

_OPTIONS = ("header", "algorithm", "encoding", "prefix", "timestamp_header", "signed")
_ALGORITHMS = ("sha256", "sha512", "sha1")
_ENCODINGS = ("hex", "base64")
_HEX = re.compile(r"(?:[0-9a-fA-F]{2})+", re.ASCII)
_BODY, _TIMESTAMP = "{body}", "{timestamp}"


def verify(source: Source, headers: Headers, body: bytes, now: datetime) -> None:
    """The signature must be made with one of the secrets, and the timestamp, if one is configured, must be recent."""
    options = source.options
    header = options.get("header", "X-Signature")
    given = _signature(headers.get(header.lower(), ""), header, options.get("prefix", ""), options.get("encoding", "hex"))
    stamped = options.get("timestamp_header")
    timestamp = headers.get(stamped.lower(), "") if stamped else ""
    sent = check_time(timestamp, stamped) if stamped else None
    content = _content(_template(source), timestamp, body)
    algorithm = options.get("algorithm", "sha256")
    if algorithm not in _ALGORITHMS:
        raise Unverified("signature", "the source's algorithm is not known")
    expected = [hmac.digest(key, content, algorithm) for key in keys_of(source)]
    if not any_equal(expected, [given]):
        raise Unverified("signature", f"{header} does not match")
    if sent is not None:
        check_age(sent, now, source.tolerance)


def check(source: Source) -> list[str]:
    """A secret is needed, options must be known, and a timestamp must be signed, or it proves nothing."""
    problems = need_secret(source) + unknown_options(source, *_OPTIONS)
    for name, allowed in (("algorithm", _ALGORITHMS), ("encoding", _ENCODINGS)):
        value = source.options.get(name, allowed[0])
        if value not in allowed:
            problems.append(f"option {name} is {value!r:.80}; it must be one of {', '.join(allowed)}")
    template = _template(source)
    if template.count(_BODY) != 1:
        problems.append(f"option signed must hold {_BODY} once")
    if ("timestamp_header" in source.options) != (_TIMESTAMP in template):
        problems.append(f"options timestamp_header and signed belong together: the timestamp counts if {_TIMESTAMP} is signed")
    return problems


def sign(source: Source, _headers: Headers, body: bytes, now: datetime) -> dict[str, str]:
    """The signature's header, and the timestamp's if one is configured."""
    options, timestamp = source.options, str(int(now.timestamp()))
    content = _content(_template(source), timestamp, body)
    mac = hmac.digest(first_key(source), content, options.get("algorithm", "sha256"))
    written = base64.b64encode(mac).decode() if options.get("encoding") == "base64" else mac.hex()
    found = {options.get("header", "X-Signature").lower(): options.get("prefix", "") + written}
    if stamped := options.get("timestamp_header"):
        found[stamped.lower()] = timestamp
    return found


def _template(source: Source) -> str:
    default = _TIMESTAMP + "." + _BODY if "timestamp_header" in source.options else _BODY
    return source.options.get("signed", default)


def _content(template: str, timestamp: str, body: bytes) -> bytes:
    before, _, after = template.partition(_BODY)
    return octets(before.replace(_TIMESTAMP, timestamp)) + body + octets(after.replace(_TIMESTAMP, timestamp))


def _signature(value: str, header: str, prefix: str, encoding: str) -> bytes:
    decoded = None
    if value.startswith(prefix):
        text = value.removeprefix(prefix)
        decoded = base64_bytes(text) if encoding == "base64" else _hex_bytes(text)
    if not decoded:
        raise Unverified("malformed", f"the header {header} must hold the signature in {encoding}, after {prefix!r}")
    return decoded


def _hex_bytes(text: str) -> bytes | None:
    return bytes.fromhex(text) if _HEX.fullmatch(text) else None


KIND = Kind(verify, check, sign)
