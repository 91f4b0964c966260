"""Samples of every kind, and the message of `waxseal send`."""

import base64
import json
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from ops.admin.sample_message import Own, Trial, address, by_hand, described, message
from ops.cli import main
from ops.errors import OpsError
from ops.settings import Settings
from pipeline.receive import receive
from pipeline.sources import KINDS, PATH, Unsignable
from schemas.source import Source

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
URL = "https://hooks.acme.example/in/acme/shop"
WHSEC = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
WHSK = "whsk_6Xb/dCcHpPea21PS1N9VY/NZW723CEc77N4rJCubMbfVKIDij2HKpMKkioLlX0dRqSKJp4AJ6p9lMicMFs6Kvg=="
WHPK = "whpk_1SiA4o9hyqTCpIqC5V9HUakiiaeACeqfZTInDBbOir4="

WAYS = [
    Source("acme", "shop", "standard-webhooks", (WHSEC, "whsec_" + "B" * 32)),
    Source("acme", "shop", "github", ("s3cret-of-ours", "older")),
    Source("acme", "shop", "stripe", ("s3cret-of-ours", "older")),
    Source("acme", "shop", "slack", ("s3cret-of-ours",)),
    Source("acme", "shop", "shopify", ("s3cret-of-ours",)),
    Source("acme", "shop", "twilio", ("s3cret-of-ours",), options={"public_base": "https://hooks.acme.example"}),
    Source("acme", "shop", "twilio", ("s3cret-of-ours",), options={"public_url": URL}),
    Source("acme", "shop", "hmac", ("s3cret-of-ours",)),
    Source(
        *("acme", "shop", "hmac", ("s3cret-of-ours",)),
        options={"header": "X-Mine", "algorithm": "sha512", "encoding": "base64", "prefix": "v9=", "timestamp_header": "X-At"},
    ),
    Source("acme", "shop", "token", ("s3cret-of-ours",)),
    Source("acme", "shop", "token", ("s\u00e9cret-of-\u20ac",), options={"header": "X-Api-Key"}),
    Source("acme", "shop", "none"),
]


def verify(source: Source, trial: Trial) -> None:
    path = trial.url.removeprefix("https://hooks.acme.example")
    KINDS[source.kind].verify(source, {**trial.headers, PATH: path}, trial.body, NOW)


def test_there_is_a_sample_of_every_kind() -> None:
    assert set(KINDS) == {way.kind for way in WAYS}


@pytest.mark.parametrize("source", WAYS, ids=lambda one: f"{one.kind}-{len(one.options)}")
@pytest.mark.parametrize("own", [Own(), Own(body=b"{}"), Own(body=b"\xff\x00"), Own(body=b"a=b", content_type="text/plain")])
def test_what_is_sent_is_verified_and_received(source: Source, own: Own) -> None:
    trial = message(source, URL, own, NOW)
    verify(source, trial)
    ((attributes, body),) = receive(source, trial.headers, trial.body, NOW, lambda: "fresh")

    assert (own.body or trial.body, own.content_type or trial.headers["content-type"]) == (body, attributes["datacontenttype"])


@pytest.mark.parametrize("source", WAYS, ids=lambda one: f"{one.kind}-{len(one.options)}")
def test_a_sample_has_the_id_it_is_given_and_says_what_it_is(source: Source) -> None:
    first, again, other = (message(source, URL, Own(id=name), NOW) for name in ("seven", "seven", "eight"))
    events = [receive(source, each.headers, each.body, NOW, lambda: "fresh")[0][0] for each in (first, again, other)]

    assert events[0]["id"] == events[1]["id"] != events[2]["id"]
    assert "seven" in events[0]["id"]
    assert all(event["type"] != "shop.received" and event["time"].startswith("2026-01-02T03:04:05") for event in events)


@pytest.mark.parametrize("source", WAYS, ids=lambda one: f"{one.kind}-{len(one.options)}")
def test_a_sample_has_what_the_sources_rules_ask_for(source: Source) -> None:
    form = source.kind == "twilio"
    ruled = replace(
        source, id="form:No" if form else "/deep/er/no", type="header:X-Kind", subject="form:Who" if form else "/a~1b"
    )

    trial = message(ruled, URL, Own(id="seven"), NOW)
    ((event, _),) = receive(ruled, trial.headers, trial.body, NOW, lambda: "fresh")

    assert ("seven", "sample.type", "sample.subject") == (event["id"], event["type"], event["subject"])


@pytest.mark.parametrize("source", WAYS, ids=lambda one: f"{one.kind}-{len(one.options)}")
def test_a_request_is_shown_as_it_would_be_sent_without_the_secret(source: Source) -> None:
    trial = message(source, URL + "?a=b", Own(), NOW)
    shown = described(trial)

    assert shown.startswith("POST /in/acme/shop?a=b")
    assert f"content-length: {len(trial.body)}\n\n{trial.body.decode()}" in shown
    for name, value in trial.headers.items():
        assert f"\n{name}: " in shown
        assert source.kind == "token" or f"\n{name}: {value}" in shown
    for secret in source.secrets:
        assert secret not in shown
        assert secret.encode().decode("latin-1") not in shown
        assert secret.removeprefix("whsec_") not in shown


def test_a_body_that_is_no_text_is_not_shown() -> None:
    assert "(2 bytes that are not text)" in described(message(WAYS[-1], URL, Own(body=b"\xff\x00"), NOW))


@pytest.mark.parametrize("private", [WHSK, "whsk_" + base64.b64encode(base64.b64decode(WHSK[5:])[:32]).decode()])
def test_standard_webhooks_are_signed_with_a_private_key_too(private: str) -> None:
    trial = message(by_hand("standard-webhooks", (private,), {}, URL), URL, Own(), NOW)

    verify(Source("acme", "shop", "standard-webhooks", (WHPK,)), trial)
    assert trial.headers["webhook-signature"].startswith("v1a,")
    assert private not in described(trial)


def test_the_published_private_key_makes_the_published_signature() -> None:
    source = Source("acme", "shop", "standard-webhooks", (WHSK,))
    headers = {"webhook-id": "msg_p5jXN8AQM9LWM0D4loKWxJek"}

    signed = KINDS["standard-webhooks"].sign(source, headers, b'{"test": 2432232314}', datetime.fromtimestamp(1614265330, UTC))

    assert (
        "v1a,hnO3f9T8Ytu9HwrXslvumlUpqtNVqkhqw/enGzPCXe5BdqzCInXqYXFymVJaA7AZdpXwVLPo3mNl8EM+m7TBAg=="
        == signed["webhook-signature"]
    )


@pytest.mark.parametrize(
    ("source", "told"),
    [
        (Source("acme", "shop", "standard-webhooks", (WHPK,)), "the private one"),
        (Source("acme", "shop", "standard-webhooks", ("whsk_AAAA",)), "32 or 64 bytes"),
        (Source("acme", "shop", "standard-webhooks"), "the private one"),
        (Source("acme", "shop", "stripe"), "give one"),
    ],
)
def test_what_cannot_be_signed_is_said(source: Source, told: str) -> None:
    with pytest.raises(Unsignable, match=told):
        KINDS[source.kind].sign(source, {"webhook-id": "x"}, b"", NOW)
    with pytest.raises(OpsError, match=told):
        message(source, URL, Own(), NOW)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ([], "name TENANT and SOURCE, or give --url and --kind"),
        (["acme"], "name TENANT and SOURCE"),
        (["--kind", "stripe"], "name TENANT and SOURCE"),
        (["acme", "shop", "--kind", "stripe", "--url", URL], "name TENANT and SOURCE"),
        (["--kind", "paypal", "--url", URL], "of kind 'paypal'; known are standard-webhooks"),
        (["--kind", "amqp", "--url", URL], "of kind 'amqp'; known are"),
        (["--kind", "stripe", "--url", URL], "needs at least one secret"),
        (["--kind", "stripe", "--url", URL, "--secret", "env:NOPE_NOT_SET"], "NOPE_NOT_SET is not set"),
        (["--kind", "hmac", "--url", URL, "--secret", "x", "--option", "header"], "NAME=VALUE"),
        (["--kind", "hmac", "--url", URL, "--secret", "x", "--option", "algorithm=md5"], "option algorithm"),
        (["--kind", "none", "--url", "ftp://x"], "is not an http:// or https:// URL"),
        (["--kind", "none", "--url", "http://127.0.0.1:1/"], "gives no answer"),
    ],
)
def test_what_is_wrong_is_one_line_and_exit_code_2(arguments: list[str], told: str) -> None:
    ended = CliRunner().invoke(main, ["send", *arguments])

    assert (2, 1) == (ended.exit_code, ended.stderr.count("\n")), ended.stderr
    assert told in ended.stderr


def test_a_dry_run_sends_nothing_and_shows_a_file_as_it_is() -> None:
    arguments = ["--kind", "token", "--secret", "hunter2", "--url", "http://127.0.0.1:1/in/a/b", "--dry-run", "--body", "-"]
    ended = CliRunner().invoke(main, ["send", *arguments], input='{"mine": 1.10}')

    assert 0 == ended.exit_code
    assert 'content-type: application/json\nauthorization: Bearer ***\ncontent-length: 14\n\n{"mine": 1.10}\n' in ended.stdout
    assert "hunter2" not in ended.output


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({}, "http://127.0.0.1:8420"),
        ({"database_url": "postgresql://stack/"}, "http://127.0.0.1:9999"),
        ({"database_url": "postgresql://other/"}, "http://127.0.0.1:8420"),
        ({"database_url": "postgresql://stack/", "ingress_port": 1234}, "http://127.0.0.1:1234"),
        ({"ingress_host": "0.0.0.0"}, "http://127.0.0.1:8420"),
        ({"ingress_host": "::1"}, "http://[::1]:8420"),
    ],
)
def test_a_message_goes_to_the_ingress_that_belongs_to_the_database(
    variables: dict[str, Any], expected: str, tmp_path: Path
) -> None:
    (tmp_path / "stack.json").write_text('{"database_url": "postgresql://stack/", "ingress_url": "http://127.0.0.1:9999/"}')

    assert f"{expected}/in/acme/shop" == address(tmp_path, Settings(**variables), WAYS[-1])


def test_samples_are_json_or_a_form() -> None:
    for kind in KINDS.values():
        headers, content = kind.sample("x", NOW)
        assert headers["content-type"].startswith(("application/json", "application/x-www-form-urlencoded"))
        assert json.dumps(content)
