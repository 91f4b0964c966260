"""Every regular expression in the packages, how it is used, and texts on which a bad one takes quadratic time."""

import ast
import importlib
import pkgutil
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from itertools import product
from pathlib import Path
from re import _constants as code  # type: ignore[attr-defined]
from re import _parser as parser  # type: ignore[attr-defined]
from typing import Any, NamedTuple

ROOT = Path(__file__).parents[2]
PACKAGES = ("schemas", "pipeline", "ops", "workers")
METHODS = ("match", "fullmatch", "search", "sub", "subn", "split", "findall", "finditer")
ACTING = ("__main__", ".fork_server", ".fork_server_start")  # ends of the names of modules that act when they are imported
MANY = 30  # repetitions of fewer do not count as loops


class Attack(NamedTuple):
    """A text with a long run of `repeated`."""

    before: str
    repeated: str
    behind: str = ""

    def text(self, size: int) -> str:
        """The text, about `size` characters long."""
        return self.before + self.repeated * max(1, size // len(self.repeated)) + self.behind


@dataclass(frozen=True)
class Expression:
    where: str  # module:name, or module:line
    pattern: "re.Pattern[Any]"
    methods: tuple[str, ...]

    def runs(self) -> "Iterator[tuple[str, Any]]":
        """The methods that the code calls, each as a function of the text."""
        for method in self.methods:
            bound = getattr(self.pattern, method)
            empty = "" if isinstance(self.pattern.pattern, str) else b""
            if method in ("sub", "subn"):
                yield method, lambda text, bound=bound, empty=empty: bound(empty, text)
            elif method == "finditer":
                yield method, lambda text, bound=bound: sum(1 for _ in bound(text))
            else:
                yield method, bound


@cache
def expressions() -> tuple[Expression, ...]:
    """All expressions, also those in tuples and mappings, and literals in calls."""
    found: list[Expression] = []
    for name in _modules():
        module = importlib.import_module(name)
        text = Path(str(module.__file__)).read_text()
        if not re.search(r"\bre\.", text) and not any(True for value in vars(module).values() for _ in _within(value)):
            continue  # as most modules; parsing takes long
        tree = ast.parse(text)
        own = {str(target.id) for node in tree.body for target in _targets(node)}
        patterns = [(key, pattern) for key in sorted(own) for pattern in _within(getattr(module, key, None))]
        for key, pattern in patterns:
            used = _methods(tree, {key}) or _methods(tree, None, own)
            found.append(Expression(f"{name}:{key}", pattern, used or METHODS))
        found += _inline(name, tree)
    return tuple(found)


def _modules() -> Iterator[str]:
    for package in PACKAGES:
        for each in pkgutil.walk_packages([str(ROOT / package)], f"{package}."):
            if ".migrations." not in each.name and not each.name.endswith(ACTING):
                yield each.name


def _targets(node: ast.stmt) -> list[ast.Name]:
    targets = node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AnnAssign) else []
    return [target for target in targets if isinstance(target, ast.Name)]


def _within(value: Any) -> Iterator["re.Pattern[Any]"]:
    if isinstance(value, re.Pattern):
        yield value
    elif isinstance(value, tuple | list | set | frozenset):
        for each in value:
            yield from _within(each)
    elif isinstance(value, Mapping):
        for each in value.values():
            yield from _within(each)


def _methods(tree: ast.Module, names: set[str] | None, but: set[str] = frozenset()) -> tuple[str, ...]:  # type: ignore[assignment]
    """The methods that the module calls on these names or on what they hold; without names, on all names but `but`."""
    called = [
        (node.attr, _named(node.value)) for node in ast.walk(tree) if isinstance(node, ast.Attribute) and node.attr in METHODS
    ]
    return tuple(
        sorted({method for method, on in called if on and (on in names if names is not None else on not in {*but, "re"})})
    )


def _named(value: ast.expr) -> str | None:
    """The name of which something is called: `name` itself, or `name[key]`."""
    held = value.value if isinstance(value, ast.Subscript) else value
    return held.id if isinstance(held, ast.Name) else None


def _inline(name: str, tree: ast.Module) -> Iterator[Expression]:
    for node in ast.walk(tree):
        if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and isinstance(node.func.value, ast.Name)):
            continue
        if node.func.value.id == "re" and node.func.attr in METHODS:
            yield Expression(f"{name}:{node.lineno}", re.compile(_literal(node.args[0])), (node.func.attr,))


def _literal(text: ast.expr) -> str:
    if isinstance(text, ast.JoinedStr):
        return "".join(str(each.value) if isinstance(each, ast.Constant) else "x" for each in text.values)
    assert isinstance(text, ast.Constant), "a pattern that cannot be read here: give it a name"
    return str(text.value)


def attacks(pattern: "re.Pattern[Any]") -> Iterator[Attack]:
    """Texts with a long run that nearly matches."""
    tree = parser.parse(pattern.pattern, pattern.flags & ~re.DEBUG)
    letters = list(dict.fromkeys([*_letters(tree), " ", "a"]))[:9]
    whole = _sample(tree)
    runs = [*letters, *map("".join, product(letters[:5], repeat=2)), whole, whole[:-1]]
    for before, repeated in dict.fromkeys(_loops(tree, "")):
        runs += [f"{before}{repeated}", before]
        for behind in ("", "\x01"):
            yield Attack(before, repeated, behind)
    for run in dict.fromkeys(each for each in runs if each):
        yield Attack("", run)
    for letter in filter(None, letters):  # of which a loop and what follows it may both match every one, before nothing matches
        yield Attack("", letter, "\x01")


def given(pattern: "re.Pattern[Any]", text: str) -> Any:
    """The text in the type that the pattern reads."""
    return text if isinstance(pattern.pattern, str) else text.encode("latin-1", "replace")


def _loops(tree: Any, before: str) -> Iterator[tuple[str, str]]:
    """Each long repetition: a text that leads to it, and the text that it repeats."""
    for op, of in tree:
        if op in (code.MAX_REPEAT, code.MIN_REPEAT, code.POSSESSIVE_REPEAT):
            _, most, inner = of
            if most == code.MAXREPEAT or most > MANY:
                yield from ((before, each) for each in dict.fromkeys([_sample(inner), *_samples(inner)]) if each)
            yield from _loops(inner, before)
        elif op is code.SUBPATTERN:
            yield from _loops(of[-1], before)
        elif op is code.ATOMIC_GROUP:
            yield from _loops(of, before)
        elif op is code.BRANCH:
            for each in of[1]:
                yield from _loops(each, before)
        elif op in (code.ASSERT, code.ASSERT_NOT):
            yield from _loops(of[1], before)
        before += _sample([(op, of)])


def _sample(tree: Any) -> str:
    """A short text that the tree roughly matches."""
    return "".join(_one(op, of) for op, of in tree)


def _samples(tree: Any) -> list[str]:
    return [_sample(each) for op, of in tree if op is code.BRANCH for each in of[1]]


def _one(op: Any, of: Any) -> str:  # noqa: PLR0911 - one line for each part of a pattern
    if op is code.LITERAL:
        return chr(of)
    if op is code.NOT_LITERAL:
        return next(char for char in "a b" if ord(char) != of)
    if op is code.ANY:
        return "a"
    if op is code.IN:
        return _member(of)
    if op is code.BRANCH:
        return _sample(of[1][0])
    if op is code.SUBPATTERN:
        return _sample(of[-1])
    if op is code.ATOMIC_GROUP:
        return _sample(of)
    if op in (code.MAX_REPEAT, code.MIN_REPEAT, code.POSSESSIVE_REPEAT):
        return _sample(of[2]) * max(1, of[0])
    return ""


def _member(of: Any) -> str:
    negated = of[0][0] is code.NEGATE
    expression = "[" + ("^" if negated else "")
    for op, value in of[1 if negated else 0 :]:
        if op is code.LITERAL:
            expression += re.escape(chr(value))
        elif op is code.RANGE:
            expression += f"{re.escape(chr(value[0]))}-{re.escape(chr(value[1]))}"
        elif op is code.CATEGORY:
            expression += _CATEGORIES[value]
    accepts = re.compile(expression + "]")
    return next((char for char in _CANDIDATES if accepts.match(char)), "")


_CANDIDATES = "a0 A.-=;,:<>\"'\\/?@()[]{}+_\n\r\t" + "".join(map(chr, range(1, 0x300)))
_CATEGORIES = {
    code.CATEGORY_DIGIT: r"\d",
    code.CATEGORY_NOT_DIGIT: r"\D",
    code.CATEGORY_SPACE: r"\s",
    code.CATEGORY_NOT_SPACE: r"\S",
    code.CATEGORY_WORD: r"\w",
    code.CATEGORY_NOT_WORD: r"\W",
}


def _letters(tree: Any) -> Iterator[str]:
    """The literal characters in the tree, and one of each class."""
    for op, of in tree:
        if op in (code.LITERAL, code.NOT_LITERAL):
            yield chr(of)
        elif op is code.IN:
            yield _member(of)
            yield from (chr(value) for each, value in of if each is code.LITERAL)
        elif op is code.BRANCH:
            for each in of[1]:
                yield from _letters(each)
        elif op is code.SUBPATTERN:
            yield from _letters(of[-1])
        elif op in (code.MAX_REPEAT, code.MIN_REPEAT, code.POSSESSIVE_REPEAT):
            yield from _letters(of[2])
        elif op is code.ATOMIC_GROUP:
            yield from _letters(of)
        elif op in (code.ASSERT, code.ASSERT_NOT):
            yield from _letters(of[1])
