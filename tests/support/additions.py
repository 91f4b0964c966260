"""A transport, a kind of source and a kind of mailbox that do not exist, added through their registries alone.

`run` runs each function in an interpreter of its own: before anything is derived from the registries, and so that no other
test sees the addition.
"""

import asyncio
import json
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

ROOT = Path(__file__).parents[2]
NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


def run(addition: Callable[[], None]) -> None:
    """Fails with what `addition` prints when it fails."""
    paths = [str(ROOT), str(ROOT / "tests")]
    code = f"import sys; sys.path[:0] = {paths!r}; from support import additions; additions.{addition.__name__}()"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False)
    assert 0 == done.returncode, done.stderr


def read(text: str, **environment: str) -> Any:
    """Reads a configuration file with `text`."""
    from ops.config.read_file import read_config

    with TemporaryDirectory() as folder:
        path = Path(folder) / "waxseal.yaml"
        path.write_text(text)
        return read_config(path, environment)


def refusal(text: str) -> str:
    """Why a file with `text` is refused."""
    from ops.config.read_file import BadConfig

    try:
        read(text, PIN="4711")
    except BadConfig as error:
        return str(error)
    raise AssertionError("it is not refused")


def series(name: str, label: str) -> bool:
    """Whether a series of this metric has this label."""
    from prometheus_client import generate_latest

    lines = generate_latest().decode().splitlines()
    return any(line.startswith(f"waxseal_{name}{{") and label in line for line in lines)


PAPER = "paper: {host: 10.0.0.9, trays: [1, 2], pin: env:PIN}"
PRINTER = f"tenants: [{{name: acme}}]\nendpoints:\n  - {{tenant: acme, name: printer, {PAPER}}}\n"


def a_transport() -> None:
    """Pages, printed on a printer with a PIN."""
    from schemas.config import transports
    from schemas.config.transport import Transport
    from schemas.config.values import Secret, Spec

    @dataclass(frozen=True, slots=True)
    class Printer:
        host: str
        trays: tuple[int, ...]
        pin: str | None = field(default=None, repr=False)

    class PrinterSpec(Spec):
        host: str
        trays: list[int]
        pin: Secret | None = None

        def target(self) -> Printer:
            return Printer(self.host, tuple(self.trays), self.pin)

    added = Transport("paper", "paper", PrinterSpec, Printer, useless=("secrets",), dials=lambda spec: [(("host",), spec.host)])
    transports.TRANSPORTS = {**transports.TRANSPORTS, "paper": added}  # type: ignore[misc]

    form = re.search(r"transport ~ '(.*)'", (ROOT / "ops/migrations/versions/0008_transports.sql").read_text())
    assert form is not None
    assert all(re.search(form[1], name) for name in transports.TRANSPORTS)
    _paper_is_configured()
    _paper_is_sent(_paper_is_stored())


def _paper_is_configured() -> None:
    found = read(PRINTER, PIN="4711")
    spec = found.config.endpoints[0]
    assert ("paper", {}) == (spec.transport, spec.terms())
    assert "4711" not in repr(spec.endpoint(7, ()))
    [warning] = found.warnings([], by_proxy=False)
    assert "waxseal.yaml:3: endpoints[0].paper.host: nothing is sent to 10.0.0.9 (private)" in warning
    assert "needs url, amqp, smtp or paper, and one of them only" in refusal(PRINTER.replace(PAPER, f"amqp: {{}}, {PAPER}"))
    assert "unknown key 'tray'; did you mean trays?" in refusal(PRINTER.replace("trays", "tray"))
    secrets = f"secrets: [whsec_{'A' * 32}]"
    assert "secrets is of no use to an endpoint with paper" in refusal(PRINTER.replace(PAPER, f"{secrets}, {PAPER}"))


def _paper_is_stored() -> Any:
    from ops.config.diff import differences
    from pipeline.store.config.endpoint_row import endpoint_of, settings_of
    from schemas.catalog import Catalog

    config = read(PRINTER, PIN="4711").config
    endpoint = config.endpoints[0].endpoint(7, ())
    settings = json.loads(json.dumps(settings_of(endpoint, {}, lambda clear: clear[::-1])))
    assert {"host": "10.0.0.9", "trays": [1, 2]} == settings["paper"]
    assert "4711" not in str(settings)
    row = {"id": 7, "tenant": "acme", "name": "printer", "url": None, "secrets": [], "filter": None, "state": "active"}
    stored = endpoint_of({**row, "transport": "paper", "settings": settings}, lambda sealed: sealed[::-1])
    assert endpoint == stored

    now = Catalog(1, {"acme": b"k" * 32}, {}, {7: stored})
    assert ["unchanged", "unchanged"] == [each.action for each in differences(config, now)]
    other = read(PRINTER.replace("[1, 2]", "[3]"), PIN="1147").config
    assert ("paper.trays: [1, 2] -> [3]", "paper.pin changed") == list(differences(other, now))[1].details
    elsewhere = read(PRINTER.replace(PAPER, "amqp: {}")).config
    assert ("transport: paper -> amqp",) == list(differences(elsewhere, now))[1].details
    return stored


def _paper_is_sent(endpoint: Any) -> None:
    from ops.telemetry import metrics
    from schemas.delivery import Receipt
    from workers.net.terms import Terms
    from workers.transports import registry

    printed: list[Any] = []

    class Paper:
        def __init__(self, terms: Terms) -> None:
            pass

        async def send(self, endpoint: Any, delivery: Any, seconds: float, check: Any) -> Receipt:
            printed.append((endpoint.target.pin, delivery))
            return Receipt(NOW, 0.1)

    registry.SENDERS = {**registry.SENDERS, "paper": Paper}  # type: ignore[misc]
    page: Any = "a page"
    assert Receipt(NOW, 0.1) == asyncio.run(_awaited(registry.Senders(Terms("waxseal/test")).send(endpoint, page, 1.0)))
    assert [("4711", "a page")] == printed
    metrics.observe_attempt("paper", "none", 0.1)
    assert series("delivery_attempts_total", 'transport="paper"')
    assert series("deliveries_total", 'transport="paper"')


async def _awaited(receipt: Any) -> Any:
    return await receipt


def a_kind_of_source() -> None:
    """Messages that are proved by a password in a header."""
    from pipeline import sources as source_kinds
    from pipeline.sources.kind import Kind, Unverified, need_secret

    def verify(source: Any, headers: Any, body: bytes, now: datetime) -> None:
        if headers.get("x-password") not in source.secrets:
            raise Unverified("signature", "the password is another")

    def describe(source: Any, headers: Any, body: bytes) -> dict[str, str]:
        return {"id": headers["x-number"], "type": "parcel.sent", "parcel": headers["x-number"]}

    kind = Kind(
        verify,
        need_secret,
        lambda source, headers, body, now: {"x-password": source.secrets[0]},
        describe,
        sample=lambda fresh, now: ({"content-type": "application/json", "x-number": fresh}, {"weight": 4}),
        posted_to=lambda options, url: {**options, "at": url},
        extensions=("parcel",),
    )
    source_kinds.KINDS = {**source_kinds.KINDS, "courier": kind}  # type: ignore[misc]
    source_kinds.NAMES = (*source_kinds.NAMES, "courier")  # type: ignore[misc]

    # The configuration file, and a sample of it.
    from ops.admin.sample_message import Own, by_hand, message

    file = "tenants: [{name: acme}]\nsources:\n  - {tenant: acme, name: parcels, kind: courier, secrets: [s3cret]}\n"
    filtered = file + "endpoints:\n  - {tenant: acme, name: a, url: 'https://a.example', filter: {exact: {parcel: '7'}}}\n"
    found = read(filtered)
    assert [] == found.warnings([], by_proxy=False)
    source = found.config.sources[0].source()
    assert "kind courier needs at least one secret" in refusal(file.replace("[s3cret]", "[]"))
    assert "known are: standard-webhooks" in refusal(file.replace("courier", "curier"))
    assert "amqp, courier" in refusal(file.replace("courier", "curier"))
    trial = message(source, "https://hooks.acme.example/in/acme/parcels", Own(id="7"), NOW)
    assert ("7", "***") == (trial.shown["x-number"], trial.shown["x-password"])
    assert {"at": "https://a.example"} == by_hand("courier", ("s3cret",), {}, "https://a.example").options

    # The difference.
    from ops.config.diff import differences
    from schemas.catalog import Catalog

    there = Catalog(1, {"acme": b"k" * 32}, {("acme", "parcels"): source}, {})
    assert ["unchanged", "unchanged"] == [each.action for each in differences(read(file).config, there)]

    # Receiving, and the metrics.
    from ops.telemetry import metrics
    from pipeline.receive import receive

    source_kinds.KINDS["courier"].verify(source, trial.headers, trial.body, NOW)
    [(attributes, body)] = receive(source, trial.headers, trial.body, NOW, lambda: "fresh")
    assert ("7", "parcel.sent", "7", trial.body) == (attributes["id"], attributes["type"], attributes["parcel"], body)
    metrics.observe_ingested("courier", "accepted")
    assert series("ingest_messages_total", 'source="courier"')


def a_kind_of_mailbox() -> None:
    """Mailboxes over POP3, with a password."""
    from schemas.config import mailbox_kinds
    from schemas.config.mailbox_kind import MailboxKind

    def problems(spec: Any) -> list[str]:
        return [] if spec.password is not None else ["kind pop needs password"]

    added = MailboxKind("pop", ("all",), problems, {True: 995, False: 110})
    mailbox_kinds.MAILBOX_KINDS = {**mailbox_kinds.MAILBOX_KINDS, "pop": added}  # type: ignore[misc]
    mailbox_kinds.MAIL_KINDS = tuple(mailbox_kinds.MAILBOX_KINDS)  # type: ignore[misc]

    # The configuration file, and the difference.
    from ops.config.diff import differences, taken_names
    from schemas.catalog import Catalog
    from schemas.source import Source

    said = "{tenant: acme, name: support, kind: pop, host: mx.example, username: us, password: s3cret}"
    file = f"tenants: [{{name: acme}}]\nmailboxes:\n  - {said}\n"
    found = read(file)
    mailbox = found.config.mailboxes[0].mailbox(7)
    assert ("pop", "mx.example", 995, ("all",)) == (mailbox.kind, mailbox.host, mailbox.port, mailbox.folders)
    assert "kind pop needs password" in refusal(file.replace(", password: s3cret", ""))
    assert "'imap', 'gmail', 'graph' or 'pop'" in refusal(file.replace("kind: pop", "kind: popp"))
    source = Source("acme", "support", "pop")
    there = Catalog(1, {"acme": b"k" * 32}, {("acme", "support"): source}, {})
    changes = list(differences(found.config, there, {("acme", "support"): (mailbox, "active")}))
    assert ["unchanged", "unchanged"] == [each.action for each in changes]
    assert [] == list(taken_names(found.config, there))

    # Pulling, what is not delivered of it, and the metrics.
    from ops.telemetry import mail_metrics, metrics
    from workers.mail.mailbox_session import MailKind
    from workers.mail.pull import mailbox_kinds as pull_mailbox_kinds

    session: Any = object()
    kind = MailKind(lambda mailbox, token: session, per_folder=False)
    pull_mailbox_kinds.KINDS = {**pull_mailbox_kinds.KINDS, "pop": kind}  # type: ignore[misc]
    assert set(pull_mailbox_kinds.KINDS) == set(mailbox_kinds.MAIL_KINDS)

    from workers.mail.pull.sessions import Sessions

    assert (session, False) == Sessions(lambda mailbox: None).take(mailbox)
    mail_metrics.observe_pull("pop", "done", 0.1)
    metrics.observe_token_refresh("pop", "refreshed")
    assert series("mail_pulls_total", 'kind="pop"')
    assert series("mail_token_refreshes_total", 'kind="pop"')
    assert series("ingest_messages_total", 'source="pop"')
