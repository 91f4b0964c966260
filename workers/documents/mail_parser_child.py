"""The child process that parses mails, `python -m workers.documents.mail_parser_child`: requests on stdin, answers on stdout.

It may be killed at any time, by its parent or by itself, and nothing is lost: that is what it is for. It has no secrets, no
connection to Postgres or the broker, and a limit on its memory.
"""

import logging
import os
import resource
import signal
import sys
import time
from typing import BinaryIO, Final

import orjson

from pipeline.mail.document import ParsingTerms, mail_document
from schemas.mail_document import view
from workers.documents.dns import KeyLookup
from workers.documents.mail_parser_frames import ANSWER, REQUEST

MEMORY: Final = 1536 * 1024 * 1024  # bytes of address space
NICENESS: Final = 5


def main() -> None:
    """Answer requests until stdin ends."""
    os.nice(NICENESS)
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    logging.disable(logging.CRITICAL)  # the libraries log what is flagged anyway
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # output of a library goes to stderr, not between the answers
    lookup = KeyLookup()
    while (asked := _request(sys.stdin.buffer)) is not None:
        answer = _answer(*asked, lookup)
        answers.write(ANSWER.pack(len(answer)) + answer)
        answers.flush()


def _request(stream: BinaryIO) -> tuple[dict[str, object], bytes] | None:
    head = stream.read(REQUEST.size)
    if len(head) < REQUEST.size:
        return None
    terms, size = REQUEST.unpack(head)
    asked, raw = stream.read(terms), stream.read(size)
    return None if len(raw) < size else (orjson.loads(asked), raw)


def _answer(asked: dict[str, object], raw: bytes, lookup: KeyLookup) -> bytes:
    seconds, trusted, life = asked["seconds"], asked["trusted"], asked["life"]
    assert isinstance(seconds, float)
    assert isinstance(life, float)
    assert isinstance(trusted, list)
    lookup.begin()
    # A hard limit, unlike the check between two parts: the default action of SIGALRM ends the process.
    signal.setitimer(signal.ITIMER_REAL, life)
    try:
        terms = ParsingTerms(trusted, lookup if asked["dns"] else None, seconds, careful=bool(asked["careful"]))
        return orjson.dumps(view(mail_document(raw, terms, time.monotonic)))
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)


if __name__ == "__main__":
    main()
