import time
from datetime import datetime

import orjson
import pytest

from pipeline.mail.document import ParsingTerms, mail_document
from pipeline.mail.event_attributes import MAX_SUBJECT, read_attributes
from pipeline.mail.headers import date
from schemas.mail_document import Flag, view
from support.mail.nasty import NASTY

SECONDS = 10.0  # for the slowest mail on a busy machine; on an idle one it takes a tenth of that
RULES_OF_ALL_KINDS = ("address", "thread", "plus-address", "header:Subject", "header:To", "support")
TERMS = ParsingTerms(trusted=["mx.y.example"], dns=lambda _: None)


def test_there_are_more_than_two_hundred_of_them_and_no_two_are_the_same() -> None:
    assert len(NASTY) >= 200
    assert len(NASTY) == len(set(NASTY.values()))


@pytest.mark.parametrize("name", NASTY)
def test_a_nasty_mail_becomes_a_document_that_any_store_takes_in_time(name: str) -> None:
    began = time.thread_time()
    document = mail_document(NASTY[name], TERMS, time.thread_time)
    took = time.thread_time() - began
    written = orjson.dumps(view(document), option=orjson.OPT_SORT_KEYS)

    assert took < SECONDS
    assert b"\\u0000" not in written
    assert len(written) < 8 * 1024 * 1024
    assert len(NASTY[name]) == document.size
    assert set(document.flags) <= set(Flag.__args__)
    assert "unparsed" not in document.flags
    assert written == orjson.dumps(view(mail_document(NASTY[name], TERMS, time.thread_time)), option=orjson.OPT_SORT_KEYS)


@pytest.mark.parametrize("name", NASTY)
def test_a_nasty_mail_has_a_subject_by_every_rule_and_a_date_or_none(name: str) -> None:
    raw = NASTY[name]
    subjects = [read_attributes(raw, rule, "support@y.example", "box").subject for rule in RULES_OF_ALL_KINDS]
    moment = date(raw)

    assert [] == [
        each for each in subjects if not (0 < len(each) <= MAX_SUBJECT and each.isprintable() and each.strip() == each)
    ]
    assert moment is None or (isinstance(moment, datetime) and moment.tzinfo is not None)
