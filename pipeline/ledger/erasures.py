"""Reads what an entry of kind "erasure" says (LEDGER §4). Pure and offline."""

from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Final

import orjson

from pipeline.errors import Unreadable
from pipeline.ledger.checks import parse

Span = tuple[int, int]  # the first and the last number

_MEMBERS: Final = {"by", "reason", "seqs", "subject"}


@dataclass(frozen=True, slots=True)
class Listed:
    """What an erasure says: spans of numbers, ascending and apart; by whom, why, and whether the subject's name went."""

    spans: list[Span]
    by: str
    reason: str
    subject: bool


def read_erasure(body: bytes, seq: int) -> Listed:
    """What the body of the erasure entry `seq` says. Raises `Unreadable` for any other body.

    It can list only entries before itself, each once.
    """
    told = parse(body)
    if not isinstance(told, dict) or told.keys() != _MEMBERS or orjson.dumps(told, option=orjson.OPT_SORT_KEYS) != body:
        raise Unreadable("its body is not an erasure in the form of LEDGER §4")
    seqs = told["seqs"]
    texts = isinstance(told["by"], str) and isinstance(told["reason"], str) and isinstance(told["subject"], bool)
    if not texts or not isinstance(seqs, list) or not all(map(_is_span, seqs)):
        raise Unreadable("its body is not an erasure in the form of LEDGER §4")
    spans = [(first, last) for first, last in seqs]
    if any(one[1] >= other[0] for one, other in pairwise(spans)):
        raise Unreadable("the numbers that it lists are not in order, each once")
    if spans and spans[-1][1] >= seq:
        raise Unreadable(f"it lists entry {spans[-1][1]}, which is not before it")
    return Listed(spans, told["by"], told["reason"], told["subject"])


def _is_span(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 2 and all(type(n) is int for n in value) and 0 <= value[0] <= value[1]
