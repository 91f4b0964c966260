"""CloudEvents filter dialects (Subscriptions API 1.0): exact, prefix, suffix, all, any, not."""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

Predicate = Callable[[Mapping[str, str]], bool]

MAX_DEPTH = 16

_NAME = re.compile(r"[a-z0-9]{1,64}")
_CONTENT = ("data", "body", "payload", "detail", "metadata")  # as other systems call it in their filters
_NO_DATA = (
    "filters see attributes, not the data. Give the source an extension, as extensions: {amount: /amount}, and filter on that"
)


def compile_filter(expression: Mapping[str, Any] | None) -> Predicate:
    """A predicate over an event's attributes. None matches every event; a condition on an absent attribute is false.

    Raises ValueError, naming the dialect, for an invalid expression.
    """
    return _always if expression is None else _compile(expression, 0)


def names_in(expression: Any, at: Sequence[str | int] = ()) -> Iterator[tuple[tuple[str | int, ...], str]]:
    """The attributes that a filter tests, each with its path in the expression. Skips whatever is not a valid filter."""
    if not isinstance(expression, Mapping) or len(at) > 4 * MAX_DEPTH:
        return
    for dialect, argument in expression.items():
        if dialect in _VALUES and isinstance(argument, Mapping):
            yield from (((*at, dialect, name), name) for name in argument if isinstance(name, str))
        elif dialect == "not":
            yield from names_in(argument, (*at, dialect))
        elif dialect in ("all", "any") and isinstance(argument, list | tuple):
            for index, each in enumerate(argument):
                yield from names_in(each, (*at, dialect, index))


def why_no_name(name: str) -> str | None:
    """Why no event can have an attribute of that name, and what to write instead; None if one can."""
    if _NAME.fullmatch(name):
        return None
    if name.startswith(("data.", "data/", "data[", "/")):
        return f"{name!r:.80} can match nothing: {_NO_DATA}"
    lower = "".join(char for char in name.lower() if _NAME.fullmatch(char))
    instead = f"write {lower}" if lower else "use only those"
    return f"{name!r:.80} can match nothing: names of attributes are lower-case letters and digits; {instead}"


def _always(_attributes: Mapping[str, str]) -> bool:
    return True


def _compile(expression: Any, depth: int) -> Predicate:
    if depth > MAX_DEPTH:
        raise ValueError(f"filters nest more than {MAX_DEPTH} deep")
    if not isinstance(expression, Mapping) or len(expression) != 1:
        raise ValueError("a filter is a mapping with exactly one of: " + ", ".join((*_VALUES, "all", "any", "not")))
    ((dialect, argument),) = expression.items()
    if dialect in _VALUES:
        return _VALUES[dialect](_attributes_of(dialect, argument))
    if dialect in ("all", "any"):
        return _nested(dialect, argument, depth)
    if dialect == "not":
        inner = _compile(argument, depth + 1)
        return lambda attributes: not inner(attributes)
    if dialect in _CONTENT:
        raise ValueError(f"unknown filter dialect {dialect!r}: {_NO_DATA}")
    raise ValueError(f"unknown filter dialect {dialect!r:.80}; known are: " + ", ".join((*_VALUES, "all", "any", "not")))


def _attributes_of(dialect: str, argument: Any) -> tuple[tuple[str, str], ...]:
    if not isinstance(argument, Mapping) or not argument:
        raise ValueError(f"{dialect} takes a mapping of attribute names to values")
    if not all(isinstance(name, str) and isinstance(value, str) and value for name, value in argument.items()):
        raise ValueError(f"{dialect} takes non-empty strings")
    return tuple(argument.items())


def _nested(dialect: str, argument: Any, depth: int) -> Predicate:
    if not isinstance(argument, list | tuple) or not argument:
        raise ValueError(f"{dialect} takes a list of at least one filter")
    inner = tuple(_compile(each, depth + 1) for each in argument)
    combine = all if dialect == "all" else any
    return lambda attributes: combine(predicate(attributes) for predicate in inner)


def _exact(pairs: tuple[tuple[str, str], ...]) -> Predicate:
    return lambda attributes: all(attributes.get(name) == value for name, value in pairs)


def _prefix(pairs: tuple[tuple[str, str], ...]) -> Predicate:
    return lambda attributes: all(attributes.get(name, "").startswith(value) for name, value in pairs)


def _suffix(pairs: tuple[tuple[str, str], ...]) -> Predicate:
    return lambda attributes: all(attributes.get(name, "").endswith(value) for name, value in pairs)


_VALUES: dict[str, Callable[[tuple[tuple[str, str], ...]], Predicate]] = {
    "exact": _exact,
    "prefix": _prefix,
    "suffix": _suffix,
}
