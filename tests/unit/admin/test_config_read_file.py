"""The configuration file: all faults are reported at once, each with its line, and never a secret."""

import json
import re
from pathlib import Path

import pytest
import yaml

from ops.config.read_file import BadConfig, Fault, read_config
from ops.errors import Misconfigured
from pipeline.delivery.addresses import networks
from schemas.config.amqp_target import AmqpSpec, AmqpTarget
from schemas.config.file import ConfigFile
from schemas.config.smtp_target import SmtpSpec, SmtpTarget
from schemas.units import per_second, seconds, size
from support.net.tls import Authority
from support.pages import README, Block, blocks

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"

GOOD = f"""\
tenants: [{{name: acme}}, {{name: a-2}}]
sources:
  - {{tenant: acme, name: shop, kind: standard-webhooks, secrets: ["env:SHOP", "{SECRET}"], tolerance: 5m, max_body: 256KiB}}
  - tenant: acme
    name: code
    kind: github
    secrets: ["file:secrets/github"]
    subject: /repository/full_name
    extensions: {{region: "header:X-Region"}}
  - {{tenant: a-2, name: shop, kind: none}}
  - {{tenant: acme, name: orders, kind: amqp}}
endpoints:
  - tenant: acme
    name: billing
    url: https://billing.example/hooks?x=1
    secrets: ["env:BILLING"]
    filter: {{any: [{{prefix: {{type: "order."}}}}, {{exact: {{source: shop}}}}]}}
    retry: [5s, 5m, 2h, 1d, 500ms, 7]
    timeout: 15s
    max_in_flight: 20
    ordered: false
  - {{tenant: acme, name: plain, url: "http://127.0.0.1:8000"}}
mailboxes: []
"""
ENVIRONMENT = {"SHOP": "whsec_" + "A" * 44, "BILLING": "whsec_" + "B" * 44}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "secrets").mkdir()
    (tmp_path / "secrets" / "github").write_text("from a file\n")
    return tmp_path


def read(folder: Path, text: str, environment: dict[str, str] = ENVIRONMENT) -> ConfigFile:
    (folder / "waxseal.yaml").write_text(text)
    return read_config(folder / "waxseal.yaml", environment).config


def faults(folder: Path, text: str) -> list[Fault]:
    with pytest.raises(BadConfig) as raised:
        read(folder, text)
    return raised.value.faults


def source(**more: object) -> str:
    """A file whose only source, on line 3, has the keys `more` too."""
    said = {"tenant": "acme", "name": "shop", "kind": "github", "secrets": '["s"]', **more}
    return f"tenants: [{{name: acme}}]\nsources:\n  - {{{', '.join(f'{k}: {v}' for k, v in said.items() if v is not None)}}}\n"


def endpoint(**more: object) -> str:
    said = {"tenant": "acme", "name": "out", "url": '"http://x.example/"', **more}
    return (
        f"tenants: [{{name: acme}}]\nendpoints:\n  - {{{', '.join(f'{k}: {v}' for k, v in said.items() if v is not None)}}}\n"
    )


def smtp(**more: object) -> str:
    said = {"to": "ops@acme.example", "from": "shop@acme.example", "host": "mx.example", **more}
    return "{" + ", ".join(f"{name}: {value}" for name, value in said.items() if value is not None) + "}"


def test_a_good_file_is_read(folder) -> None:
    config = read(folder, GOOD)

    assert ["acme", "a-2"] == [tenant.name for tenant in config.tenants]
    assert [["whsec_" + "A" * 44, SECRET], ["from a file"], [], []] == [each.secrets for each in config.sources]
    assert {"tolerance": 300, "max_body": 262144} == config.sources[0].settings()
    assert {"subject": "/repository/full_name", "extensions": {"region": "header:X-Region"}} == config.sources[1].settings()
    retry = [5.0, 300.0, 7200.0, 86400.0, 0.5, 7.0]
    assert {"retry": retry, "timeout": 15.0, "max_in_flight": 20, "ordered": False} == config.endpoints[0].terms()
    assert config.endpoints[1].secrets is None
    assert {} == config.endpoints[1].terms()


@pytest.mark.parametrize(
    "block", [block for block in blocks("yaml") if not block.text.startswith("amqp:")], ids=lambda block: block.page
)
def test_every_configuration_of_the_pages_is_valid(folder, block: Block) -> None:
    secrets = dict.fromkeys(re.findall(r"env:(\w+)", block.text), SECRET)
    for name in re.findall(r'"file:([^"]+)"', block.text):
        (folder / name).write_text("secret")

    assert read(folder, ("" if block.page == README else "tenants: [{name: acme}]\n") + block.text, secrets)


def test_the_page_on_delivery_shows_every_key_of_an_endpoint_over_amqp_or_by_mail(folder) -> None:
    (found,) = (block.text for block in blocks("yaml", "ops/docs/delivery.md") if "exchange:" in block.text)
    targets = yaml.safe_load(found)

    assert set(AmqpSpec.model_fields) == set(targets["amqp"])
    assert {field.alias or name for name, field in SmtpSpec.model_fields.items()} == set(targets["smtp"])
    for name, target in targets.items():
        config = read(folder, endpoint(url=None, **{name: json.dumps(target)}), {"SMTP_PASSWORD": "p"})
        assert name == config.endpoints[0].transport


def test_an_amqp_source_may_be_bound_to_users_of_the_broker(folder) -> None:
    found = read(folder, source(kind="amqp", secrets=None, users="[acme-shop, acme-till]"), {}).sources[0]

    assert ("acme-shop", "acme-till") == found.source().users
    assert {"users": ["acme-shop", "acme-till"]} == found.settings()


def test_a_source_may_have_a_rate_limit_and_a_rule_for_its_time(folder) -> None:
    limited = source(kind="twilio", rate_limit="30/m", time="form:At", id="digest:body", options='{public_base: "https://a"}')

    found = read(folder, limited, {}).sources[0]

    assert (0.5, "form:At", "digest:body") == (found.source().rate_limit, found.source().time, found.source().id)
    assert {"id", "time", "rate_limit", "options"} == set(found.settings())


def test_an_endpoint_may_be_an_exchange_or_a_mailbox_under_any_terms(folder) -> None:
    authority = Authority()
    (folder / "client.pem").write_text(authority.issue("us.example"))
    text = """\
tenants: [{name: acme}]
endpoints:
  - {tenant: acme, name: bus, amqp: {}}
  - {tenant: acme, name: own-bus, amqp: {exchange: their.events, routing_key: "{source}.{subject}"}, ordered: true}
  - tenant: acme
    name: mail
    smtp:
      to: [ops@acme.example, "Boss <boss@acme.example>"]
      from: Shop <shop@acme.example>
      host: mx.example
      security: tls
      username: us
      password: env:PASSWORD
      subject: "{{ event.type }}"
      text: |
        Dear all,
        {{ body }}
    rate_limit: 30/m
    max_age: 3d
  - {tenant: acme, name: other-mail, smtp: {to: ops@acme.example, from: shop@acme.example, host: "::1", security: none}}
  - tenant: acme
    name: web
    url: https://billing.example/
    headers: {Authorization: env:TOKEN, X-Team: "a, b"}
    client_cert: file:client.pem
    ca: env:CA
"""
    config = read(folder, text, {"PASSWORD": "s3cret", "TOKEN": "Bearer abc", "CA": authority.ca})

    bus, own_bus, mail, other, web = (each.endpoint(7, ()) for each in config.endpoints)
    assert ("amqp", "", AmqpTarget()) == (bus.transport, bus.url, bus.target)
    assert (AmqpTarget("their.events", "{source}.{subject}"), True) == (own_bus.target, own_bus.ordered)
    to = ("ops@acme.example", "Boss <boss@acme.example>")
    login = ("us", "s3cret")
    written = SmtpTarget(
        to, "Shop <shop@acme.example>", "mx.example", 465, "tls", *login, "{{ event.type }}", "Dear all,\n{{ body }}\n"
    )
    assert ("smtp", written, 0.5, 259_200.0) == (mail.transport, mail.target, mail.rate_limit, mail.max_age)
    assert ("::1", 25, "none") == (other.target.host, other.target.port, other.target.security)
    assert {"authorization": "Bearer abc", "x-team": "a, b"} == web.headers
    assert ((folder / "client.pem").read_text().strip(), authority.ca) == (web.client_cert, web.ca)
    assert not any(secret in repr(config) + repr((mail, web)) for secret in ("s3cret", "Bearer abc", "BEGIN"))


def test_everything_that_is_wrong_is_said_at_once_with_its_line(folder) -> None:
    text = """\
tenants:
  - {name: acme}
  - {name: Acme}
sources:
  - tenant: acme
    name: shop
    kind: githb
    secrets: ["env:NOPE"]
    subjct: /x
  - {tenant: nobody, name: shop, kind: amqp, max_body: 3 elephants}
endpoints:
  - tenant: acme
    name: billing
    url: ftp://x.example/
    retry: [5s, 5x]
  - {tenant: acme, name: billing, secrets: [abc]}
extra: 1
"""
    expected = [
        (3, "tenants[1].name"),
        (7, "sources[0].kind"),
        (8, "sources[0].secrets[0]"),
        (9, "sources[0]"),
        (10, "sources[1].max_body"),
        (10, "sources[1].tenant"),
        (14, "endpoints[0].url"),
        (15, "endpoints[0].retry[1]"),
        (16, "endpoints[1].name"),
        (16, "endpoints[1].secrets[0]"),
        (17, ""),
    ]

    assert expected == [(fault.line, fault.where) for fault in faults(folder, text)]


@pytest.mark.parametrize(
    ("line", "told", "text"),
    [
        (3, "unknown key 'tolerence'; did you mean tolerance?", source(tolerence="5m")),
        (3, "needs kind", source(kind=None)),
        (3, "unknown kind 'svix'; known are: standard-webhooks, github", source(kind="svix")),
        (3, "kind github needs at least one secret", source(secrets=None)),
        (3, "kind github needs at least one secret", source(secrets="[]")),
        (3, "kind none checks no secret", source(kind="none")),
        (3, "kind amqp takes no secrets", source(kind="amqp")),
        (3, "must be a list", source(secrets="abc")),
        (3, "must be text; put it in quotes", source(secrets="[1]")),
        (3, "must be text; put it in quotes", source(name="1")),
        (3, "'Shop' is not a name", source(name="Shop")),
        (3, "'-shop' is not a name", source(name="-shop")),
        (3, "is not a name", source(name="x" * 64)),
        (3, "tenant 'other' is not among the tenants of this file", source(tenant="other")),
        (3, "neither a JSON pointer", source(subject="order.id")),
        (3, "header: needs a name", source(id='"header:"')),
        (3, "'Region' cannot be an extension", source(extensions="{Region: /a}")),
        (3, "'subject' cannot be an extension", source(extensions="{subject: /a}")),
        (3, "'data' cannot be an extension", source(extensions="{data: /a}")),
        (3, "'headers' cannot be an extension", source(extensions="{headers: /a}")),
        (3, "must be a mapping", source(extensions="[a]")),
        (3, "must be a size, as 256KiB", source(max_body="1 elephant")),
        (3, "must be from 1 to 67108864 bytes", source(max_body="65MiB")),
        (3, "must be from 1 to 67108864 bytes", source(max_body="0")),
        (3, "must be a duration, as 30s", source(tolerance="soon")),
        (3, "must be from 1 to 86400 s", source(tolerance="2d")),
        (3, "option", source(options="{nope: x}")),
        (3, "must be a rate, as 100/s", source(rate_limit="5")),
        (3, "per second", source(rate_limit="0/s")),
        (3, "unknown kind 'paypal'", source(kind="paypal")),
        (3, "users is for kind amqp", source(users="[acme-shop]")),
        (3, "at least 1 item", source(kind="amqp", secrets=None, users="[]")),
        (3, "must be the name of a user of RabbitMQ", source(kind="amqp", secrets=None, users='[""]')),
        (3, "must be a list", source(kind="amqp", secrets=None, users="acme-shop")),
        (3, "needs option public_base", source(kind="twilio")),
        (3, "'soon' is neither a JSON pointer", source(time="soon")),
        (3, "the environment variable NOPE is not set", source(secrets='["env:NOPE"]')),
        (3, "the environment variable  is not set", source(secrets='["env:"]')),
        (3, "must not be empty", source(secrets='[""]')),
        (3, "cannot read the secret in", source(secrets='["file:nope"]')),
        (3, "holds something that is not printable text", source(secrets='["a\\tb"]')),
        (3, "needs url", endpoint(url=None)),
        (3, "must be an http:// or https:// URL", endpoint(url="ftp://x.example")),
        (3, "must be an http:// or https:// URL", endpoint(url='"https:///path"')),
        (3, "must be an http:// or https:// URL", endpoint(url='"http://x.example/' + "x" * 2048 + '"')),
        (3, "must not hold a user name or password", endpoint(url='"https://me:pass@x.example/"')),
        (3, "must be a plain URL", endpoint(url='"https://x.example/#part"')),
        (3, "must be a plain URL", endpoint(url='"https://x.example/a b"')),
        (3, "must be a plain URL", endpoint(url='"https://x.example/é"')),
        (3, "must be a plain URL", endpoint(url='"https://x.example:0/"')),
        (3, "Port", endpoint(url='"https://x.example:99999/"')),
        (3, "must be whsec_ and the base64 of 24 to 64", endpoint(secrets='["secret"]')),
        (3, "must be whsec_ and the base64 of 24 to 64", endpoint(secrets='["whsec_c2hvcnQ="]')),
        (3, "must be whsec_ and the base64 of 24 to 64", endpoint(secrets='["whsec_!"]')),
        (3, "at least 1 item", endpoint(secrets="[]")),
        (3, "unknown filter dialect 'exakt'", endpoint(filter="{exakt: {type: a}}")),
        (3, "filters see attributes, not the data", endpoint(filter="{data: {status: paid}}")),
        (3, "unknown filter dialect '$or'; known are: exact", endpoint(filter='{"$or": [{exact: {type: a}}]}')),
        (3, "exactly one of: exact, prefix", endpoint(filter="{source: [aws.ec2], detail-type: [x]}")),
        (3, "exact takes non-empty strings", endpoint(filter="{exact: {type: [a, b]}}")),
        (3, "must be a mapping", endpoint(filter="all")),
        (3, "'Type' can match nothing", endpoint(filter="{prefix: {Type: order.}}")),
        (3, "write type", endpoint(filter="{prefix: {Type: order.}}")),
        (3, "filters see attributes, not the data", endpoint(filter='{exact: {data.amount: "1"}}')),
        (3, "'order-id' can match nothing", endpoint(filter='{not: {any: [{exact: {order-id: "1"}}]}}')),
        (3, "must be a list", endpoint(retry="5s")),
        (3, "must hold at least one wait", endpoint(retry="[]")),
        (3, "must be from 0.001 to 604800 s", endpoint(retry="[0]")),
        (3, "must be from 0.001 to 604800 s", endpoint(retry="[8d]")),
        (3, "at most 50 items", endpoint(retry=str([1] * 51))),
        (3, "must be from 0.1 to 60 s", endpoint(timeout="2m")),
        (3, "must be from 1 to 1000 requests", endpoint(max_in_flight="0")),
        (3, "must be a whole number", endpoint(max_in_flight="many")),
        (3, "must be true or false", endpoint(ordered="sometimes")),
        (3, "must be a rate, as 100/s", endpoint(rate_limit="100")),
        (3, "must be a rate, as 100/s", endpoint(rate_limit="100/d")),
        (3, "must be a rate, as 100/s", endpoint(rate_limit="-1/s")),
        (3, "per second", endpoint(rate_limit="0/s")),
        (3, "must be a duration", endpoint(max_age="3 days")),
        (3, "must be from 1 to 31622400 s", endpoint(max_age="400d")),
        (3, "needs url, amqp or smtp, and one of them only", endpoint(amqp="{}")),
        (3, "needs url, amqp or smtp, and one of them only", endpoint(url=None)),
        (
            3,
            "unknown key 'exchnge'; did you mean exchange? known are: exchange, routing_key",
            endpoint(url=None, amqp="{exchnge: x}"),
        ),
        (
            3,
            "unknown key 'hots'; did you mean host? known are: to, from, host, security",
            endpoint(url=None, smtp=smtp(hots="x")),
        ),
        (3, "unknown key 'zzz'; known are: to, from, host", endpoint(url=None, smtp=smtp(zzz="x"))),
        (3, "unknown key 'zzz'; known are: tenant, name, url", endpoint(zzz="x")),
        (3, "must be the name of an exchange", endpoint(url=None, amqp='{exchange: ""}')),
        (3, "must be the name of an exchange", endpoint(url=None, amqp='{exchange: "a b"}')),
        (3, "must not be published to", endpoint(url=None, amqp="{exchange: waxseal.received}")),
        (3, "must not be published to", endpoint(url=None, amqp="{exchange: waxseal.in}")),
        (3, "must not be published to", endpoint(url=None, amqp="{exchange: amq.rabbitmq.trace}")),
        (3, "in braces only tenant, type, source, subject", endpoint(url=None, amqp='{routing_key: "{body}"}')),
        (3, "secrets is of no use to an endpoint with amqp", endpoint(url=None, amqp="{}", secrets=f"[{SECRET}]")),
        (3, "headers is of no use to an endpoint with smtp", endpoint(url=None, smtp=smtp(), headers="{a: b}")),
        (3, "needs to", endpoint(url=None, smtp=smtp(to=None))),
        (3, "needs from", endpoint(url=None, smtp=smtp(**{"from": None}))),
        (3, "at least 1 item", endpoint(url=None, smtp=smtp(to="[]"))),
        (3, "must be a mail address", endpoint(url=None, smtp=smtp(to="nobody"))),
        (3, "must be a mail address", endpoint(url=None, smtp=smtp(to='"a@b.example\\nBcc: c@d.example"'))),
        (3, "must be a mail address", endpoint(url=None, smtp=smtp(**{"from": '"a@b.example, c@d.example"'}))),
        (3, "must be a mail address", endpoint(url=None, smtp=smtp(to='"é@b.example"'))),
        (3, "must be the name or address of a mail server", endpoint(url=None, smtp=smtp(host='"mx example"'))),
        (3, "must be from 1 to 65535", endpoint(url=None, smtp=smtp(port="0"))),
        (3, "'starttls', 'tls' or 'none'", endpoint(url=None, smtp=smtp(security="ssl"))),
        (3, "needs username and password, or neither", endpoint(url=None, smtp=smtp(username="us"))),
        (3, "in the clear", endpoint(url=None, smtp=smtp(username="us", password="pw", security="none"))),
        (3, "line 1: ", endpoint(url=None, smtp=smtp(text='"{{ unclosed"'))),
        (3, "webhook-id is set by Waxseal", endpoint(headers="{Webhook-Id: x}")),
        (3, "ce-id is set by Waxseal", endpoint(headers="{ce-id: x}")),
        (3, "content-type is set by Waxseal", endpoint(headers="{Content-Type: x}")),
        (3, "host is set by Waxseal", endpoint(headers="{host: x}")),
        (3, "transfer-encoding is set by Waxseal", endpoint(headers="{Transfer-Encoding: chunked}")),
        (3, "is not the name of a header", endpoint(headers='{"a b": x}')),
        (3, "is not the name of a header", endpoint(headers='{"a:": x}')),
        (3, "holds something that is not printable", endpoint(headers='{a: "b\\r\\nc: d"}')),
        (3, "must be printable ASCII", endpoint(headers='{a: "é"}')),
        (3, "at most 20 items", endpoint(headers="{" + ", ".join(f"a{n}: x" for n in range(21)) + "}")),
        (3, "client_cert must be a certificate and its unencrypted private key", endpoint(client_cert="nonsense")),
        (3, "ca must be certificates in PEM", endpoint(ca="nonsense")),
        (3, "the environment variable NOPE is not set", endpoint(ca="env:NOPE")),
        (2, "'acme' is there twice", "tenants:\n  [{name: acme}, {name: acme}]\n"),
        (1, "must be a list", "tenants: acme\n"),
        (2, "must be a mapping, as {name: acme}", "tenants:\n  - acme\n"),
        (2, "unknown key 'nam'; did you mean name?", "tenants:\n  - {nam: acme}\n"),
        (1, "unknown key 'tenant'; did you mean tenants?", "tenant: [{name: acme}]\n"),
        (1, "must be a mapping with tenants", ""),
        (1, "must be a mapping with tenants", "# nothing yet\n"),
        (1, "must be a mapping with tenants", "- a\n"),
        (2, "indent with spaces, not with a tab", "tenants:\n\t- a\n"),
        (1, "opened with [ in this line", "tenants: [a\nsources: []\n"),
        (2, "opened with { in this line", "sources:\n  - {tenant: acme, name: shop kind: none}\n"),
        (2, "opened in this line is never closed", "tenants:\n- name: 'x\nsources: []\n"),
        (1, "put a value with a colon in quotes", "tenants: b: c\n"),
        (1, "begins with a special character", "tenants: @x\n"),
        (1, "begins with * in quotes", "tenants: *.example\n"),
        (1, "for a backslash in double quotes", 'tenants: "\\d"\n'),
        (3, "begins in the same column", "tenants:\n  - name: acme\n   kind: x\n"),
        (2, "put a colon and a space behind the key", "tenants: []\nsources\n"),
        (2, "write one document only", "tenants: []\n---\nsources: []\n"),
        (1, "behind a closing quote", "tenants: 'it's'\n"),
        (1, "remove it, or write it as an escape", "tenants: \x01\n"),
        (2, 'found duplicate key "tenants"', "tenants: []\ntenants: []\n"),
        (1, "nests more than 50 deep", "tenants: " + "[" * 60 + "]" * 60 + "\n"),
        (1, "*a stands within the value that it repeats", "tenants: &a [*a]\n"),
        (2, "*a stands within the value that it repeats", "tenants: &a\n  <<: *a\n"),
        (2, "<< takes a mapping", "tenants:\n  <<: [x]\n"),
        (7, "aliases and merge keys repeat", "".join(f"a{n}: &a{n} [{f'*a{n - 1},' * 9 * (n > 0)}]\n" for n in range(20))),
        (1, "the version in its %YAML line is not known", "%YAML 1.3\n---\ntenants: []\n"),
        (2, "remove the tag !!python/object/apply:os.system", "tenants:\n- !!python/object/apply:os.system [id]\n"),
        (2, "remove the tag !Ref", "tenants:\n- !Ref name\n"),
        (2, "must be text, not a list or a mapping", "tenants: []\n[a]: b\n"),
        (2, "must be text, not a list or a mapping", "tenants: []\n? {a: b}\n: c\n"),
        (2, "has a key that is not text", "tenants: []\n1: x\n"),
        (1, "the version in its %YAML line is not known", "---\na # b\n%YAML 9.2\n---\nc\n"),
        (3, "sources[0].extensions.a\\nb: ", source(extensions='{"a\\nb": /a}')),
        (3, "the environment variable A\\u2028B is not set", source(secrets='["env:A\\u2028B"]')),
        (2, 'found duplicate key "a\\nb"', 'tenants: [{\n"a\\nb": 1, "a\\nb": 2}]\n'),
        (2, "is not a int", "tenants:\n- {name: !!int }\n"),
        (2, "is not a timestamp", "tenants:\n- {name: 2001-13-41}\n"),
        (2, "is not a int", "tenants:\n- {name: 1" + "1" * 5000 + "}\n"),
        (2, "remove it, or write it as an escape", "tenants: []\nsources: \x01\n"),
        (2, "NUL cannot be stored", 'tenants: []\n"a\\0": 1\n'),
        (1, "NUL cannot be stored", 'tenants: [{name: "a\\0"}]\n'),
        (1, "lone surrogate", 'tenants: [{name: "a\\ud800"}]\n'),
    ],
)
def test_what_is_wrong_is_said_with_its_line(line, told, text, folder) -> None:
    found = faults(folder, text)

    assert [(line, True)] == [(fault.line, True) for fault in found if told in fault.told(Path())], found


def test_no_fault_tells_a_secret(folder) -> None:
    said = (
        source(secrets='["hunter2\\t"]')
        + "endpoints:\n  - {tenant: acme, name: e, url: 'http://u:hunter2@x', secrets: [hunter2]}\n"
    )
    with pytest.raises(BadConfig) as raised:
        read(folder, said + "  - {tenant: acme, name: f, url: 'http://x', secrets: [whsec_hunter2], secrets: [hunter2]}\n")
    assert "hunter2" not in str(raised.value)
    with pytest.raises(BadConfig) as raised:
        read(folder, said)
    assert 3 == len(raised.value.faults)
    assert "hunter2" not in str(raised.value)


def test_a_fault_in_a_filter_is_found_in_the_line_where_it_stands(folder) -> None:
    text = """\
tenants: [{name: acme}]
endpoints:
  - tenant: acme
    name: out
    url: https://x.example/
    filter:
      any:
        - prefix: {type: order.}
        - not:
            exact:
              Subject: x
"""
    assert [(11, "endpoints[0].filter.any[1].not.exact.Subject")] == [(each.line, each.where) for each in faults(folder, text)]


DOUBTFUL = """\
tenants: [{name: acme}, {name: other}]
sources:
  - {tenant: acme, name: shop, kind: none, extensions: {region: /r}}
  - {tenant: other, name: shop, kind: none, extensions: {colour: /c}}
endpoints:
  - tenant: acme
    name: out
    url: http://10.1.2.3/hook
    filter:
      all: [{exact: {regoin: eu}}, {exact: {region: eu}}, {prefix: {origin: x}},
            {suffix: {colour: d}}]
  - {tenant: acme, name: here, url: "http://localhost:8000"}
  - {tenant: acme, name: far, url: "https://x.example/"}
  - {tenant: acme, name: mail, smtp: {to: a@b.example, from: c@d.example, host: 192.168.0.7, security: none}}
mailboxes:
  - {tenant: acme, name: box, kind: imap, host: 169.254.169.254, username: a, password: b}
"""


def told(folder: Path, allowed: str, *, by_proxy: bool = False) -> list[tuple[int, str]]:
    (folder / "waxseal.yaml").write_text(DOUBTFUL)
    lines = read_config(folder / "waxseal.yaml", {}).warnings(networks(allowed), by_proxy=by_proxy)
    return [(int(line.split(":")[1]), line.split(": ", 1)[1]) for line in lines]


def test_what_may_be_a_mistake_is_told_with_its_line_and_is_no_fault(folder) -> None:
    never = "no source of acme sets the attribute"
    nothing = "unless WAXSEAL_ALLOW_NETWORKS has its network"

    assert [
        (8, f"endpoints[0].url: nothing is sent to 10.1.2.3 (private) {nothing}"),
        (
            10,
            f"endpoints[0].filter.all[0].exact.regoin: {never} 'regoin': only events that bring it match; did you mean region?",
        ),
        (11, f"endpoints[0].filter.all[3].suffix.colour: {never} 'colour': only events that bring it match"),
        (12, f"endpoints[1].url: nothing is sent to localhost (loopback) {nothing}"),
        (14, f"endpoints[3].smtp.host: nothing is sent to 192.168.0.7 (private) {nothing}"),
        (16, f"mailboxes[0].host: nothing is sent to 169.254.169.254 (cloud metadata) {nothing}"),
    ] == told(folder, "")
    assert [10, 11, 16] == [line for line, _ in told(folder, "10.0.0.0/8,127.0.0.0/8,192.168.0.0/16,169.254.0.0/16")]
    assert [10, 11, 14, 16] == [line for line, _ in told(folder, "", by_proxy=True)]


def test_a_filter_on_a_source_that_is_not_there_is_told(folder) -> None:
    """A sender's own source, often a URL, is its `origin`: only a configured source is proved."""
    text = """\
tenants: [{name: acme}, {name: other}]
sources: [{tenant: acme, name: shop, kind: none}, {tenant: other, name: till, kind: none}]
endpoints:
  - {tenant: acme, name: a, url: "https://x.example/", filter: {prefix: {source: "https://github.com/"}}}
  - {tenant: acme, name: b, url: "https://x.example/", filter: {not: {exact: {source: till}}}}
  - {tenant: acme, name: c, url: "https://x.example/", filter: {any: [{exact: {source: box}}, {suffix: {source: op}}]}}
mailboxes: [{tenant: acme, name: box, kind: imap, host: mx.example, username: a, password: b}]
"""
    (folder / "waxseal.yaml").write_text(text)
    lines = [line.split(":", 1)[1] for line in read_config(folder / "waxseal.yaml", {}).warnings((), by_proxy=False)]

    sees = "what senders call themselves is the attribute origin"
    assert [
        f"4: endpoints[0].filter.prefix.source: no source of acme in this file is called 'https://github.com/': {sees}",
        f"5: endpoints[1].filter.not.exact.source: no source of acme in this file is called 'till': {sees}",
    ] == lines


def test_a_secret_never_shows_in_a_repr(folder) -> None:
    assert SECRET not in repr(read(folder, GOOD))


def test_a_merge_key_brings_values_in_and_faults_point_at_the_mapping(folder) -> None:
    text = """\
tenants: [{name: acme}]
endpoints:
  - &base {tenant: acme, name: a, url: 'http://x', timeout: 99}
  - <<: *base
    name: b
"""
    found = [(each.line, each.where) for each in faults(folder, text)]

    assert [(3, "endpoints[0].timeout"), (4, "endpoints[1].timeout")] == found


def test_a_file_that_cannot_be_read_is_said_to_be(folder) -> None:
    with pytest.raises(Misconfigured, match="cannot read"):
        read_config(folder / "absent.yaml", {})


@pytest.mark.parametrize(
    ("raw", "told"),
    [
        (b"tenants:\n- {name: \xe9}\n", "line 2 is not in UTF-8: save the file in that encoding"),
        ("tenants: []\n".encode("utf-32"), "it is not in UTF-8: save it in that encoding"),
        ("tenants: []\n".encode("utf-16-le"), "it is not in UTF-8: save it in that encoding"),
        (b"#" * (16 * 1024 * 1024 + 1), "it has more than 16777216 bytes"),
    ],
    ids=["latin-1", "utf-32", "utf-16 without a mark", "large"],
)
def test_a_file_in_another_encoding_or_too_large_is_said_to_be(folder, raw, told) -> None:
    (folder / "other").write_bytes(raw)

    with pytest.raises(Misconfigured, match=f"^cannot read .*other: {told}$"):
        read_config(folder / "other", {})


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_a_file_of_another_system_is_read(folder, encoding, end) -> None:
    """As editors on Windows write it: with a byte order mark, other line ends, or in UTF-16."""
    text = "# ü\ntenants: [{name: no}, {name: on}]\nsources:\n- tenant: no\n  name: off\n  kind: yes\n"
    (folder / "waxseal.yaml").write_bytes(text.replace("\n", end).encode(encoding))

    with pytest.raises(BadConfig) as raised:
        read_config(folder / "waxseal.yaml", {})

    assert [(6, "sources[0].kind")] == [(each.line, each.where) for each in raised.value.faults]


def test_comments_between_a_key_and_its_value_are_skipped(folder) -> None:
    """As in case P94K of yaml-test-suite, on which the parser's mode that keeps comments fails."""
    text = "tenants:\n- name:    # a\n           # b\n    acme\n\n\n"

    assert ["acme"] == [tenant.name for tenant in read(folder, text).tenants]


@pytest.mark.parametrize(
    ("expected", "text"), [(0.5, "500ms"), (5, "5s"), (90, "1.5m"), (7200, "2h"), (86400, "1d"), (7, 7), (0.25, 0.25)]
)
def test_durations(expected, text) -> None:
    assert expected == seconds(text)


@pytest.mark.parametrize(
    "text", ["", "5", "s", "-5s", "5 s", "5S", "1e3s", "٣s", True, None, -1, float("nan"), float("inf"), []]
)
def test_what_is_no_duration(text) -> None:
    with pytest.raises(ValueError, match="duration"):
        seconds(text)


@pytest.mark.parametrize(("expected", "text"), [(100, "100/s"), (0.5, "30/m"), (1 / 3600, "1/h"), (2.5, "2.5/s")])
def test_rates(expected, text) -> None:
    assert expected == per_second(text)


@pytest.mark.parametrize("text", ["", "1", "/s", "1/", "1 / s", "1/S", "1/d", "-1/s", "1e3/s", "٣/s", True, None, 1, 1.0])
def test_what_is_no_rate(text) -> None:
    with pytest.raises(ValueError, match="rate"):
        per_second(text)


@pytest.mark.parametrize(
    ("expected", "text"), [(1048576, "1MiB"), (262144, "256KiB"), (1000, "1KB"), (2_000_000, "2 MB"), (7, "7B"), (9, 9)]
)
def test_sizes(expected, text) -> None:
    assert expected == size(text)


@pytest.mark.parametrize("text", ["", "1", "1.5MiB", "-1B", "1mib", True, None, -1, 1.0])
def test_what_is_no_size(text) -> None:
    with pytest.raises(ValueError, match="size"):
        size(text)
