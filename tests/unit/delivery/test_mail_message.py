"""An event as a mail: whatever the event holds, it is one mail, with the intended recipients and headers."""

import io
from datetime import UTC, datetime
from email import message_from_bytes
from email.message import EmailMessage
from email.policy import default

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.delivery.mail_message import bare, mail_message
from pipeline.delivery.template import MAX_BODY, MAX_SUBJECT, MAX_TEXT, Unrenderable, check_template, order, render
from schemas.config.smtp_target import SmtpTarget
from support.sending import sample
from workers.transports.template_child import serve

NOW = datetime(2026, 1, 1, tzinfo=UTC)
HEADERS = ["From", "To", "Subject", "Date", "Message-ID", "Auto-Submitted", "Webhook-Id"]
CONTENT = {"Content-Type", "Content-Transfer-Encoding", "MIME-Version"}


def target(**terms: object) -> SmtpTarget:
    return SmtpTarget(("ops@acme.example",), "shop@acme.example", "mx.example", **terms)  # type: ignore[arg-type]


def written(subject: str = "s", text: str = "t", **terms: object) -> tuple[bytes, EmailMessage]:
    raw = mail_message(target(**terms), sample(), "e-1", {"subject": subject, "text": text}, NOW)
    return raw, message_from_bytes(raw, policy=default)  # type: ignore[return-value]


@given(st.text(max_size=300), st.text(max_size=2000))
def test_no_subject_and_no_text_add_a_header_or_go_beyond_seven_bits_and_short_lines(subject, text) -> None:
    raw, message = written(subject, text)

    assert HEADERS == [name for name in message.keys() if name not in CONTENT]  # noqa: SIM118 - a message is not a mapping
    assert max(raw) < 128
    assert all(len(line) <= 998 and b"\r" not in line and b"\n" not in line for line in raw.split(b"\r\n"))


@given(st.text(max_size=2000))
def test_the_text_is_read_as_it_was_written_but_for_line_ends(text) -> None:
    _raw, message = written(text=text)

    def lines(each: str) -> list[str]:
        return each.replace("\r\n", "\n").replace("\r", "\n").rstrip("\n").split("\n")

    assert lines(text.encode(errors="replace").decode()) == lines(message.get_content())


@pytest.mark.parametrize("subject", ["Zoë bestellt", "発注", "a" * 1000, "é" * 1000, " a \t b ", "😀 " * 100])
def test_a_subject_is_one_line_and_bounded(subject) -> None:
    _raw, message = written(subject)

    assert " ".join(subject.split())[:MAX_SUBJECT].strip() == message["Subject"].strip()


def test_a_message_id_survives_a_long_domain() -> None:
    domain = ".".join(["d" * 60] * 4)
    raw = mail_message(SmtpTarget(("a@b.example",), f"x@{domain}", "h"), sample(), "e-1", {"subject": "s", "text": "t"}, NOW)

    assert f"<{'66' * 16}.7@{domain}>" == message_from_bytes(raw, policy=default)["Message-ID"]


@pytest.mark.parametrize("field", ["to", "sender"])
def test_an_address_with_a_line_end_is_refused(field) -> None:
    evil = "a@b.example\r\nBcc: them@evil.example"
    chosen = {"to": ("a@b.example",), "sender": "c@d.example"} | {field: (evil,) if field == "to" else evil}

    with pytest.raises(ValueError, match="linefeed"):
        mail_message(SmtpTarget(host="h", **chosen), sample(), "e-1", {"subject": "s", "text": "t"}, NOW)  # type: ignore[arg-type]


def test_the_name_before_an_address_is_no_part_of_it() -> None:
    assert ["a@b.example"] * 3 == [bare(each) for each in ("a@b.example", "A <a@b.example>", '"A, B" <a@b.example>')]


def rendered(text: str, body: bytes = b'{"a": [1, 2]}', subject: str = "s", **attributes: str) -> str:
    return render(order(target(subject=subject, text=text), sample(body, **attributes)))["text"]


def test_a_template_sees_what_it_is_said_to_see() -> None:
    assert "e-1 acme 1" == rendered("{{ event.id }} {{ event.tenant }} {{ event.chainseq }}")
    assert '{"a": [1, 2]} [1, 2] 13' == rendered("{{ body }} {{ json.a }} {{ size }}")
    assert "3" == rendered("{{ json['a'] | sum }}")
    assert "mine" == rendered("{{ json.items }}", b'{"items": "mine"}')


@pytest.mark.parametrize(
    ("body", "content_type"),
    [(b"{", "application/json"), (b"{}", "text/plain"), (b"[" * 100_000, "application/json"), (b"\xff", "application/json")],
)
def test_a_body_that_is_not_json_has_no_data(body, content_type) -> None:
    assert "None" == rendered("{{ json }}", body, datacontenttype=content_type)


@pytest.mark.parametrize("content_type", ["application/json; charset=utf-8", "application/vnd.acme+json", "Application/JSON"])
def test_json_is_known_by_its_type(content_type) -> None:
    assert "[1, 2]" == rendered("{{ json.a }}", datacontenttype=content_type)


def test_of_a_long_body_a_template_sees_the_beginning_and_that_there_is_more() -> None:
    body = b"x" * (MAX_BODY + 1)

    assert f"{MAX_BODY} True {MAX_BODY + 1}" == rendered("{{ body | length }} {{ cut }} {{ size }}", body)


def test_a_long_text_is_refused_as_soon_as_it_is_too_long() -> None:
    with pytest.raises(Unrenderable, match=str(MAX_TEXT)):
        rendered("{% for n in range(99999) %}{% for m in range(99999) %}" + "x" * 100 + "{% endfor %}{% endfor %}")


@pytest.mark.parametrize("text", ["{{", "{% for %}", "{{ a | nosuch }}", "{% include 'x' %}", "{{ 1/0 }}", "{{ event() }}"])
def test_a_template_that_fails_says_which_and_why(text) -> None:
    with pytest.raises(Unrenderable, match=r"^the text: \w+"):
        rendered(text)


@pytest.mark.parametrize("text", ["{{", "{% for %}", "{{ a | nosuch }}", "line\n{% end %}"])
def test_what_is_no_template_is_said_to_be_none(text) -> None:
    with pytest.raises(Unrenderable, match=r"^line \d: "):
        check_template(text)


def test_half_of_a_character_that_a_template_makes_is_replaced() -> None:
    assert "a\ufffdb \U0001f600" == rendered(r"""{{ "a\ud800b" }} {{ "\ud83d" ~ "\ude00" }}""")
    assert "\ufffd" == render(order(target(subject=r"""{{ "\udfff" }}"""), sample()))["subject"]


def test_a_process_that_renders_survives_half_of_a_character() -> None:
    texts = (r"""{{ "\ud800" }}""", r"""{{ event["\ud800"]() }}""", r"""{{ "\ud800" | int("\udfff", 1/0) }}""", "{{ size }}")
    answers = io.BytesIO()

    orders = b"".join(orjson.dumps(order(target(text=each), sample())) + b"\n" for each in texts)
    serve(io.BytesIO(orders), answers, lambda _: None)

    found = [orjson.loads(each) for each in answers.getvalue().splitlines()]
    assert ("\ufffd", "16") == (found[0]["text"], found[3]["text"])
    assert ["error"] == list(found[1]) == list(found[2])


def test_every_order_is_answered_in_turn_and_watched() -> None:
    orders = [order(target(text=text), sample()) for text in ("{{ event.id }}", "{{ 1/0 }}", "{{ size }}")]
    answers, watched = io.BytesIO(), []  # type: ignore[var-annotated]

    serve(io.BytesIO(b"".join(orjson.dumps(each) + b"\n" for each in orders)), answers, watched.append)

    first, second, third = map(orjson.loads, answers.getvalue().splitlines())
    assert ("e-1", "16", "order.paid: order 1") == (first["text"], third["text"], first["subject"])
    assert "division by zero" in second["error"]
    assert [True, False] * 3 == [seconds > 0 for seconds in watched]
