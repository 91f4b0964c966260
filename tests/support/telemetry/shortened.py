"""The alert rules in quick motion: the same rules, with every time in them divided by one factor."""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

import promql_parser as promql
from ruamel.yaml import YAML

Json = dict[str, Any]

_COMPARISONS: Final = frozenset({"==", "!=", ">", "<", ">=", "<="})
_ARITHMETIC: Final = frozenset({"+", "-"})
_TIMES: Final = frozenset({"time", "timestamp"})


@dataclass(frozen=True)
class Motion:
    """How much quicker. No limit of an age becomes less than `least` seconds: the processes ask their servers no more often."""

    factor: float
    least: float = 0.0

    def files(self, rules: Iterable[Path], folder: Path) -> list[Path]:
        """Write each file of rules, shortened, into the folder; returns the new files."""
        made = []
        for path in rules:
            made.append(folder / path.name)
            groups = YAML(typ="safe").load(path)["groups"]
            made[-1].write_text(json.dumps({"groups": [self.group(each) for each in groups]}))  # JSON is YAML
        return made

    def group(self, group: Json) -> Json:
        """A group of rules, shortened."""
        times = {"interval": self._written(group["interval"])} if "interval" in group else {}
        return group | times | {"rules": [self.rule(each) for each in group["rules"]]}

    def rule(self, rule: Json) -> Json:
        """A rule, shortened."""
        times = {name: self._written(rule[name]) for name in ("for", "keep_firing_for") if name in rule}
        return rule | times | {"expr": self.expression(rule["expr"])}

    def expression(self, expr: str) -> str:
        """An expression whose ranges, and whose limits of what is in seconds, are shortened."""
        return self._text(promql.parse(expr))

    def _text(self, node: promql.Expr) -> str:  # noqa: PLR0911 - one line for each kind of node
        match node:
            case promql.NumberLiteral():
                return repr(node.val)
            case promql.StringLiteral():
                return json.dumps(node.val)
            case promql.ParenExpr():
                return f"({self._text(node.expr)})"
            case promql.UnaryExpr():
                return f"-{self._text(node.expr)}"
            case promql.VectorSelector(offset=None, at=None):
                return node.prettify()
            case promql.MatrixSelector():
                return f"{self._text(node.vector_selector)}[{self._duration(node.range)}]"
            case promql.Call():
                return f"{node.func.name}({', '.join(self._arguments(node))})"
            case promql.AggregateExpr():
                inner = ", ".join(self._text(each) for each in (node.param, node.expr) if each is not None)
                return f"{node.op} {node.modifier or ''} ({inner})"
            case promql.BinaryExpr():
                lhs, rhs = self._sides(node)
                return f"{lhs} {node.op} {node.modifier or ''} {rhs}"
        raise NotImplementedError(f"{type(node).__name__} in {node}")

    def _arguments(self, call: promql.Call) -> list[str]:
        written = [self._text(each) for each in call.args]
        if call.func.name == "predict_linear":
            written[1] = self._limit(call.args[1])
        return written

    def _sides(self, node: promql.BinaryExpr) -> tuple[str, str]:
        limited = str(node.op) in _COMPARISONS and _in_seconds(node.lhs) and _is_number(node.rhs)
        return self._text(node.lhs), self._limit(node.rhs) if limited else self._text(node.rhs)

    def _limit(self, node: promql.Expr) -> str:
        """A number of seconds, shortened."""
        given = _number(node)
        shorter = max(abs(given) / self.factor, min(self.least, abs(given)))
        return repr(shorter if given >= 0 else -shorter)

    def _duration(self, given: timedelta) -> str:
        return f"{round(given.total_seconds() * 1000 / self.factor)}ms"

    def _written(self, duration: str) -> str:
        """A duration of the YAML. Prometheus' own parser of durations is not at hand outside of an expression."""
        parsed = promql.parse(f"x[{duration}]")
        assert isinstance(parsed, promql.MatrixSelector)
        return self._duration(parsed.range)


def _in_seconds(node: promql.Expr) -> bool:
    """Whether what is compared is an age or a time, by the units that the names of metrics end in."""
    match node:
        case promql.VectorSelector():
            return (node.name or "").endswith("_seconds")
        case promql.AggregateExpr() | promql.ParenExpr() | promql.UnaryExpr():
            return _in_seconds(node.expr)
        case promql.Call() if node.func.name == "histogram_quantile":
            return "_seconds_bucket" in str(node)
        case promql.Call():
            return node.func.name in _TIMES
        case promql.BinaryExpr():
            return str(node.op) in _ARITHMETIC and _in_seconds(node.lhs) and _in_seconds(node.rhs)
    return False


def _is_number(node: promql.Expr) -> bool:
    match node:
        case promql.NumberLiteral():
            return True
        case promql.ParenExpr() | promql.UnaryExpr():
            return _is_number(node.expr)
        case promql.BinaryExpr():
            return _is_number(node.lhs) and _is_number(node.rhs)
    return False


def _number(node: promql.Expr) -> float:
    """The value of an expression of numbers, such as `26 * 3600`."""
    match node:
        case promql.NumberLiteral():
            return node.val
        case promql.ParenExpr():
            return _number(node.expr)
        case promql.UnaryExpr():
            return -_number(node.expr)
        case promql.BinaryExpr() if str(node.op) == "*":
            return _number(node.lhs) * _number(node.rhs)
    raise NotImplementedError(str(node))
