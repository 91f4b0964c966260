"""Filters as text: `type:order.* subject:"order 7" since:2h`. Links and fields write the same."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

from schemas.units import seconds

_WORD: Final = re.compile(r'(?:([A-Za-z_]+):)?(?:"((?:[^"\\]|\\.)*)"|(\S+))')
_PLAIN: Final = re.compile(r'[^\s"\\]+')
_ESCAPED: Final = re.compile(r"\\(.)")


@dataclass(frozen=True, slots=True)
class Field:
    """One word of a filter: its name, its title as a field, a hint, and what it may be, if that is a closed set."""

    name: str
    title: str
    hint: str = ""
    options: Sequence[str] = ()
    value: str = ""


def read(text: str, fields: Sequence[Field]) -> tuple[dict[str, str], str | None]:
    """The values by name, and what is wrong with the text, if anything is. No word is ever ignored."""
    found: dict[str, str] = {}
    known = {each.name: each for each in fields}
    for name, value, written in _words(text):
        if not name:
            meant = " or ".join(f"{each.name}:{written}" for each in fields[:3])
            return found, f"{written} alone says not where to look: write {meant}"
        if name not in known:
            return found, f"There is no {name}: to filter by, but {', '.join(known)}"
        if name in found:
            return found, f"{name}: is there twice"
        options = known[name].options
        if options and value not in options:
            return found, f"{name}: is one of {', '.join(options)}, not {value}"
        if name in ("since", "until"):
            try:
                time(value)
            except ValueError as error:
                return found, f"{name}:{value} is no time: {error}"
        found[name] = value
    return found, None


def write(values: Mapping[str, str]) -> str:
    """The text of these values; those that are empty are left out."""
    return " ".join(f"{name}:{_quoted(value)}" for name, value in values.items() if value)


def filled(fields: Sequence[Field], values: Mapping[str, str]) -> list[Field]:
    """The fields with their values."""
    return [Field(each.name, each.title, each.hint, each.options, values.get(each.name, "")) for each in fields]


def time(value: str) -> datetime:
    """A time as RFC 3339, UTC unless it says otherwise, or how long ago. Raises `ValueError`."""
    try:
        moment = datetime.fromisoformat(value)
    except ValueError:
        pass
    else:
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).astimezone(UTC)
    try:
        return datetime.now(UTC) - timedelta(seconds=seconds(value))
    except (ValueError, OverflowError):
        raise ValueError("write 2h for two hours ago, or 2026-01-31T12:00") from None


def _words(text: str) -> Iterator[tuple[str, str, str]]:
    for match in _WORD.finditer(text):
        name, quoted, plain = match.groups()
        value = plain if quoted is None else _ESCAPED.sub(r"\1", quoted)
        yield (name or "").lower(), value, match[0]


def _quoted(value: str) -> str:
    if _PLAIN.fullmatch(value):
        return value
    escaped = value.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'
