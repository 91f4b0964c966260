"""Which content of a chain is missing without an erasure that lists it, and which is there although one does. Pure."""

from collections.abc import Iterable, Iterator
from typing import Final

from pipeline.ledger.erasures import Span

_MOST: Final = 10_000  # numbers of one chain that are told of each


class Contents:
    """The contents of one chain, in order. Holds spans of numbers, not numbers."""

    def __init__(self) -> None:
        self._without: list[list[int]] = []
        self._with: list[list[int]] = []
        self._listed: list[Span] = []

    def add(self, seq: int, *, present: bool) -> None:
        """The next entry has content, or none."""
        spans = self._with if present else self._without
        if spans and spans[-1][1] == seq - 1:
            spans[-1][1] = seq
        else:
            spans.append([seq, seq])

    def erase(self, spans: Iterable[Span]) -> None:
        """An erasure of the chain lists these numbers, all before its own."""
        self._listed += spans

    def missing(self) -> Iterator[int]:
        """The numbers without content that no erasure lists."""
        listed = _merged(self._listed)
        ends = [-1, *(last for _, last in listed)]
        firsts = [*(first for first, _ in listed), 2**63]
        return _within(_both(self._without, [[end + 1, first - 1] for end, first in zip(ends, firsts, strict=True)]))

    def left(self) -> Iterator[int]:
        """The numbers with content that an erasure lists."""
        return _within(_both(self._with, _merged(self._listed)))


def _merged(spans: Iterable[Span]) -> list[list[int]]:
    merged: list[list[int]] = []
    for first, last in sorted(spans):
        if merged and first <= merged[-1][1] + 1:
            merged[-1][1] = max(merged[-1][1], last)
        else:
            merged.append([first, last])
    return merged


def _both(spans: list[list[int]], others: list[list[int]]) -> Iterator[Span]:
    """What is in some of `spans` and in some of `others`; each of them is in order."""
    at = 0
    for first, last in sorted(spans):
        while at < len(others) and others[at][1] < first:
            at += 1
        here = at
        while here < len(others) and others[here][0] <= last:
            yield max(first, others[here][0]), min(last, others[here][1])
            here += 1


def _within(spans: Iterable[Span]) -> Iterator[int]:
    left = _MOST
    for first, last in spans:
        yield from range(first, min(last + 1, first + left))
        left -= min(last + 1 - first, left)
        if not left:
            return
