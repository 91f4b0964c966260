from datetime import UTC, datetime, timedelta
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from markupsafe import Markup

from workers.console.pages import every_page
from workers.console.rendering.figures_in_words import NOTHING, browser, counted, many, moment, number, span
from workers.console.rendering.filter_words import Field, filled, read, time, write
from workers.console.rendering.page_addresses import at, local
from workers.console.rendering.plots import chart, phases, sparkline, tries
from workers.console.rendering.visible_text import exact, shown, visible

FIELDS = (
    Field("type", "Type"),
    Field("subject", "Subject"),
    Field("state", "State", options=("dead", "paused")),
    Field("since", ""),
)
TEXTS = st.text(st.characters(exclude_categories=["Cs"]), min_size=1)


@given(type=TEXTS, subject=TEXTS)
def test_a_filter_reads_what_it_wrote(type: str, subject: str) -> None:
    assert ({"type": type, "subject": subject}, None) == read(write({"type": type, "subject": subject}), FIELDS)


@given(st.text())
def test_any_text_is_a_filter_or_an_error_which_says_something(text: str) -> None:
    values, error = read(text, FIELDS)

    assert error or set(values) <= {"type", "subject", "state", "since"}


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("order-7", "order-7 alone says not where to look: write type:order-7 or subject:order-7"),
        ("colour:red", "There is no colour: to filter by, but type, subject, state, since"),
        ("type:a type:b", "type: is there twice"),
        ("state:gone", "state: is one of dead, paused, not gone"),
        ("since:yesterday", "since:yesterday is no time: write 2h for two hours ago, or 2026-01-31T12:00"),
        ("since:99999999d", "since:99999999d is no time: write 2h for two hours ago, or 2026-01-31T12:00"),
    ],
)
def test_no_word_of_a_filter_is_ignored(text: str, says: str) -> None:
    error = read(text, FIELDS)[1]

    assert error is not None
    assert error.startswith(says)


def test_fields_show_the_words_of_a_filter() -> None:
    assert ["order.*", "", "", ""] == [each.value for each in filled(FIELDS, {"type": "order.*"})]


def test_a_time_is_utc_or_how_long_ago() -> None:
    assert datetime(2026, 1, 31, 12, tzinfo=UTC) == time("2026-01-31T12:00") == time("2026-01-31T13:00+01:00")
    assert timedelta(0) <= datetime.now(UTC) - timedelta(hours=2) - time("2h") + timedelta(seconds=1) < timedelta(minutes=1)


@pytest.mark.parametrize(
    ("hidden", "said"),
    [
        ("exe\u202egpj", "exe⟨U+202E⟩gpj"),
        ("a\u200bb\ufeff", "a⟨U+200B⟩b⟨U+FEFF⟩"),
        ("red\x1b[31m", "red␛[31m"),
        ("\x00\r\x7f", "␀␍⟨U+007F⟩"),
        ("\U000e0041", "⟨U+E0041⟩"),
        ("\ud800", "⟨U+D800⟩"),
        ("line\n\ttab é 漢 🙂", "line\n\ttab é 漢 🙂"),
    ],
)
def test_what_a_text_hides_is_shown(hidden: str, said: str) -> None:
    assert said == visible(hidden)


def test_a_field_that_is_sent_back_keeps_the_text() -> None:
    assert ("<b>&\u202e", "", Markup("<b>")) == (exact("<b>&\u202e").unescape(), shown(None), shown(Markup("<b>")))


@given(st.text(), st.text())
def test_an_address_is_a_path_of_this_console(tenant: str, name: str) -> None:
    address = at("acme", "endpoints", name, q=tenant)

    assert address.startswith("/t/acme/endpoints/")
    assert address == local(address)
    assert "/" not in address.removeprefix("/t/acme/endpoints/").partition("?")[0]


@pytest.mark.parametrize("elsewhere", ["//evil.example", "/\\evil.example", "https://evil.example", "", "data:1", "/a\nb"])
def test_a_form_leads_back_to_this_console_only(elsewhere: str) -> None:
    assert "/" == local(elsewhere)


def test_figures_are_said_as_people_say_them() -> None:
    assert ["0.4 ms", "12 ms", "5 s", "2.5 s", "40 s", "5 min", "2 h 5 min", "3 d 4 h", "12 d"] == [
        span(each) for each in (0.0004, 0.012, 5, 2.5, 40, 300, 7500, 273_600, 1_040_000)
    ]
    assert ["1,204", "12.5", NOTHING] == [number(1204), number(12.5), number(None)]
    said = [counted({"count": 10_000, "relation": each}) for each in ("exact", "at_least", "about")]
    assert ["10,000", "10,000+", "about 10,000"] == said
    assert ["1 try", "2 tries"] == [many(1, "try", "tries"), many(2, "try", "tries")]


def test_a_browser_is_said_in_short_and_what_is_none_as_it_is() -> None:
    chrome = "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) HeadlessChrome/156.0 Safari/537.36"
    iphone = (
        "Mozilla/5.0 (iPhone; CPU iPhone OS 17_0 like Mac OS X) AppleWebKit/605.1.15 Version/17.0 Mobile/15E148 Safari/604.1"
    )

    assert ["Chrome on Linux", "Safari on iOS", "curl/8.5.0"] == [browser(each) for each in (chrome, iphone, "curl/8.5.0")]


def test_a_moment_is_exact_and_relative() -> None:
    then = datetime.now(UTC) - timedelta(minutes=5)

    assert ("5 min ago", f"{then:%Y-%m-%d %H:%M:%S}") == (moment(then).ago, moment(then.isoformat()).exact)
    assert "in 2 h" == moment(datetime.now(UTC) + timedelta(hours=2, seconds=5)).ago


def test_a_line_begins_at_zero_and_stops_where_nothing_is_known() -> None:
    drawn = chart({"accepted": [0, 3, None, 5]}, ["then", "now"])
    (line,) = drawn.lines

    assert [0, 5, 10] == [value for _, value in drawn.rows]
    assert 2 == len(line.pieces)
    assert f"{drawn.left:.1f},{drawn.bottom:.1f}" == line.pieces[0].split()[0]
    assert [] == sparkline([None, None])


@pytest.mark.parametrize(
    ("longest", "shown"), [(0.0005, "1.0 ms 2.0 ms"), (0.041, "50 ms 100 ms"), (0.4, "200 ms 400 ms"), (7, "5 s 10 s")]
)
def test_a_plot_of_short_times_is_as_high_as_they_are(longest: float, shown: str) -> None:
    _, *rows = (value for _, value in chart({"half within": [0.0001, longest]}, ["then", "now"], 0.002).rows)

    assert shown == " ".join(map(span, rows))


def test_the_phases_of_an_attempt_fill_its_time() -> None:
    found = phases({"seconds": 1.0, "phases": {"dns": 0.1, "connect": 0.2, "first_byte": 0.5}})

    assert [("dns", 0.0, 10.0), ("connect", 10.0, 20.0), ("first byte", 30.0, 50.0), ("rest", 80.0, 20.0)] == [
        (name, begin, pytest.approx(width)) for name, begin, width, _ in found
    ]


def test_what_every_act_is_on_has_a_page() -> None:
    """So that one who is asked to log in again, or reloads, is led somewhere."""
    pages = {page.path for page in every_page.PAGES}

    assert [] == [act.path for act in every_page.ACTS if not {act.path, act.path.rpartition("/")[0]} & pages]


@given(st.lists(st.floats(0.1, 86_400), max_size=60))
def test_a_line_of_tries_is_in_order_and_its_texts_do_not_overlap_on_a_phone(retry: list[float]) -> None:
    drawn = tries(retry)
    places = [x for x, _ in drawn.tries]
    numbers = [x for x, text in drawn.tries if text]
    # A character has 7 pixels at most; the first time begins at its place, and the last one ends there.
    width = 288 / 100
    edges = [(x * width - len(text) * 3.5, x * width + len(text) * 3.5) for x, text in drawn.times[1:-1]]
    first, last = len(drawn.times[0][1]) * 7, 288 - len(drawn.times[-1][1]) * 7
    taken = [0, first, *(edge for pair in edges for edge in pair), *([last, 288] if retry else [])]

    assert (len(retry) + 1, sorted(places)) == (len(places), places)
    assert all(2 <= x <= 98 for x in places)
    assert all(after - before >= 7 for before, after in pairwise(numbers))
    assert sorted(taken) == taken


def test_a_line_of_tries_says_when_each_is() -> None:
    drawn = tries([5, 300, 1800])

    assert "At once, then after 5 s, 5 min, 35 min." == drawn.sentence
    assert ["0", "10 s", "1 min", "35 min"] == [text for _, text in drawn.times]
    assert [(2.0, "1"), (98.0, "4")] == [drawn.tries[0], drawn.tries[-1]]
    assert [(2.0, "1")] == tries([]).tries
