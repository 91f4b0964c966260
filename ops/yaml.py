"""YAML with line numbers."""

from collections.abc import Mapping, Sequence
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap, CommentedSeq
from ruamel.yaml.error import MarkedYAMLError, YAMLError

Location = Sequence[str | int]

_MAX_DEPTH = 50


class Document:
    """A YAML document that is a mapping: `content` in plain values, or `error` as (line, where, what)."""

    def __init__(self, text: str) -> None:
        self.content: dict[str, Any] = {}
        self.error: tuple[int, str, str] | None = None
        self._tree: Any = None
        try:
            self._tree = YAML(typ="rt", pure=True).load(text)
            content = _plain(self._tree, _MAX_DEPTH)
        except YAMLError as error:
            self.error = _syntax(error)
            return
        except (ValueError, RecursionError) as error:
            self.error = (1, "", f"is not usable YAML: {error}")
            return
        if isinstance(content, dict) and content:
            self.content = content
        else:
            self.error = (1, "", "must be a mapping with tenants, sources and endpoints")

    def line(self, location: Location) -> int:
        """The line, from 1, of what `location` leads to, or of the last step that exists on the way."""
        node, line = self._tree, 1
        for step in location:
            found = _line(node, step)
            if found is None:
                break
            line, node = found + 1, node[step]
        return line


def _line(node: Any, step: str | int) -> int | None:
    if isinstance(node, CommentedMap) and step in node:
        # What a merge key (<<) brought in has no line here; the mapping itself has.
        return int((node.lc.data or {}).get(step, (node.lc.line,))[0])
    if isinstance(node, CommentedSeq) and isinstance(step, int) and step < len(node):
        return int((node.lc.data or {}).get(step, (node.lc.line,))[0])
    return None


def _plain(node: Any, depth: int) -> Any:
    if depth == 0:
        raise ValueError(f"it nests more than {_MAX_DEPTH} deep")
    if isinstance(node, Mapping):
        return {_scalar(key): _plain(value, depth - 1) for key, value in node.items()}
    if isinstance(node, list):
        return [_plain(each, depth - 1) for each in node]
    if isinstance(node, str) and ("\x00" in node or not node.isascii()):
        _check_storable(node)
    return _scalar(node)


def _check_storable(text: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ValueError("a lone surrogate is not text") from None
    if "\x00" in text:
        raise ValueError("NUL cannot be stored in text")


def _scalar(value: Any) -> Any:
    """The value without what the parser attached to it: how it was written."""
    for kind in (bool, str, int, float):
        if isinstance(value, kind):
            return kind(value)
    return value


def _syntax(error: YAMLError) -> tuple[int, str, str]:
    if not isinstance(error, MarkedYAMLError):
        return 1, "", f"is not YAML: {str(error).splitlines()[0]}"
    mark = error.problem_mark or error.context_mark
    # A duplicate key's message shows both values, and either may be a secret.
    problem = (error.problem or error.context or "cannot be read").splitlines()[0].partition(" with value ")[0]
    return (mark.line + 1 if mark else 1), "", f"is not YAML: {problem}"
