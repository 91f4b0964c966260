"""YAML with line numbers, and with errors in plain words."""

from collections.abc import Sequence
from typing import Any, Final

from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.reader import ReaderError

from ops.config.yaml_tree import Node, Tree, Unusable

Location = Sequence[str | int]


class Document:
    """A YAML document that is a mapping: `content` in plain values, or `error` as (line, where, what)."""

    def __init__(self, text: str) -> None:
        self.content: dict[str, Any] = {}
        self.error: tuple[int, str, str] | None = None
        self._root = Node(None)
        try:
            self._root = Tree(text).read()
        except Unusable as error:
            self.error = error.line, "", f"is not usable YAML: {error.what}"
        except YAMLError as error:
            self.error = _syntax(error, text)
        else:
            if isinstance(self._root.value, dict) and self._root.value:
                self.content = self._root.value
            else:
                self.error = (1, "", "must be a mapping with tenants, sources and endpoints")

    def line(self, location: Location) -> int:
        """The line, from 1, of `location`, or of its longest part that exists."""
        node, line = self._root, 0
        for step in location:
            if step not in node.parts:
                break
            line, node = node.parts[step]
        return line + 1


def _syntax(error: YAMLError, text: str) -> tuple[int, str, str]:
    if not isinstance(error, MarkedYAMLError):
        line = text.count("\n", 0, error.position) + 1 if isinstance(error, ReaderError) else 1
        return line, "", _of_characters(error)
    problem = (error.problem or error.context or "cannot be read").splitlines()[0]
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
    ("chomping or indentation", "", "put a value that begins with | or > in quotes, or its text in the lines below", "ends"),
)
