"""AMQP header values as JSON and back, so that a dead letter can be published again exactly as it came.

A value without a JSON equivalent becomes an object with one key that begins with `$`, its tag. A table that looks like such an
object, or whose keys cannot be stored as text, is tagged too, so the form is unambiguous.
"""

import base64
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from decimal import Decimal
from math import isfinite
from typing import Any

from pipeline.errors import Unreadable
from schemas.message import OTHERS, Message, Opaque

TABLE = "$table"


def tag(value: Any) -> Any:
    """The value, with everything in it that JSON cannot hold tagged. Raises `TypeError` for a type that AMQP does not have."""
    if _is_json(value):
        return value
    if isinstance(value, list | tuple):
        return [tag(each) for each in value]
    if isinstance(value, Mapping):
        return _tag_table(value)
    for kind, (name, write, _read) in _TAGS.items():
        if isinstance(value, kind):
            return {name: write(value)}
    raise TypeError(f"not a type of AMQP: {type(value).__name__}")


def untag(value: Any) -> Any:
    """Reverses `tag`; naive times become UTC, and tuples lists. Raises `Unreadable` for a value that `tag` does not make."""
    try:
        return _untag(value)
    except (TypeError, ValueError, ArithmeticError, RecursionError) as error:
        raise Unreadable(f"not what a tag holds: {error!r:.200}") from None


def _untag(value: Any) -> Any:
    if isinstance(value, list):
        return [_untag(each) for each in value]
    if not isinstance(value, dict):
        return value
    if not any(key.startswith("$") for key in value):
        return {key: _untag(each) for key, each in value.items()}
    if len(value) != 1:
        raise Unreadable(f"tagged with more than one key: {sorted(value)!r:.200}")
    ((key, content),) = value.items()
    if key == TABLE:
        return {_untag(name): _untag(each) for name, each in content}
    if key not in _READ:
        raise Unreadable(f"an unknown tag: {key!r:.200}")
    if not isinstance(content, str):
        raise TypeError(f"{key} with a {type(content).__name__}")
    return _READ[key](content)


def _tag_table(table: Mapping[Any, Any]) -> Any:
    if all(isinstance(key, str) and not key.startswith("$") and is_plain(key) for key in table):
        return {key: tag(value) for key, value in table.items()}
    return {TABLE: [[tag(key), tag(value)] for key, value in table.items()]}


def _is_json(value: Any) -> bool:
    if isinstance(value, str):
        return is_plain(value)
    return value is None or isinstance(value, int) or (isinstance(value, float) and isfinite(value))


def is_plain(text: str) -> bool:
    """Whether Postgres and JSON can both hold it as text: it has no NUL and no lone surrogate."""
    if "\x00" in text:
        return False
    return text.isascii() or not any("\ud800" <= char <= "\udfff" for char in text)


def _base64(content: bytes) -> str:
    return base64.b64encode(content).decode()


def _bytes(stored: str) -> bytes:
    return base64.b64decode(stored, validate=True)


#: By type: the tag, and the functions that write and read its content.
_TAGS: Mapping[type, tuple[str, Callable[[Any], str], Callable[[str], Any]]] = {
    str: (
        "$text",
        lambda text: _base64(text.encode("utf-8", "surrogatepass")),
        lambda stored: _bytes(stored).decode("utf-8", "surrogatepass"),
    ),
    float: ("$float", repr, float),
    bytes: ("$bytes", _base64, _bytes),
    datetime: ("$time", lambda moment: moment.replace(tzinfo=moment.tzinfo or UTC).isoformat(), datetime.fromisoformat),
    Decimal: ("$decimal", str, Decimal),
    Opaque: ("$opaque", lambda opaque: _base64(opaque.field), lambda stored: Opaque(_bytes(stored))),
}
_READ = {name: read for name, _write, read in _TAGS.values()}


def _check_types(routing_key: Any, headers: Any, trusted: Any, properties: Mapping[str, Any]) -> None:
    if not isinstance(routing_key, str) or not isinstance(headers, dict | None) or not isinstance(trusted, bool):
        raise TypeError("routing_key, headers or trusted")
    for name, value in properties.items():
        if value is not None and type(value) is not (int if name == "timestamp" else str):
            raise TypeError(name)


def message_of(routing_key: str | None, headers: Mapping[str, Any], body: bytes | None) -> Message:
    """The message that `pipeline.bury.dead_letter_of` was given, from the stored dead letter. Raises `Unreadable`."""
    try:
        properties = dict(headers["properties"])
        routing_key = headers.get("routing_key", routing_key or "")
        others = {name: properties.pop(name) for name in OTHERS if name in properties}
        _check_types(routing_key, headers["headers"], headers["trusted"], properties)
        return Message(
            routing_key,
            body or b"",
            headers=headers["headers"],
            trusted=headers["trusted"],
            others=others,
            **properties,
        )
    except (KeyError, TypeError, ValueError) as error:
        raise Unreadable(f"the stored dead letter is not a valid message: {error!r:.200}") from None
