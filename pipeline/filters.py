"""CloudEvents filter dialects (Subscriptions API 1.0): exact, prefix, suffix, all, any, not."""

from collections.abc import Callable, Mapping
from typing import Any

Predicate = Callable[[Mapping[str, str]], bool]

MAX_DEPTH = 16


def compile_filter(expression: Mapping[str, Any] | None) -> Predicate:
    """A predicate over an event's attributes; None matches everything, an absent attribute matches nothing.

    Raises ValueError, with the dialect's name, for an expression that is not one of the dialects.
    """
    return _always if expression is None else _compile(expression, 0)


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
    raise ValueError(f"unknown filter dialect {dialect!r}; known are: " + ", ".join((*_VALUES, "all", "any", "not")))


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
