"""The parent's side of the mail parser: which deaths of the child count against a mail, and how fast it closes."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from workers.documents import mail_parser
from workers.documents.mail_parser import MailParser

pytestmark = pytest.mark.usefixtures("traced")

MAIL = b"From: a@x.example\r\nDate: Fri, 17 Jul 2026 02:44:25 +0000\r\nMessage-ID: <1@x.example>\r\n\r\nhello\r\n"


@pytest.fixture
def parser() -> Iterator[MailParser]:
    parser = MailParser(dns=False)
    yield parser
    parser.close()


def test_a_child_that_died_while_idle_does_not_count_against_the_next_mail(parser) -> None:
    parser.read(MAIL)
    child = parser._process.pid
    os.kill(child, signal.SIGKILL)
    os.waitid(os.P_PID, child, os.WEXITED | os.WNOWAIT)  # dead, and not yet reaped

    found = parser.read(MAIL)

    assert ("hello", []) == (found["text"], found["flags"])
    assert child != parser._process.pid


def test_a_child_that_dies_in_the_middle_of_a_mail_counts_against_it(parser, monkeypatch) -> None:
    real, killed = mail_parser._exchanged, []

    def killing(process: Any, request: bytes, raw: bytes) -> dict[str, Any]:
        if not killed:
            killed.append(process.pid)
            process.kill()
        return real(process, request, raw)

    monkeypatch.setattr(mail_parser, "_exchanged", killing)

    assert ["careful"] == parser.read(MAIL)["flags"]


def test_close_does_not_wait_for_a_mail_whose_child_is_just_starting(monkeypatch) -> None:
    """`close` looks for a process to kill before the starting one is known."""
    parser = MailParser(dns=False, life=30.0)
    monkeypatch.setattr(mail_parser, "COMMAND", (sys.executable, "-c", "import time; time.sleep(60)"))
    real, starting, started, raised = subprocess.Popen, threading.Event(), [], []

    def slow(*arguments: Any, **terms: Any) -> Any:
        starting.set()
        while not parser._closed:
            time.sleep(0.01)
        time.sleep(0.5)  # `close` has looked by then; if not, the test passes anyway
        started.append(real(*arguments, **terms))
        return started[0]

    def read() -> None:
        try:
            parser.read(MAIL)
        except OSError as error:
            raised.append(str(error))

    monkeypatch.setattr(subprocess, "Popen", slow)
    reading, closing = threading.Thread(target=read), threading.Thread(target=parser.close)
    reading.start()
    assert starting.wait(10)
    closing.start()
    closing.join(10)
    late = closing.is_alive()
    for each in started:
        each.kill()
    reading.join()
    closing.join()

    assert not late
    assert ["the mail parser is closed"] == raised
