"""Address lists (RFC 5322 §3.4, §4.4), and the malformed ones that occur in practice, parsed in linear time."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final

DEEP: Final = 20  # nested comments; a list that nests deeper is flagged as odd

_SPACE: Final = re.compile(r"[\s\x00]+")
_QUOTED: Final = re.compile(r'"((?:[^"\\]++|\\.)*+)"', re.DOTALL)
_ENCODED: Final = re.compile(r'=\?[^?\s]{1,60}\?[bBqQ]\?[^?\r\n<>"]*+\?=')
_ANGLE: Final = re.compile(r'<((?:"(?:[^"\\]++|\\.)*+"|[^<>"]++)*+)>', re.DOTALL)
_OPEN_ANGLE: Final = re.compile(r"<([^<>,;\s]*+)")
_WORD: Final = re.compile(r'[^\s\x00"(<>,;:=]++')
_PAREN: Final = re.compile(r"\\.|[()]", re.DOTALL)
_ESCAPE: Final = re.compile(r"\\(.)", re.DOTALL)
_AROUND: Final = re.compile(r"(?:(?<![\s\x00])[\s\x00]++)?([@.])[\s\x00]*+")  # the look-behind keeps runs of spaces linear


@dataclass(frozen=True, slots=True)
class Found:
    """A mailbox from a header, its encoded words not decoded. `odd`: it violates RFC 5322, and this is a guess."""

    name: str
    address: str
    odd: bool = False


@dataclass(frozen=True, slots=True)
class _Piece:
    text: str
    apart: bool  # white space or a comment separates it from the piece before
    plain: bool = True  # neither quoted nor an encoded word


@dataclass(slots=True)
class _Mailbox:
    """The text between two separators."""

    pieces: list[_Piece] = field(default_factory=list)
    angle: str | None = None  # the text in angle brackets
    comments: list[str] = field(default_factory=list)
    odd: bool = False


def read_list(text: str) -> Iterator[Found]:
    """The mailboxes in a header's value; groups are flattened.

    The text in angle brackets is the address and all other text is the name, whatever it looks like. In a malformed value the
    address is the one that OpenDMARC checks: the first in brackets, or, without brackets, the last. Encoded words are decoded
    only after the list is split (RFC 2047 §6.2), so they cannot contribute an address.
    """
    return _List(text).mailboxes()


class _List:
    """The value of one header, and the read position in it."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0
        self._unclosed: set[str] = set()  # `"` or `(` once found without an end: later ones have none either
        self._in_group = False

    def mailboxes(self) -> Iterator[Found]:
        current, apart = _Mailbox(), False
        while self._at < len(self._text):
            mark = self._text[self._at]
            if mark == ":":  # the text before it is the name of a group
                odd = self._in_group or current.angle is not None or any("@" in each.text for each in current.pieces)
                self._at += 1
                self._in_group, current = True, _Mailbox(odd=odd or current.odd)
            elif mark in ",;":
                self._at += 1
                current.odd |= mark == ";" and not self._in_group
                self._in_group &= mark == ","
                yield from _resolved(current)
                current = _Mailbox()
            elif self._match(_SPACE):
                apart = True
                continue
            else:
                apart = self._read(mark, current, apart=apart)
        current.odd |= self._in_group
        yield from _resolved(current)

    def _read(self, mark: str, into: _Mailbox, *, apart: bool) -> bool:
        """Take the next piece, which begins with `mark`; returns `apart` for the piece after it."""
        if mark == '"' and mark not in self._unclosed:
            if found := self._match(_QUOTED):
                into.pieces.append(_Piece(found[0], apart, plain=False))
                return False
            self._unclosed.add(mark)
        elif mark == "(" and mark not in self._unclosed:
            comment = self._comment(into)
            if comment is not None:
                into.comments.append(comment)
                return True
            self._unclosed.add(mark)
        elif mark == "=" and (found := self._match(_ENCODED)):
            into.pieces.append(_Piece(found[0], apart, plain=False))
            return False
        elif mark == "<":
            self._angle(into)
            return True
        word = self._match(_WORD)
        if word is None:
            self._at += 1
            into.odd |= mark != "="
        if mark != ">":
            into.odd |= into.angle is not None
            into.pieces.append(_Piece(word[0] if word else mark, apart))
        return False

    def _angle(self, into: _Mailbox) -> None:
        found = self._match(_ANGLE)
        if found is None:
            into.odd = True
            found = self._match(_OPEN_ANGLE)
        if found is not None and (found[1] or found[0] == "<>"):
            if into.angle:
                into.odd = True
                into.pieces.append(_Piece(found[0], apart=True))
            else:
                into.angle = found[1]

    def _comment(self, of: _Mailbox) -> str | None:
        """The text of a comment, including nested ones; None if the comment has no end."""
        depth = 0
        for each in _PAREN.finditer(self._text, self._at):
            depth += {"(": 1, ")": -1}.get(each[0], 0)
            of.odd |= depth > DEEP
            if depth == 0:
                inner = self._text[self._at + 1 : each.start()]
                self._at = each.end()
                return _ESCAPE.sub(r"\1", inner)
        return None

    def _match(self, pattern: re.Pattern[str]) -> re.Match[str] | None:
        found = pattern.match(self._text, self._at)
        if found:
            self._at = found.end()
        return found


def _resolved(mailbox: _Mailbox) -> Iterator[Found]:
    """The mailbox that is meant; nothing if there is no text between two separators."""
    if mailbox.angle is not None:
        odd = mailbox.odd or any(each.plain and "@" in each.text for each in mailbox.pieces)
        odd |= "," in mailbox.angle and not mailbox.angle.startswith(("@", '"'))
        name = _as_name(mailbox.pieces) or " ".join(mailbox.comments)
        yield Found(name, _without_route(mailbox.angle), odd)
    elif mailbox.pieces or mailbox.comments:
        yield _without_angle(mailbox)


def _without_angle(mailbox: _Mailbox) -> Found:
    words = _words(mailbox.pieces)
    at = next((n for n in reversed(range(len(words))) if any(each.plain and "@" in each.text for each in words[n])), None)
    if at is None and len(words) == 1 and (words[0][0].plain or "@" in _as_name(words[0])):
        at = 0  # a local user name, or an address in quotes
    comments = " ".join(mailbox.comments)
    if at is None:
        return Found(_as_name(mailbox.pieces) or comments, "", odd=True)
    quoted = len(words[at]) == 1 and not words[at][0].plain
    address = _as_name(words[at]) if quoted else _without_route("".join(each.text for each in words[at]))
    rest = [each for n, word in enumerate(words) for each in word if n != at]
    return Found(_as_name(rest) or comments, address, mailbox.odd or bool(rest) or quoted)


def _words(pieces: Sequence[_Piece]) -> list[list[_Piece]]:
    """The pieces grouped into words; `a @ b.example` is one word."""
    words: list[list[_Piece]] = []
    for each in pieces:
        joined = words and (not each.apart or each.text.startswith("@") or words[-1][-1].text.endswith("@"))
        if joined and (each.plain or words[-1][-1].plain):
            words[-1].append(each)
        else:
            words.append([each])
    return words


def _as_name(pieces: Sequence[_Piece]) -> str:
    """The pieces as a name, without quotes."""
    out: list[str] = []
    for each in pieces:
        quoted = not each.plain and each.text.startswith('"')
        out.append(" " if each.apart else "")
        out.append(_ESCAPE.sub(r"\1", each.text[1:-1]) if quoted else each.text)
    return "".join(out).strip()


def _without_route(address: str) -> str:
    """An address without white space around `@` and `.` and without its route (RFC 5322 §4.4)."""
    if '"' not in address:
        local, at, domain = _AROUND.sub(r"\1", address).rpartition("@")
        address = local[max(local.rfind(","), local.rfind(":")) + 1 :] + at + domain
    return address.strip(" \t\r\n\0")
