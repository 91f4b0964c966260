from datetime import UTC, datetime
from pathlib import Path

import pytest

from ops.config.read_file import BadConfig, Fault, read_config
from schemas.mailbox import Mailbox, OAuth

OAUTH = "{client_id: app, client_secret: shh, refresh_token: long}"


def mailbox(**more: object) -> str:
    """A file whose only mailbox, on line 3, has the keys `more` too."""
    said = {"tenant": "acme", "name": "support", "kind": "imap", "host": "mx.example", "username": "us@acme.example", **more}
    if said["kind"] != "imap":
        del said["host"]
    if said["kind"] == "imap" and "oauth" not in said:
        said.setdefault("password", "secret")
    said = {name: value for name, value in said.items() if value is not None}
    return f"tenants: [{{name: acme}}]\nmailboxes:\n  - {{{', '.join(f'{name}: {value}' for name, value in said.items())}}}\n"


def read(folder: Path, text: str) -> Mailbox:
    (folder / "waxseal.yaml").write_text(text)
    return read_config(folder / "waxseal.yaml", {"PASS": "from outside"}).config.mailboxes[0].mailbox(7)


def faults(folder: Path, text: str) -> list[Fault]:
    with pytest.raises(BadConfig) as raised:
        read(folder, text)
    assert "secret" not in str(raised.value)
    return raised.value.faults


def test_an_imap_mailbox_needs_little(tmp_path) -> None:
    found = read(tmp_path, mailbox())

    assert ("mx.example", 993, True, ("INBOX",), "secret") == (found.host, found.port, found.tls, found.folders, found.password)
    assert ("address", None, True) == (found.subject, found.sync_from, found.deliver_backfill)
    assert "secret" not in repr(found)


def test_a_mailbox_says_what_is_read_of_it(tmp_path) -> None:
    more = {"folders": "[INBOX, Archive]", "sync_from": "2026-01-31", "deliver_backfill": "false", "poll": "1m"}
    found = read(tmp_path, mailbox(**more, subject="header:X-Ticket", authserv_ids="[mx.acme.example]", password="env:PASS"))

    assert ("INBOX", "Archive") == found.folders
    assert datetime(2026, 1, 31, tzinfo=UTC) == found.sync_from
    assert (False, 60.0, "header:X-Ticket") == (found.deliver_backfill, found.poll, found.subject)
    assert ("mx.acme.example",) == found.authservs
    assert found.password == "from outside"


@pytest.mark.parametrize("written", ["2026-01-31T12:00:00Z", '"2026-01-31T13:00:00+01:00"', "2026-01-31T13:00:00+01:00"])
def test_a_time_has_a_zone(tmp_path, written) -> None:
    assert datetime(2026, 1, 31, 12, tzinfo=UTC) == read(tmp_path, mailbox(sync_from=written)).sync_from


def test_without_tls_the_port_is_another(tmp_path) -> None:
    found = read(tmp_path, mailbox(tls="false"))

    assert (143, False) == (found.port, found.tls)


def test_tokens_come_from_the_provider_that_the_kind_belongs_to(tmp_path) -> None:
    gmail = read(tmp_path, mailbox(kind="gmail", oauth=OAUTH))
    graph = read(tmp_path, mailbox(kind="graph", oauth=OAUTH.replace("{", "{directory: t1, ")))
    imap = read(tmp_path, mailbox(oauth=OAUTH.replace("{", "{token_url: http://127.0.0.1:9/t, ")))

    assert OAuth("https://oauth2.googleapis.com/token", "app", "long", "shh") == gmail.oauth
    assert graph.oauth is not None
    assert graph.oauth.token_url == "https://login.microsoftonline.com/t1/oauth2/v2.0/token"
    assert imap.oauth is not None
    assert imap.oauth.token_url == "http://127.0.0.1:9/t"
    assert ((("all",), 0), (("inbox",), 0)) == ((gmail.folders, gmail.port), (graph.folders, graph.port))


@pytest.mark.parametrize(
    ("told", "text"),
    [
        ("kind imap needs host", mailbox(host=None)),
        ("must be the name or address of a mail server", mailbox(host='"a b"')),
        ("needs password or oauth", mailbox(password=None, oauth=None)),
        ("needs password or oauth", mailbox(password="secret", oauth=OAUTH.replace("{", "{provider: google, "))),
        ("oauth needs provider", mailbox(oauth=OAUTH)),
        ("STARTTLS is not offered", mailbox(port=143)),
        ("must be certificates in PEM", mailbox(ca="nonsense")),
        ("api_url is of no use to kind imap", mailbox(api_url="https://x.example/")),
        ("must be from 1 to 65535", mailbox(port=0)),
        ("'imap', 'gmail' or 'graph'", mailbox(kind="pop3", host="x")),
        ("kind gmail needs oauth", mailbox(kind="gmail")),
        ("password is of no use to kind gmail", mailbox(kind="gmail", password="secret", oauth=OAUTH)),
        ("folders is of no use to kind gmail", mailbox(kind="gmail", folders="[a]", oauth=OAUTH)),
        ("must be an https:// URL", mailbox(kind="graph", api_url="http://x.example/", oauth=OAUTH)),
        ("must be an https:// URL", mailbox(kind="gmail", oauth=OAUTH.replace("{", "{token_url: http://x.example/, "))),
        ("a folder is there twice", mailbox(folders="[a, a]")),
        ("at least 1 item", mailbox(folders="[]")),
        ("one line of printable text", mailbox(folders='["a\\nb"]')),
        ("one line of printable text", mailbox(subject='""')),
        ("header: needs a name", mailbox(subject='"header:"')),
        ("must be a date", mailbox(sync_from="yesterday")),
        ("must be from 1 to 86400 s", mailbox(poll="100d")),
        ("unknown key 'pasword'; did you mean password?", mailbox(pasword="x")),
        ("the environment variable NOPE is not set", mailbox(password="env:NOPE")),
        ("needs username", mailbox(username=None)),
    ],
)
def test_what_is_wrong_is_said_with_its_line(told, text, tmp_path) -> None:
    found = faults(tmp_path, text)

    assert [(3, True)] == [(fault.line, told in fault.what) for fault in found if told in fault.what], found


def test_a_mailbox_and_a_source_do_not_share_a_name(tmp_path) -> None:
    text = mailbox() + "sources:\n  - {tenant: acme, name: support, kind: amqp}\n"

    assert [(3, "'support' is there twice")] == [(fault.line, fault.what) for fault in faults(tmp_path, text)]
