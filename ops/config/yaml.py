"""YAML with line numbers."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

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
        """The line, from 1, of `location`, or of its longest part that exists."""
        node, line = self._tree, 1
        for step in location:
            found = _line(node, step)
            if found is None:
                break
            line, node = found + 1, node[step]
        return line


def _line(node: Any, step: str | int) -> int | None:
    if isinstance(node, CommentedMap) and step in node:
        # A key that a merge key (<<) brought in has no line here; use the line of the mapping.
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
    """The value as a plain type: the parser's types also carry how it was written."""
    for kind in (bool, str, int, float):
        if isinstance(value, kind):
            return kind(value)
    return value


def _syntax(error: YAMLError) -> tuple[int, str, str]:
    if not isinstance(error, MarkedYAMLError):
        return 1, "", _of_characters(error)
    # A duplicate key's message shows both values, and either may be a secret.
    problem = (error.problem or error.context or "cannot be read").splitlines()[0].partition(" with value ")[0]
    for problem_part, context, advice, where in _ADVICE:
        if problem_part in problem and context in (error.context or ""):
            mark = (error.context_mark if where == "begins" else error.problem_mark) or error.problem_mark or error.context_mark
            return _number(mark), "", f"is not YAML: {advice} ({problem})"
    return _number(error.problem_mark or error.context_mark), "", f"is not YAML: {problem}"


def _number(mark: Any) -> int:
    return mark.line + 1 if mark else 1


def _of_characters(error: YAMLError) -> str:
    """The error for a character that YAML forbids."""
    return f"is not YAML: {str(error).splitlines()[0]}: remove it, or write it as an escape in double quotes"


#: The parser's problem and its context; what to do about it; the line to report: where the context begins, or where it ends.
_ADVICE: Final = (
    ("found character '\\t'", "", "indent with spaces, not with a tab", "ends"),
    ("that cannot start any token", "", "put the value in quotes, because it begins with a special character", "ends"),
    ("found undefined alias", "", "put a value that begins with * in quotes", "ends"),
    ("expected alphabetic or numeric character", "", "put a value that begins with * or & in quotes", "ends"),
    ("found unknown escape character", "", "write \\\\ for a backslash in double quotes, or use single quotes", "ends"),
    ("found unexpected end of stream", "quoted", "the quote that is opened in this line is never closed", "begins"),
    ("expected ',' or ']'", "", "the list that is opened with [ in this line lacks a comma or its ]", "begins"),
    ("expected ',' or '}'", "", "the mapping that is opened with { in this line lacks a comma or its }", "begins"),
    (
        "but found '<scalar>'",
        "",
        "something stands behind a closing quote: put quotes around the whole, and double those inside",
        "ends",
    ),
    (
        "expected <block end>",
        "",
        "indent this line as its neighbours are: what belongs together begins in the same column",
        "ends",
    ),
    (
        "expected the node content",
        "",
        "a bracket is closed here that was not opened, or something before it is missing",
        "ends",
    ),
    (
        "mapping values are not allowed here",
        "",
        "put a value with a colon in quotes, and indent keys of one mapping alike",
        "ends",
    ),
    ("could not find expected ':'", "", "put a colon and a space behind the key", "begins"),
    ("found another document", "", "write one document only, without a --- in it", "ends"),
    ("found duplicate key", "", "write each key of a mapping once", "ends"),
    ("chomping or indentation", "", "put a value that begins with | or > in quotes, or its text in the lines below", "ends"),
)
