"""A YAML document as plain values, each with its line, within bounds.

It is built from the parser's events, so that what is too deep or too large is refused before it takes memory. Values that
an alias (`*name`) or a merge key (`<<`) repeats count each time: a few lines of aliases can stand for millions of values.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError
from ruamel.yaml.events import AliasEvent, MappingEndEvent, MappingStartEvent, ScalarEvent, SequenceEndEvent, StreamEndEvent
from ruamel.yaml.nodes import ScalarNode

MAX_DEPTH: Final = 50
MAX_VALUES: Final = 500_000

_TAG: Final = "tag:yaml.org,2002:"
_TEXT: Final = _TAG + "str"
_MERGE: Final = _TAG + "merge"
_COLLECTIONS: Final = (None, "!", _TAG + "map", _TAG + "seq")
_OTHERS: Final = tuple(_TAG + name for name in ("bool", "int", "float", "null", "timestamp"))


class Unusable(Exception):
    """The document is YAML, but not usable as a configuration; `line` counts from 1."""

    def __init__(self, line: int, what: str) -> None:
        super().__init__(what)
        self.line = line
        self.what = what


@dataclass(frozen=True, slots=True)
class Node:
    """A plain value, the number of values in it (with itself), and its parts by key or index, each with its line, from 0."""

    value: Any
    count: int = 1
    parts: "Mapping[Any, tuple[int, Node]]" = field(default_factory=dict)


class Tree:
    """The document in a text."""

    def __init__(self, text: str) -> None:
        self._yaml = YAML(typ="safe", pure=True)
        self._events: Iterator[Any] = self._yaml.parse(text)
        self._anchors: dict[str, Node | None] = {}  # None until the node is complete
        self._count = 0

    def read(self) -> Node:
        """The root, a null if there is no document. Raises `Unusable`, or the parser's `YAMLError`."""
        try:
            next(self._events)  # of the stream
            if isinstance(next(self._events), StreamEndEvent):
                return Node(None)
            root = self._node(next(self._events), 0)
            next(self._events)  # the end of the document
            more = next(self._events)
        except (AssertionError, KeyError):  # the parser's, which knows versions 1.1 and 1.2
            raise Unusable(1, "the version in its %YAML line is not known: remove that line") from None
        if not isinstance(more, StreamEndEvent):
            raise Unusable(more.start_mark.line + 1, "write one document only, without a --- in it")
        return root

    def _node(self, event: Any, depth: int) -> Node:
        line = event.start_mark.line + 1
        if isinstance(event, AliasEvent):
            return self._repeated(event.anchor, line)
        if depth >= MAX_DEPTH:
            raise Unusable(line, f"it nests more than {MAX_DEPTH} deep")
        self._add(1, line)
        if event.anchor is not None:
            self._anchors[event.anchor] = None
        node = self._of(event, depth, line)
        if event.anchor is not None:
            self._anchors[event.anchor] = node
        return node

    def _of(self, event: Any, depth: int, line: int) -> Node:
        if isinstance(event, ScalarEvent):
            return Node(self._scalar(event, line))
        if event.tag not in _COLLECTIONS:
            raise Unusable(line, _no_tag(event.tag))
        return self._mapping(depth) if isinstance(event, MappingStartEvent) else self._sequence(depth)

    def _repeated(self, anchor: str, line: int) -> Node:
        if anchor not in self._anchors:
            raise Unusable(line, f"put a value that begins with * in quotes (found undefined alias {anchor!r:.80})")
        node = self._anchors[anchor]
        if node is None:
            raise Unusable(line, f"*{anchor:.80} stands within the value that it repeats")
        self._add(node.count, line)
        return node

    def _add(self, count: int, line: int) -> None:
        self._count += count
        if self._count > MAX_VALUES:
            raise Unusable(line, f"it holds more than {MAX_VALUES} values, with those that aliases and merge keys repeat")

    def _sequence(self, depth: int) -> Node:
        parts: dict[int, tuple[int, Node]] = {}
        while not isinstance(event := next(self._events), SequenceEndEvent):
            parts[len(parts)] = event.start_mark.line, self._node(event, depth + 1)
        return _collection([part.value for _, part in parts.values()], parts)

    def _mapping(self, depth: int) -> Node:
        own: dict[Any, tuple[int, Node]] = {}
        merged: dict[Any, tuple[int, Node]] = {}
        while not isinstance(event := next(self._events), MappingEndEvent):
            at = event.start_mark.line
            merges = isinstance(event, ScalarEvent) and event.value == "<<" and self._tag(event) == _MERGE
            key = None if merges else self._key(event, depth + 1)
            value = self._node(next(self._events), depth + 1)
            if merges:
                merged |= {name: (at, part) for name, part in _brought(value, at) if name not in merged}
            elif key in own:
                raise Unusable(at + 1, f'write each key of a mapping once (found duplicate key "{key!s:.80}")')
            else:
                own[key] = at, value
        parts = merged | own
        return _collection({key: part.value for key, (_, part) in parts.items()}, parts)

    def _key(self, event: Any, depth: int) -> Any:
        key = self._node(event, depth).value
        if isinstance(key, dict | list):
            raise Unusable(event.start_mark.line + 1, "the key of a mapping must be text, not a list or a mapping")
        return key

    def _tag(self, event: Any) -> str:
        if event.tag is not None and event.tag != "!":
            return str(event.tag)
        return str(self._yaml.resolver.resolve(ScalarNode, event.value, event.implicit)) if event.tag is None else _TEXT

    def _scalar(self, event: Any, line: int) -> Any:
        tag, text = self._tag(event), event.value
        if tag not in _OTHERS:
            if event.tag is not None and tag != _TEXT:
                raise Unusable(line, _no_tag(tag))
            return _storable(text, line)
        try:
            return self._yaml.constructor.yaml_constructors[tag](self._yaml.constructor, ScalarNode(tag, text))
        except (ValueError, LookupError, TypeError, YAMLError):
            raise Unusable(line, f"put this value in quotes: it is not a {tag.removeprefix(_TAG)}") from None


def _collection(value: Any, parts: Mapping[Any, tuple[int, Node]]) -> Node:
    return Node(value, 1 + sum(part.count for _, part in parts.values()), parts)


def _brought(node: Node, line: int) -> Iterator[tuple[Any, Node]]:
    """The members that a merge key brings in: those of a mapping, or of several, of which the first wins."""
    mappings = [part for _, part in node.parts.values()] if isinstance(node.value, list) else [node]
    for each in mappings:
        if not isinstance(each.value, dict):
            raise Unusable(line + 1, "<< takes a mapping, as <<: *name, or a list of them")
        yield from ((name, part) for name, (_, part) in each.parts.items())


def _storable(text: str, line: int) -> str:
    if "\x00" in text:
        raise Unusable(line, "NUL cannot be stored in text")
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError:
            raise Unusable(line, "a lone surrogate is not text") from None
    return text


def _no_tag(tag: str) -> str:
    shown = tag.removeprefix(_TAG)
    return f"remove the tag {'!!' * (shown != tag)}{shown:.80}: it has no meaning here; a secret can be env:NAME or file:PATH"
