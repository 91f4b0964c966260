"""Applying a configuration file: all or nothing, idempotent, and never showing a secret."""

import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime

import psycopg
import pytest

from ops.config import apply as apply_module
from ops.config.apply import Difference, apply_file
from ops.config.read_file import BadConfig
from ops.errors import OpsError
from ops.runtime.db import make_engine, transaction
from ops.settings import Settings
from pipeline.append import append
from pipeline.dedupe import chain_key, fingerprint
from pipeline.store.config import catalog
from schemas.catalog import Catalog
from schemas.config.amqp_target import AmqpTarget
from schemas.config.smtp_target import SmtpTarget
from schemas.event import Event
from support.net.tls import Authority
from support.waiting import wait_for

ONE = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
TWO = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD"

FILE = f"""\
tenants: [{{name: acme}}, {{name: other}}]
sources:
  - tenant: acme
    name: shop
    kind: hmac
    secrets: ["first", "second"]
    id: header:X-Id
    type: /type
    subject: /order/id
    extensions: {{region: header:X-Region}}
    max_body: 1KiB
    tolerance: 1m
    options: {{header: X-Sig, encoding: base64}}
  - {{tenant: other, name: orders, kind: amqp}}
endpoints:
  - tenant: acme
    name: billing
    url: https://billing.example/hooks
    secrets: ["{ONE}", "{TWO}"]
    filter: {{prefix: {{type: "order."}}}}
    retry: [1s, 2m]
    timeout: 5s
    max_in_flight: 3
    ordered: false
  - {{tenant: acme, name: plain, url: "http://127.0.0.1:9/"}}
"""


def stored(database) -> Catalog:
    engine = make_engine(database.url, pool_size=1)
    with transaction(engine) as conn:
        found = catalog.load(conn, database.vault.decrypt)
    engine.dispose()
    return found


def actions(difference: Difference) -> dict[str, str]:
    return {change.title: change.action for change in difference.changes}


def record(database, tenant: str) -> None:
    """Puts one entry into the tenant's ledger."""
    key = stored(database).tenants[tenant]
    names = {"id": "e", "source": "shop", "type": "t", "subject": "s", "specversion": "1.0", "datacontenttype": "text/plain"}
    attributes = {**names, "time": "2026-01-01T00:00:00Z"}
    event = Event(tenant, attributes, b"", fingerprint(key, "shop", "e"), chain_key(key, "s"))
    engine = make_engine(database.url, pool_size=1)
    with transaction(engine) as conn:
        append(conn, [event], {}, datetime.now(UTC))
    engine.dispose()


def test_what_may_be_a_mistake_is_told_on_stderr_and_applied(apply, database, cli, tmp_path) -> None:
    said = "endpoints: [{tenant: acme, name: out, url: 'http://10.1.2.3/', secrets: ['" + ONE + "']}]\n"
    apply("tenants: [{name: acme}]\n" + said)

    applied = cli.owner.run("apply", tmp_path / "waxseal.yaml")

    assert (0, "2 unchanged\n") == (applied.exit_code, applied.stdout)
    assert applied.stderr.startswith(f"Warning: {tmp_path / 'waxseal.yaml'}:2: endpoints[0].url: nothing is sent to 10.1.2.3")


def test_the_users_of_an_amqp_source_are_stored_compared_and_taken_away_again(apply, database) -> None:
    bound = FILE.replace("kind: amqp}", "kind: amqp, users: [other-shop]}")
    apply()

    assert ["users: [] -> ['other-shop']"] == [each for change in apply(bound, dry_run=True).changed for each in change.details]
    assert () == stored(database).sources["other", "orders"].users
    apply(bound)
    assert ("other-shop",) == stored(database).sources["other", "orders"].users
    assert [] == apply(bound).changed
    apply()
    assert () == stored(database).sources["other", "orders"].users


def test_what_the_file_says_is_what_processes_read(apply, database) -> None:
    apply()

    found = stored(database)
    source, endpoint = found.sources["acme", "shop"], next(e for e in found.endpoints.values() if e.name == "billing")
    assert {"acme", "other"} == set(found.tenants)
    assert {32} == {len(key) for key in found.tenants.values()}
    assert ("hmac", ("first", "second"), "header:X-Id", "/type", "/order/id") == (
        source.kind,
        source.secrets,
        source.id,
        source.type,
        source.subject,
    )
    assert ({"region": "header:X-Region"}, 1024, 60) == (source.extensions, source.max_body, source.tolerance)
    assert {"header": "X-Sig", "encoding": "base64"} == source.options
    assert ("https://billing.example/hooks", (ONE, TWO), {"prefix": {"type": "order."}}) == (
        endpoint.url,
        endpoint.secrets,
        endpoint.filter,
    )
    assert ((1.0, 120.0), 5.0, 3, "active") == (endpoint.retry, endpoint.timeout, endpoint.max_in_flight, endpoint.state)


def test_the_same_file_again_changes_nothing_and_wakes_nobody(apply, database) -> None:
    first = apply()
    rows = database.rows("SELECT secrets FROM source UNION ALL SELECT secrets FROM endpoint")
    version = stored(database).version

    second = apply()

    assert {"created"} == set(actions(first).values())
    assert {"unchanged"} == set(actions(second).values())
    assert not second.changed
    assert version == stored(database).version
    assert rows == database.rows("SELECT secrets FROM source UNION ALL SELECT secrets FROM endpoint")


def test_only_what_is_different_is_written_and_shown(apply, database) -> None:
    apply()
    text = FILE.replace("tolerance: 1m", "tolerance: 2m").replace(TWO, ONE.replace("Mf", "Nf")).replace("[1s, 2m]", "[1s, 3m]")

    difference = apply(text)

    assert [
        ("acme/shop", ("tolerance: 60 -> 120",)),
        ("acme/billing", ("secrets changed", "retry: [1.0, 120.0] -> [1.0, 180.0]")),
    ] == [(change.title, change.details) for change in difference.changed]
    assert "whsec_" not in repr(difference)
    assert "first" not in repr(difference)


def test_a_setting_that_is_left_out_goes_back_to_its_default(apply, database) -> None:
    apply()
    apply(
        FILE.replace("    tolerance: 1m\n", "")
        .replace("    timeout: 5s\n", "")
        .replace('    filter: {prefix: {type: "order."}}\n', "")
    )

    found = stored(database)
    assert 300 == found.sources["acme", "shop"].tolerance
    assert [(15.0, None), (15.0, None)] == [(each.timeout, each.filter) for each in found.endpoints.values()]


def test_an_endpoint_without_secrets_gets_one_that_is_told_once_and_kept(apply, database) -> None:
    first, second = apply(), apply()

    assert ["acme/plain"] == list(first.generated)
    assert {} == second.generated
    plain = next(each for each in stored(database).endpoints.values() if each.name == "plain")
    assert (first.generated["acme/plain"],) == plain.secrets
    assert plain.secrets[0].startswith("whsec_")


def test_secrets_that_were_given_once_are_kept_when_the_file_no_longer_names_them(apply, database) -> None:
    apply()
    difference = apply(FILE.replace(f'    secrets: ["{ONE}", "{TWO}"]\n', ""))

    assert "unchanged" == actions(difference)["acme/billing"]
    assert {(ONE, TWO)} == {each.secrets for each in stored(database).endpoints.values() if each.name == "billing"}


def test_nothing_secret_is_stored_in_the_clear(apply, database) -> None:
    apply()

    (dump,) = database.rows(
        "SELECT string_agg(t::text, ' ') FROM (SELECT source::text FROM source UNION ALL SELECT endpoint::text FROM endpoint"
        " UNION ALL SELECT tenant::text FROM tenant) AS t"
    )[0]
    keys = [key.hex() for key in stored(database).tenants.values()]
    for secret in (ONE, TWO, "first", "second", *keys):
        assert secret not in dump
        assert secret.encode().hex() not in dump


def test_a_dry_run_shows_the_same_and_writes_nothing(apply, database) -> None:
    dry = apply(dry_run=True)
    assert [(0, 0, 0)] == database.rows(
        "SELECT (SELECT count(*) FROM tenant), (SELECT count(*) FROM source), (SELECT count(*) FROM endpoint)"
    )
    assert {} == dry.generated

    assert actions(dry) == actions(apply())


def test_a_file_with_any_fault_changes_nothing(apply, database) -> None:
    with pytest.raises(BadConfig):
        apply(FILE.replace("max_in_flight: 3", "max_in_flight: 0"))

    assert [(0,)] == database.rows("SELECT count(*) FROM tenant")


def test_a_configuration_may_come_from_standard_input(database, cli, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "token").write_text("let-me-in")
    text = "tenants: [{name: acme}]\nsources:\n  - {tenant: acme, name: shop, kind: token, secrets: [file:token]}\n"
    applied = cli.owner.run("apply", "-", input=text)
    broken = cli.owner.run("apply", "-", input="tenants: [{name: acme}]\nsuorces: []\n")

    assert (0, "2 created") == (applied.exit_code, applied.stdout.splitlines()[-1])
    assert [("shop",)] == database.rows("SELECT name FROM source")
    assert 2 == broken.exit_code
    assert "standard input:2: " in broken.stderr


def test_what_the_file_does_not_name_stays_unless_pruned(apply, database) -> None:
    apply()
    short = "tenants: [{name: acme}]\n"

    assert ["acme"] == list(actions(apply(short)))
    assert 2 == len(stored(database).sources)

    pruned = apply(short, prune=True)
    found = stored(database)
    removed = {"acme/shop", "other/orders", "acme/billing", "acme/plain"}
    assert removed == {title for title, action in actions(pruned).items() if action == "removed"}
    assert {} == found.sources
    assert {"removed"} == {each.state for each in found.endpoints.values()}
    assert [] == list(found.subscribers("acme"))
    assert {"unchanged"} == set(actions(apply(short)).values())


def test_a_tenant_goes_when_its_sources_have_gone_before_and_nothing_is_recorded(apply, database) -> None:
    apply()
    short = "tenants: [{name: acme}]\n"

    assert "kept" == actions(apply(short, prune=True))["other"]  # a message may still be on its way through its source
    assert "removed" == actions(apply(short, prune=True))["other"]
    assert {"acme"} == set(stored(database).tenants)


@pytest.mark.parametrize("act", ["open-breaker", "disable"])
def test_a_tenant_goes_with_what_is_noted_about_its_endpoints(apply, database, cli, act) -> None:
    apply(FILE + "  - {tenant: other, name: theirs, url: https://theirs.example/}\n")
    assert 0 == cli.owner.run("endpoint", act, "other", "theirs").exit_code
    short = "tenants: [{name: acme}]\n"

    apply(short, prune=True)
    assert "removed" == actions(apply(short, prune=True))["other"]
    assert {"acme"} == set(stored(database).tenants)


def test_a_tenant_with_entries_is_never_deleted(apply, database) -> None:
    apply()
    record(database, "other")
    key = stored(database).tenants["other"]
    for _ in range(2):
        kept = [change for change in apply("tenants: [{name: acme}]\n", prune=True).changes if change.action == "kept"]

    assert ["other"] == [change.title for change in kept]
    assert "ledger" in kept[0].details[0]
    assert key == stored(database).tenants["other"]


def test_an_endpoint_that_comes_back_is_the_same_one(apply, database) -> None:
    first = apply()
    before = {each.name: each.id for each in stored(database).endpoints.values()}
    apply("tenants: [{name: acme}]\n", prune=True)

    again = apply()

    found = stored(database)
    assert before == {each.name: each.id for each in found.endpoints.values()}
    assert {"active"} == {each.state for each in found.endpoints.values()}
    assert {} == again.generated
    assert (first.generated["acme/plain"],) == next(each.secrets for each in found.endpoints.values() if each.name == "plain")


def disable(database) -> None:
    """Disables an endpoint as an answer of 410 does, with one paused delivery."""
    with database.connect() as conn:
        conn.execute("UPDATE endpoint SET state = 'disabled', reason = 'it answered 410' WHERE name = 'billing'")
        conn.execute(
            "INSERT INTO delivery (endpoint_id, tenant, chain_id, seq, size, state, created_at)"
            " SELECT id, 'acme', gen_random_uuid(), 0, 0, 'paused', now() FROM endpoint WHERE name = 'billing'"
        )


def test_a_disabled_endpoint_stays_disabled_until_somebody_says_otherwise(apply, database) -> None:
    apply()
    disable(database)

    assert "unchanged" == actions(apply())["acme/billing"]
    assert "changed" == actions(apply(FILE.replace("timeout: 5s", "timeout: 6s")))["acme/billing"]
    assert [("disabled", "it answered 410")] == database.rows("SELECT state, reason FROM endpoint WHERE name = 'billing'")
    assert [("paused",)] == database.rows("SELECT state FROM delivery")


@pytest.mark.parametrize("way", ["by being asked to", "by a new address"])
def test_an_endpoint_that_is_enabled_again_gets_what_was_kept_for_it(apply, database, way) -> None:
    apply()
    disable(database)

    text = FILE if way == "by being asked to" else FILE.replace("billing.example", "new.example")
    difference = apply(text, enable=way == "by being asked to")

    assert "active again" in next(change for change in difference.changed if change.title == "acme/billing").details
    assert [("active", None)] == database.rows("SELECT state, reason FROM endpoint WHERE name = 'billing'")
    assert [("pending", True)] == database.rows("SELECT state, next_attempt_at <= now() FROM delivery")


SHORT = "tenants: [{name: acme}, {name: other}]\n"
PLANNED = (("pending", 2), ("paused", 3), ("leased", 1))
OWE = """
    INSERT INTO delivery (endpoint_id, tenant, chain_id, seq, size, state, created_at, next_attempt_at, lease, lease_until)
    SELECT id, 'acme', gen_random_uuid(), 0, 0, %(state)s, now(), CASE WHEN %(state)s = 'pending' THEN now() END,
           CASE WHEN %(state)s = 'leased' THEN gen_random_uuid() END, CASE WHEN %(state)s = 'leased' THEN now() END
    FROM endpoint, generate_series(1, %(number)s) WHERE name = 'billing'"""
STATES = "SELECT state, coalesce(error, ''), count(*) FROM delivery GROUP BY 1, 2 ORDER BY 1"
REMOVALS = "SELECT who, filter ->> 'endpoint', count, phase FROM audit WHERE act = 'endpoint remove' ORDER BY id"


def plan_for_billing(database, *planned: tuple[str, int]) -> None:
    with database.connect() as conn:
        for state, number in planned:
            conn.execute(OWE, {"state": state, "number": number})


def test_nothing_is_given_up_with_an_endpoint_until_somebody_has_agreed_to_it(apply, database, cli, tmp_path) -> None:
    apply()
    plan_for_billing(database, *PLANNED)
    (tmp_path / "waxseal.yaml").write_text(SHORT)
    before = database.rows("SELECT * FROM delivery ORDER BY id")

    dry = cli.owner.run("apply", tmp_path / "waxseal.yaml", "--prune", "--dry-run")
    assert 0 == dry.exit_code
    assert next(line for line in dry.stdout.splitlines() if "billing" in line).endswith("gives up 6 deliveries")
    assert "6 deliveries given up; nothing was written" in dry.stdout

    refused = cli.owner.run("apply", tmp_path / "waxseal.yaml", "--prune")
    assert 2 == refused.exit_code
    assert "to give up 6 deliveries that removed endpoints have not received, add --yes" in refused.stderr
    assert before == database.rows("SELECT * FROM delivery ORDER BY id")
    assert {"active"} == {each.state for each in stored(database).endpoints.values()}

    done = cli.owner.run("apply", tmp_path / "waxseal.yaml", "--prune", "--yes", "--by", "ada")
    assert 0 == done.exit_code
    assert "6 deliveries given up" in done.stdout
    assert [("discarded", "the endpoint was removed", 5), ("leased", "", 1)] == database.rows(STATES)
    assert [("ada", "billing", 5, "done"), ("ada", "plain", 0, "done")] == database.rows(REMOVALS)


def test_an_endpoint_that_comes_back_gets_nothing_that_was_planned_for_the_one_before(apply, database) -> None:
    apply()
    apply(SHORT, prune=True)
    plan_for_billing(database, *PLANNED)  # by a process that had the old catalog, or by an earlier version

    apply()
    plan_for_billing(database, ("pending", 1))

    assert [("discarded", "the endpoint was removed", 6), ("pending", "", 1)] == database.rows(STATES)
    assert ("waxseal apply", "billing", 6, "done") == database.rows(REMOVALS)[-1]


def test_waiting_for_a_worker_that_holds_deliveries_it_keeps_nobody_waiting_and_gives_up(apply, database, monkeypatch) -> None:
    monkeypatch.setattr(apply_module, "WAIT", 0.5)
    monkeypatch.setattr(apply_module, "PATIENCE", 0.8)
    apply(FILE)
    apply(SHORT, prune=True)
    plan_for_billing(database, ("leased", 1))
    database.run("UPDATE delivery SET endpoint_id = endpoint.id FROM endpoint WHERE name = 'plain'")  # the file's last
    with psycopg.connect(database.url) as frozen, ThreadPoolExecutor(1) as threads:
        frozen.execute("SELECT FROM delivery FOR UPDATE")
        applying = threads.submit(apply)
        wait_for(lambda: database.rows("SELECT FROM pg_stat_activity WHERE wait_event = 'transactionid'"))
        with psycopg.connect(database.url, options="-c lock_timeout=100ms") as worker:
            worker.execute("UPDATE endpoint SET state = 'disabled', reason = 'it answered 410' WHERE name = 'billing'")
            worker.rollback()

        with pytest.raises(OpsError, match=r"^nothing was changed: another session"):
            applying.result(30)
    assert [("leased", "", 1)] == database.rows(STATES)

    apply()
    assert [("discarded", "the endpoint was removed", 1)] == database.rows(STATES)


def transports(**more: str) -> str:
    """A file with an endpoint of every transport, each with all of its keys."""
    said = {
        "password": "s3cret",
        "token": "Bearer hidden",
        "rate": "30/m",
        "host": "mx.example",
        "exchange": "their.events",
        **more,
    }
    return f"""\
tenants: [{{name: acme}}]
endpoints:
  - tenant: acme
    name: web
    url: https://billing.example/
    headers: {{Authorization: {said["token"]}}}
    ca: env:CA
    client_cert: env:CLIENT_CERT
    rate_limit: {said["rate"]}
    max_age: 3d
    ordered: true
  - {{tenant: acme, name: bus, amqp: {{exchange: {said["exchange"]}}}}}
  - tenant: acme
    name: mail
    smtp: {{to: ops@acme.example, from: shop@acme.example, host: {said["host"]}, username: us, password: {said["password"]}}}
"""


@pytest.fixture(scope="module")
def issued() -> dict[str, str]:
    authority = Authority()
    return {"CA": authority.ca, "CLIENT_CERT": authority.issue("us.example")}


@pytest.fixture
def certificates(issued, monkeypatch) -> dict[str, str]:
    for name, value in issued.items():
        monkeypatch.setenv(name, value)
    return issued


def test_every_transport_is_read_as_it_was_said(apply, database, certificates) -> None:
    difference = apply(transports())

    web, bus, mail = sorted(stored(database).endpoints.values(), key=lambda each: each.id)
    assert ("http", {"authorization": "Bearer hidden"}, 0.5, 259_200.0, True) == (
        web.transport,
        web.headers,
        web.rate_limit,
        web.max_age,
        web.ordered,
    )
    assert (certificates["CA"], certificates["CLIENT_CERT"]) == (web.ca, web.client_cert)
    assert ("amqp", "", (), AmqpTarget("their.events")) == (bus.transport, bus.url, bus.secrets, bus.target)
    target = SmtpTarget(("ops@acme.example",), "shop@acme.example", "mx.example", username="us", password="s3cret")
    assert ("smtp", (), target) == (mail.transport, mail.secrets, mail.target)
    assert ["acme/web"] == list(difference.generated)  # only signed transports need a secret


def test_nothing_that_an_endpoint_shows_others_is_stored_in_the_clear(apply, database, certificates) -> None:
    apply(transports())

    ((dump,),) = database.rows("SELECT string_agg(endpoint::text, ' ') FROM endpoint")
    for secret in ("s3cret", "hidden", "authorization", "BEGIN", certificates["CA"].splitlines()[1]):
        assert secret not in dump


def test_the_same_transports_again_change_nothing(apply, database, certificates) -> None:
    apply(transports())
    version = stored(database).version

    assert {"unchanged"} == set(actions(apply(transports())).values())
    assert version == stored(database).version


def test_a_change_of_a_target_is_shown_but_for_what_is_secret(apply, certificates) -> None:
    apply(transports())

    difference = apply(transports(password="n3w", token="Bearer new", rate="1/s", host="mx2.example", exchange="our.events"))

    assert [
        ("acme/web", ("rate_limit: 0.5 -> 1", "headers changed")),
        ("acme/bus", ("amqp.exchange: their.events -> our.events",)),
        ("acme/mail", ("smtp.host: mx.example -> mx2.example", "smtp.password changed")),
    ] == [(change.title, change.details) for change in difference.changed]


def test_an_endpoint_may_change_its_transport_and_keeps_its_id(apply, database, certificates) -> None:
    apply(transports())
    before = {each.name: each.id for each in stored(database).endpoints.values()}

    text = "tenants: [{name: acme}]\nendpoints: [{tenant: acme, name: web, amqp: {}}, {tenant: acme, name: bus, url: 'http://x/'}]\n"
    difference = apply(text)

    found = {each.name: each for each in stored(database).endpoints.values()}
    assert before == {name: each.id for name, each in found.items()}
    assert ("amqp", "", {}, None, "http", "http://x/") == (
        found["web"].transport,
        found["web"].url,
        found["web"].headers,
        found["web"].ca,
        found["bus"].transport,
        found["bus"].url,
    )
    details = {change.title: change.details for change in difference.changed}
    assert "transport: http -> amqp" in details["acme/web"]
    assert "secrets changed" in details["acme/web"]
    assert ["acme/bus"] == list(difference.generated)


def test_a_disabled_mailbox_is_enabled_by_a_new_server(apply, database, certificates) -> None:
    apply(transports())
    with database.connect() as conn:
        conn.execute("UPDATE endpoint SET state = 'disabled', reason = 'asked for' WHERE name = 'mail'")

    assert "unchanged" == actions(apply(transports()))["acme/mail"]
    difference = apply(transports(host="mx2.example"))

    assert "active again" in next(change for change in difference.changed if change.title == "acme/mail").details


def test_two_at_once_come_one_after_the_other(apply, settings, database, tmp_path) -> None:
    (tmp_path / "waxseal.yaml").write_text(FILE)
    done: list[Difference] = []
    threads = [threading.Thread(target=lambda: done.append(apply_file(tmp_path / "waxseal.yaml", settings))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert [0, 0, 0, 6] == sorted(len(each.changed) for each in done)
    assert 1 == sum(len(each.generated) for each in done)


def test_secrets_under_a_lost_key_are_not_overwritten(apply, database, tmp_path) -> None:
    from cryptography.fernet import Fernet

    apply()
    with pytest.raises(OpsError, match="WAXSEAL_KEYS"):
        apply_file(tmp_path / "waxseal.yaml", Settings(database_url=database.url, keys=Fernet.generate_key().decode()))


def test_the_command_shows_what_changed_and_the_made_secret_once(database, cli, tmp_path) -> None:
    (tmp_path / "waxseal.yaml").write_text(FILE)

    dry = cli.owner.run("apply", tmp_path / "waxseal.yaml", "--dry-run")
    first = cli.owner.run("apply", tmp_path / "waxseal.yaml")
    second = cli.owner.run("apply", tmp_path / "waxseal.yaml")

    assert (0, 0, 0) == (dry.exit_code, first.exit_code, second.exit_code)
    assert "nothing was written" in dry.output
    assert "whsec_" not in dry.output
    assert "created  endpoint  acme/billing" in first.output
    assert 1 == first.output.count("whsec_")
    assert "6 unchanged\n" == second.stdout


def test_the_command_says_everything_that_is_wrong_and_ends_with_2(database, cli, tmp_path) -> None:
    file = tmp_path / "waxseal.yaml"
    file.write_text(FILE.replace("max_in_flight: 3", "max_in_flight: 0").replace("kind: amqp", "kind: smoke"))

    ended = cli.owner.run("apply", file)

    assert 2 == ended.exit_code
    assert f"{file}:14: sources[1].kind: unknown kind 'smoke'" in ended.output
    assert f"{file}:23: endpoints[0].max_in_flight: must be from 1 to 1000" in ended.output


def test_the_command_says_what_to_do_when_the_database_is_not_ours_to_change(database, servers, cli, tmp_path) -> None:
    (tmp_path / "waxseal.yaml").write_text(FILE)

    worker = cli.run("apply", tmp_path / "waxseal.yaml")
    empty = cli.but(database_url=servers.database_url).run("apply", tmp_path / "waxseal.yaml")
    away = cli.but(database_url="postgresql://nobody@127.0.0.1:1/none").run("apply", tmp_path / "waxseal.yaml")

    assert (2, 2, 2) == (worker.exit_code, empty.exit_code, away.exit_code)
    assert "use the database's owner" in worker.output
    assert "run `waxseal migrate`" in empty.output
    assert "does not answer" in away.output
