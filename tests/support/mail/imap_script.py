"""An IMAP server that answers as a script says: what a real one does right, done wrong."""

import re
import socket
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

from schemas.mailbox import Mailbox

Said = bytes | Iterator[bytes]  # an iterator's pieces are sent one by one
Answer = bytes | Callable[[bytes], Said]

HANG_UP = b"* BYE broken\r\n"
UNFINISHED = b"* OK %TAG% is not done\r\n"  # no end of the answer follows

WELL: Mapping[bytes, Answer] = {
    rb"CAPABILITY": b"* CAPABILITY IMAP4rev1 AUTH=PLAIN\r\n",
    rb"AUTHENTICATE PLAIN": b"+ \r\n",
    rb"LOGIN": b"",
    rb"EXAMINE": b"* 3 EXISTS\r\n* OK [UIDVALIDITY 7] x\r\n* OK [UIDNEXT 4] x\r\n",
}


def body(uid: int, raw: bytes, sequence: int | None = None) -> bytes:
    return b"* %d FETCH (UID %d BODY[] {%d}\r\n%s)\r\n" % (sequence or uid, uid, len(raw), raw)


def facts(uid: int, size: int, sequence: int | None = None) -> bytes:
    date = b'"17-Jul-2026 02:44:25 +0000"'
    return b"* %d FETCH (UID %d RFC822.SIZE %d INTERNALDATE %s)\r\n" % (sequence or uid, uid, size, date)


def uids(line: bytes) -> list[int]:
    """The UIDs that a FETCH asks for."""
    found: list[int] = []
    for part in re.search(rb"UID FETCH (\S+)", line)[1].split(b","):  # type: ignore[index]
        low, _, high = part.partition(b":")
        found += range(int(low), int(high or low) + 1)
    return found


class Script:
    """Answers by the beginning of a command; the first match counts. A tagged OK follows, unless the answer holds the tag."""

    def __init__(self, answers: Mapping[bytes, Answer]) -> None:
        self.answers = {**answers, **{name: answer for name, answer in WELL.items() if name not in answers}}
        self.asked: list[bytes] = []

    def answer(self, tag: bytes, line: bytes) -> Said:
        self.asked.append(line)
        for name, answer in self.answers.items():
            if re.match(name, line, re.IGNORECASE):
                said = answer(line) if callable(answer) else answer
                return said.replace(b"%TAG%", tag) if isinstance(said, bytes) and b"%TAG%" in said else said
        return b""


@contextmanager
def scripted(answers: Mapping[bytes, Answer]) -> Iterator[tuple[Mailbox, Script]]:
    script = Script(answers)
    with socket.create_server(("127.0.0.1", 0)) as listening:
        thread = threading.Thread(target=_serve, args=(listening, script), daemon=True)
        thread.start()
        port = listening.getsockname()[1]
        try:
            yield Mailbox(1, "acme", "support", "imap", "us", host="127.0.0.1", port=port, tls=False, password="secret"), script
        finally:
            listening.shutdown(socket.SHUT_RDWR)  # closing does not wake the thread, which might accept for the next one then
            thread.join()


def _serve(listening: socket.socket, script: Script) -> None:
    while True:
        try:
            conn, _ = listening.accept()
        except OSError:
            return
        threading.Thread(target=_talk, args=(conn, script), daemon=True).start()


def _talk(conn: socket.socket, script: Script) -> None:
    with conn, conn.makefile("rb") as file:
        try:
            conn.sendall(b"* OK ready\r\n")
            for raw in file:
                tag, _, line = raw.rstrip().partition(b" ")
                said = script.answer(tag, line)
                if not isinstance(said, bytes):
                    for piece in said:
                        conn.sendall(piece)
                    said = b""
                conn.sendall(said)
                if said == HANG_UP:
                    return
                if re.search(rb"(?m)^\+", said) and b"FETCH (UID" not in said:
                    next(file, b"")
                if tag not in said.split():
                    conn.sendall(tag + b" OK done\r\n")
        except OSError:
            return
