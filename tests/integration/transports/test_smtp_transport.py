"""Delivery by mail to a real SMTP server: its answer about the mail decides; any other failure is retried."""

import asyncio
import resource
import subprocess
import sys
import time
from dataclasses import replace
from email.utils import parsedate_to_datetime

import pytest

from schemas.config.smtp_target import SmtpTarget
from schemas.delivery import OURS, REFUSED, Delivery, Receipt
from schemas.endpoint import Endpoint
from support.net.post import Post, authenticator, post_office
from support.net.tls import Authority
from support.net.wire import Wire, wire
from support.sending import receipts, run, sample, to
from workers.transports import template_renderer
from workers.transports.smtp import SmtpSender

pytestmark = pytest.mark.slow

SECONDS = 10.0


def mail(port: int, *to: str, security: str = "none", host: str = "127.0.0.1", **target: object) -> Endpoint:
    """An endpoint with these recipients, through a server on this machine."""
    smtp = SmtpTarget(to or ("ops@acme.example",), "Shop <shop@acme.example>", host, port, security, **target)  # type: ignore[arg-type]
    return Endpoint(1, "acme", "mail", "", transport="smtp", target=smtp)


def sent(endpoint: Endpoint, delivery: Delivery | None = None, seconds: float = SECONDS) -> Receipt:
    (receipt,) = receipts(SmtpSender, [endpoint], delivery=delivery, seconds=seconds)
    return receipt


def test_an_event_arrives_as_a_mail_that_says_what_it_is() -> None:
    with post_office(Post()) as post:
        receipt = sent(mail(post.port, "ops@acme.example", "Boss <boss@acme.example>"))

    (message,), (envelope,) = post.mails, post.taken
    assert (None, 250, b"250 2.0.0 queued as 12345") == (receipt.error, receipt.status, receipt.response)
    assert ("shop@acme.example", ["ops@acme.example", "boss@acme.example"]) == (envelope.mail_from, envelope.rcpt_tos)
    assert ("Shop <shop@acme.example>", "ops@acme.example, Boss <boss@acme.example>") == (message["From"], message["To"])
    assert ("order.paid: order 1", "auto-generated", "e-1") == (
        message["Subject"],
        message["Auto-Submitted"],
        message["Webhook-Id"],
    )
    assert abs(parsedate_to_datetime(message["Date"]).timestamp() - time.time()) < 60
    assert {"subject: order 1", "chainseq: 1", '{"amount": 1.10}'} <= set(message.get_content().splitlines())
    assert f"127.0.0.1:{post.port}" == receipt.address


def test_every_try_has_the_same_message_id_and_every_delivery_its_own() -> None:
    with post_office(Post()) as post:

        async def main(sender: SmtpSender) -> None:
            for delivery in (sample(), sample(), sample(number=8), replace(sample(), fingerprint=b"g" * 16)):
                await sender.send(mail(post.port), delivery, SECONDS)

        run(SmtpSender, main)  # type: ignore[arg-type]

    ids = [message["Message-ID"] for message in post.mails]
    assert f"<{'66' * 16}.7@acme.example>" == ids[0] == ids[1]
    assert 3 == len(set(ids))


@pytest.mark.parametrize("code", [421, 450, 451, 452])
def test_a_4yz_is_tried_again(code) -> None:
    with post_office(Post(f"{code} come back")) as post:
        receipt = sent(mail(post.port))

    assert ("deferred", code) == (receipt.error, receipt.status)
    assert "come back" in (receipt.detail or "")


@pytest.mark.parametrize("code", [550, 552, 554])
def test_a_5yz_is_the_end_of_it(code) -> None:
    with post_office(Post(f"{code} never")) as post:
        receipt = sent(mail(post.port))

    assert (REFUSED, code, f"{code} never".encode()) == (receipt.error, receipt.status, receipt.response)


@pytest.mark.parametrize(("code", "error"), [(550, REFUSED), (450, "deferred")])
def test_a_mail_that_one_recipient_does_not_get_is_sent_to_none(code, error) -> None:
    with post_office(Post()) as post:
        receipt = sent(mail(post.port, "ops@acme.example", f"{code}@acme.example"))

    assert (error, code, []) == (receipt.error, receipt.status, post.taken)


def test_a_refused_sender_is_refused() -> None:
    class Picky(Post):
        async def handle_MAIL(self, *_asked: object) -> str:  # noqa: N802 - aiosmtpd's name
            return "553 not from you"

    with post_office(Picky()) as post:
        receipt = sent(mail(post.port))

    assert (REFUSED, 553) == (receipt.error, receipt.status)


@pytest.mark.parametrize("security", ["starttls", "tls"])
def test_tls_is_verified_and_timed(authority, security) -> None:
    context = authority.server("127.0.0.1")
    how = {"tls": context} if security == "tls" else {"tls_context": context, "require_starttls": True}
    with post_office(Post(), **how) as post:
        endpoint = mail(post.port, security=security)
        good = sent(replace(endpoint, ca=authority.ca))
        unknown = sent(endpoint)
        other = sent(replace(endpoint, ca=Authority().ca))

    assert (None, "tls", "tls") == (good.error, unknown.error, other.error)
    assert 1 == len(post.taken)
    assert good.tls is not None
    assert good.connect is not None


def test_what_is_to_be_secret_is_not_said_to_a_server_without_tls(authority) -> None:
    with post_office(Post()) as post:
        receipt = sent(mail(post.port, security="starttls", username="us", password="s3cret"))

    assert ("protocol", []) == (receipt.error, post.sessions)
    assert "STARTTLS" in (receipt.detail or "")


@pytest.mark.parametrize(("password", "error"), [("s3cret", None), ("wrong", "auth")])
def test_a_wrong_password_is_tried_again_for_it_may_be_put_right(authority, password, error) -> None:
    how = {"tls_context": authority.server("127.0.0.1"), "authenticator": authenticator, "auth_required": True}
    with post_office(Post(), **how) as post:
        receipt = sent(replace(mail(post.port, security="starttls", username="us", password=password), ca=authority.ca))

    assert (error, 0 if error else 1) == (receipt.error, len(post.taken))
    assert "wrong" not in repr(receipt)
    assert error not in (REFUSED, *OURS)


async def silent(_wire: Wire, reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
    await reader.read()


def until(command: str) -> object:
    """A server that accepts every command before this one, and does not answer this one."""

    async def script(wire: Wire, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"220 here\r\n")
        while line := (await reader.readline()).decode().strip():
            wire.heads.append(line)
            if line.startswith(command):
                await reader.read()
            writer.write(b"250 yes\r\n" if line != "DATA" else b"354 go on\r\n")

    return script


@pytest.mark.parametrize("script", [silent, until("EHLO"), until("MAIL"), until("RCPT"), until("DATA"), until("From:")])
def test_a_server_that_hangs_is_given_up_at_the_deadline(script, lateness) -> None:
    with wire(script) as server:
        run(SmtpSender, lambda sender: sender.send(mail(server.port), sample(), 0.6))  # type: ignore[arg-type]
        receipt = sent(mail(server.port), seconds=0.6)

    assert ("timeout", None) == (receipt.error, receipt.status)
    assert 0.5 <= receipt.duration < 0.8 + lateness()


def says(*lines: bytes) -> object:
    async def script(_wire: Wire, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for line in lines:
            writer.write(line)
            await reader.readline()

    return script


@pytest.mark.parametrize(
    ("script", "error", "status"),
    [
        (says(), "reset", None),
        (says(b"554 no mail here\r\n"), "protocol", 554),
        (says(b"421 busy\r\n"), "protocol", 421),
        (says(b"SSH-2.0-OpenSSH_9.2\r\n"), "protocol", None),
        (says(b"220 " + b"x" * 1_000_000 + b"\r\n"), "protocol", None),
        (says(b"220 here\r\n", b"250 yes\r\n", b"250 yes\r\n"), "reset", None),
        (says(b"220 here\r\n", b"250 yes\r\n", b"250 yes\r\n", b"250 yes\r\n", b"554 never\r\n"), REFUSED, 554),
    ],
    ids=["closed", "no service", "busy", "no smtp", "endless", "cut", "no data"],
)
def test_a_server_that_does_not_play_along_is_named_for_what_it_does(script, error, status) -> None:
    with wire(script) as server:
        receipt = sent(mail(server.port))

    assert (error, status) == (receipt.error, receipt.status)


def test_a_server_that_cannot_be_reached_is_named_for_what_it_is() -> None:
    found = receipts(SmtpSender, [mail(1), mail(25, host="nowhere.invalid")], seconds=SECONDS)

    assert ["connect", "dns"] == [receipt.error for receipt in found]


def test_what_an_event_holds_adds_no_header_and_no_recipient() -> None:
    evil = "a\r\nBcc: them@evil.example\r\n\r\nbody\x00\x85\u2028x"
    with post_office(Post()) as post:
        receipt = sent(mail(post.port), sample(subject=evil, type=evil))

    (message,), (envelope,) = post.mails, post.taken
    assert (None, None) == (receipt.error, message["Bcc"])
    assert ["ops@acme.example"] == envelope.rcpt_tos
    assert message["Subject"].startswith("a Bcc: them@evil.example body x: a Bcc:")


def test_a_line_with_a_dot_does_not_end_the_mail() -> None:
    with post_office(Post()) as post:
        sent(mail(post.port, text="{{ body }}"), sample(b"one\r\n.\r\nQUIT\r\n..two"))

    assert ["one", ".", "QUIT", "..two"] == post.mails[0].get_content().splitlines()


def test_templates_see_the_event_its_body_and_its_json() -> None:
    text = "{{ event.source }} {{ json.items[1].name }} {{ body | length }} {{ json.missing.too }}|"
    with post_office(Post()) as post:
        sent(
            mail(post.port, subject="Zoë {{ event.chainseq }}", text=text),
            sample(b'{"items": [{"name": "a"}, {"name": "\xc3\xb6"}]}'),
        )

    (message,) = post.mails
    assert ("Zoë 1", "shop ö 41 |") == (message["Subject"], message.get_content().strip())


def test_a_body_that_is_no_text_is_told_of_and_not_shown() -> None:
    with post_office(Post()) as post:
        sent(mail(post.port), sample(b"\xff\xfe\x00", datacontenttype="image/png"))

    assert "(3 bytes of image/png, which is no text)" in post.mails[0].get_content()


@pytest.mark.parametrize(
    "text",
    [
        "{{ ''.__class__.__mro__ }}",
        "{{ event.__init__.__globals__ }}",
        "{{ cycler.__init__.__globals__.os.environ }}",
        "{{ 1 / 0 }}",
        "{{ unknown() }}",
        "{% for n in range(100000) %}{{ 'x' * 100 }}{% endfor %}",
        "{{ 'x' * 1000000000 }}",
        "{{ range(10**9) | list }}",
        "{{ event.update({'a': 'b'}) }}",
    ],
)
def test_a_template_that_wants_too_much_makes_no_mail(text) -> None:
    with post_office(Post()) as post:
        receipt = sent(mail(post.port, text=text))

    if receipt.error is None:  # the sandbox renders nothing in place of forbidden attributes
        assert "" == post.mails[0].get_content().strip()
    else:
        assert ("template", []) == (receipt.error, post.taken)


def test_the_process_that_renders_is_ended_by_its_cpu_and_not_by_the_clock() -> None:
    """On a busy machine little CPU time takes seconds; here the process sleeps for as long."""
    slow = """
import time
from workers.transports import template_child
template_child.SECONDS = 1
template_child.render = lambda order: time.sleep(1.5) or {"text": "done"}
template_child.main()
"""
    answered = subprocess.run([sys.executable, "-c", slow], input=b"{}\n", capture_output=True, timeout=60, check=False)

    assert (0, b'{"text":"done"}\n') == (answered.returncode, answered.stdout)


def cpu_of_ended_processes() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def test_a_template_without_end_is_killed_and_holds_up_the_others_no_longer(lateness, monkeypatch) -> None:
    monkeypatch.setattr(template_renderer, "SECONDS", 2.0)
    endless = (
        "{% for a in range(99999) %}{% for b in range(99999) %}{% for c in range(99999) %}{% endfor %}{% endfor %}{% endfor %}"
    )
    with post_office(Post()) as post:

        async def main(sender: SmtpSender) -> list[tuple[str | None, float, float]]:
            found = []
            for endpoint in (mail(post.port, text=endless), mail(post.port), mail(post.port, text=endless), mail(post.port)):
                before = cpu_of_ended_processes()
                receipt = await sender.send(endpoint, sample(), 2 * template_renderer.PATIENCE)
                found.append((receipt.error, receipt.duration, cpu_of_ended_processes() - before))
            return found

        first, second, third, fourth = run(SmtpSender, main)  # type: ignore[arg-type]

    assert ("template", None, "template", None) == (first[0], second[0], third[0], fourth[0])
    assert first[2] < 3
    assert first[2] > 1.5 or first[1] > template_renderer.PATIENCE  # the limit by the clock, on a busy machine
    assert third[1] < 0.1 + lateness()
    assert 2 == len(post.taken)


def test_a_try_that_is_given_up_leaves_no_answer_for_the_next() -> None:
    slow = "{% for a in range(3000) %}{% for b in range(1000) %}{% endfor %}{% endfor %}{{ event.id }}"
    with post_office(Post()) as post:

        async def main(sender: SmtpSender) -> list[str | None]:
            await sender.send(mail(post.port), sample(), SECONDS)  # the rendering process has started
            hurried = await sender.send(mail(post.port, subject="slow", text=slow), sample(), 0.02)
            after = await sender.send(mail(post.port, subject="after", text="{{ event.id }}"), sample(id="e-2"), SECONDS)
            return [hurried.error, after.error]

        assert ["timeout", None] == run(SmtpSender, main)  # type: ignore[arg-type]

    assert ("after", "e-2") == (post.mails[-1]["Subject"], post.mails[-1].get_content().strip())


def test_a_process_that_renders_knows_no_secret_of_ours(monkeypatch) -> None:
    from workers.transports import template_renderer

    monkeypatch.setenv("WAXSEAL_KEYS", "hidden")
    child = template_renderer._start()
    try:
        environment = open(f"/proc/{child.pid}/environ").read()  # noqa: PTH123, SIM115
    finally:
        child.kill()
        child.communicate()

    assert "hidden" not in environment
    assert "WAXSEAL" not in environment


def test_an_http_endpoint_is_refused() -> None:
    with pytest.raises(AssertionError):
        sent(to("http://127.0.0.1/"))
