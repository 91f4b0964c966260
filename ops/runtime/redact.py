"""Keeps secrets out of the logs, and log lines small.

`redact` is a structlog processor: it turns whatever is logged into plain text, numbers, lists and dicts, bounded in
depth, breadth and length, with secrets replaced by `***`. It recognises a secret by the name it is logged under or by its
format. Bytes are never shown: they may be a message's content.
"""

import re
from collections.abc import Mapping, MutableMapping, Sequence
from collections.abc import Set as AbstractSet
from typing import Any

MASK = "***"
_MAX_DEPTH, _MAX_ITEMS = 5, 50
_HEAD, _TAIL, _MARGIN = 6_000, 2_000, 1_000  # characters; the margin lets a secret be recognised that the cut divides

_SECRET_WORDS = frozenset(
    {"secret", "secrets", "password", "passwords", "passwd", "pwd", "passphrase", "token", "tokens", "authorization"}
    | {"signature", "signatures", "key", "keys", "apikey", "credential", "credentials", "cookie", "cookies", "salt"}
)
_HARMLESS = frozenset({"routing_key", "public_key", "binding_key"})
_WORDS = re.compile(r"[a-z0-9]+")

_URL = re.compile(r"://[^\s\"']*")
# A password may contain "/" and "@" that were not escaped; a port before a path is not a password.
_LOGIN = re.compile(r"://[^\s:/@?#\"']*:(?!\d+[/?#])")

# (the substring that a text must contain for the pattern to be tried, the pattern, the replacement)
_SECRET_FORMATS: tuple[tuple[str, re.Pattern[str], str], ...] = (
    ("://", re.compile(r"(https?://)[^\s:/@?#\"']+@", re.IGNORECASE), rf"\1{MASK}@"),
    ("whs", re.compile(r"\bwhs(ec|k)_[\w+/=.-]+"), rf"whs\1_{MASK}"),
    ("wxs_", re.compile(r"\bwxs_([0-9A-Za-z]{8})_\w+"), rf"wxs_\1_{MASK}"),
    ("gAAAA", re.compile(r"\bgAAAA[\w-]{40,}={0,2}"), MASK),
    ("=", re.compile(r"(?<![\w+/-])[\w-]{43}=(?![\w=])"), MASK),
    ("v1", re.compile(r"\bv1a?,[A-Za-z0-9+/]{43,}={0,2}"), f"v1,{MASK}"),
    (
        "=",
        re.compile(
            r"((?:secret|passw(?:or)?d|pwd|passphrase|token|authorization|signature|api_?key)\s*=\s*)"
            r"('[^']*'|\"[^\"]*\"|[^\s,;&'\"]+)",
            re.IGNORECASE,
        ),
        rf"\1{MASK}",
    ),
    (
        ":",
        re.compile(
            r"((?:secret|passw(?:or)?d|passphrase|token|authorization|signature|api_?key)[\"']\s*:\s*b?)"
            r"('[^']*'|\"[^\"]*\")",
            re.IGNORECASE,
        ),
        rf"\1{MASK}",
    ),
    (" ", re.compile(r"\b(Bearer|Basic)\s+[\w.~+/-]{8,}=*", re.IGNORECASE), rf"\1 {MASK}"),
)


def redact(_logger: object, _method: str, event: MutableMapping[str, Any]) -> dict[str, Any]:
    """Give back `event` without secrets and within bounds; `event` itself is not changed."""
    return _fields(event, _MAX_DEPTH)


def redact_text(text: str) -> str:
    """Give back `text` with everything that looks like a secret replaced, and without its middle if it is long."""
    if len(text) <= _HEAD + _TAIL:
        return _masked(text)
    head, tail = _masked(text[: _HEAD + _MARGIN])[:_HEAD], _masked(text[-_TAIL - _MARGIN :])[-_TAIL:]
    return f"{head} …{len(text) - _HEAD - _TAIL} characters left out… {tail}"


def is_secret_name(name: str) -> bool:
    """Whether a value that is logged as `name` is hidden: `SHOP_SECRET`, `X-Api-Key`, `keys` are; `routing_key` is not."""
    words = _WORDS.findall(name.lower())
    if not words or "_".join(words) in _HARMLESS:
        return False
    return words[-1] in _SECRET_WORDS or "secret" in words or "password" in words


def _masked(text: str) -> str:
    if "://" in text:
        text = _URL.sub(_without_password, text)
    for needle, pattern, replacement in _SECRET_FORMATS:
        if needle in text:
            text = pattern.sub(replacement, text)
    return text


def _without_password(url: re.Match[str]) -> str:
    """The URL without the password before its last @. Two linear searches: one pattern for both takes quadratic time."""
    text = url[0]
    end = text.rfind("@")
    login = _LOGIN.search(text, 0, max(end, 0))
    return f"{text[: login.end()]}{MASK}{text[end:]}" if login else text


def _fields(fields: Mapping[Any, Any], depth: int) -> dict[str, Any]:
    clean: dict[str, Any] = {}
    for name, value in fields.items():
        if len(clean) == _MAX_ITEMS:
            clean["…"] = f"{len(fields) - _MAX_ITEMS} more"
            break
        key = name if isinstance(name, str) else _shown(name)
        clean[key] = MASK if _hides(key, value) else _value(value, depth)
    return clean


def _hides(name: str, value: object) -> bool:
    return value is not None and not isinstance(value, bool) and is_secret_name(name)


def _value(value: Any, depth: int) -> Any:
    if isinstance(value, str):
        return redact_text(value)
    if value is None or isinstance(value, bool | int | float):
        return value
    if isinstance(value, bytes | bytearray | memoryview):
        return f"<{len(value)} bytes>"
    return _nested(value, depth - 1)


def _nested(value: Any, depth: int) -> Any:
    if depth > 0 and isinstance(value, Mapping):
        return _fields(value, depth)
    if depth > 0 and isinstance(value, Sequence | AbstractSet):
        shown = [_value(item, depth) for item, _ in zip(value, range(_MAX_ITEMS), strict=False)]
        return shown if len(value) <= _MAX_ITEMS else [*shown, f"… {len(value) - _MAX_ITEMS} more"]
    return "…" if isinstance(value, Mapping | Sequence | AbstractSet) else _shown(value)


def _shown(value: object) -> str:
    try:
        return redact_text(f"{type(value).__name__}: {value}" if isinstance(value, BaseException) else str(value))
    except Exception:  # noqa: BLE001 - a value that cannot be formatted must not cost the line, nor the message it is about
        return f"<unprintable {type(value).__name__}>"
