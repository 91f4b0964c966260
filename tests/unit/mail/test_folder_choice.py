"""The choice of folders to listen to."""

from pipeline.store.mail.mailbox_overview import Listened
from workers.mail.idle.folder_choice import FEWER_SECONDS, Choice

LONG, SHORT = Listened(1, "x", ["INBOX", "A", "B", "C"]), Listened(2, "y", ["INBOX"])


def test_the_first_folders_of_each_are_chosen_and_what_is_lacking_takes_no_place() -> None:
    choice = Choice(2)

    assert {(1, "INBOX"): "x", (1, "A"): "x", (2, "INBOX"): "y"} == choice.of([LONG, SHORT], set())
    assert {(1, "INBOX"), (1, "A"), (1, "B"), (2, "INBOX")} == choice.of([LONG, SHORT], {(1, "A")}).keys()


def test_every_mailboxs_first_folder_comes_before_any_second() -> None:
    assert [(1, "INBOX"), (2, "INBOX"), (1, "A")] == list(Choice(4, most=3).of([LONG, SHORT], set()))


def test_a_mailbox_has_fewer_for_a_while_and_never_none() -> None:
    now = [0.0]
    choice = Choice(3, clock=lambda: now[0])
    for asked, given in ((2, 2), (0, 1), (-1, 1), (9, 3)):
        choice.fewer(1, asked)
        assert given == len(choice.of([LONG], set()))
    choice.fewer(1, 1)
    now[0] = FEWER_SECONDS + 1
    assert 3 == len(choice.of([LONG], set()))
