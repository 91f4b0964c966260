"""`waxseal up` and `waxseal down`: one supervised system per data folder that resumes, heals, and stops completely."""

import json
import os
import re
import signal
import socket
import subprocess
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import product
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.parse import urlsplit

import pika
import psutil
import psycopg
import pytest
from dramatiq.common import xq_name

from ops.servers import binaries
from ops.servers.ports import choose_ports, is_free
from ops.servers.process_tree import wait_until
from ops.system import stack_file
from ops.telemetry.metric_kinds import TABLE
from support.mail.api import serving
from support.mail.dovecot import mail
from support.mail.gmail import BACKEND_ERROR, Gmail
from support.mail.imap_script import scripted
from support.net.sink import Sink
from support.paths import ROOT
from support.queues import put
from support.stack import READY, here, nothing_runs_on, processes_of, stack_of, up_with, waxseal
from support.telemetry.exposed import Movement, families_of, text_of
from support.waiting import wait_for
from workers.amqp.dramatiq_broker import QUEUE
from workers.amqp.topology import UNROUTED

CONTRACT = {"ingress_url", "console_url", "amqp_url", "database_url", "metrics", "pids"}
ROLES = {
    "ingress",
    "ingest",
    "relay",
    "deliver",
    "mail-pull",
    "mail-idle",
    "sequencer",
    "sealer",
    "eraser",
    "verifier",
    "console",
    "postgres",
    "rabbitmq",
    "supervisor",
}

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]  # two servers and ten processes start anew, on a busy machine


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A data folder that the servers' accounts cannot enter under root, as in a clone in root's home."""
    data = tmp_path_factory.mktemp("stack") / "data"
    yield data
    here("down", "--delete-data", "--yes", "--data", str(data))


@pytest.fixture
def sink() -> Iterator[Sink]:
    sink = Sink()
    sink.start()
    yield sink
    sink.stop()


@pytest.fixture(scope="module")
def running(folder: Path) -> Path:
    """The whole system, with two ingest and two deliver processes, and a Prometheus."""
    config = folder.with_name("waxseal.yaml")
    config.write_text("tenants: [{name: acme}]\nendpoints: [{tenant: acme, name: out, url: 'http://127.0.0.1:1'}]\n")
    arguments = ("--detach", "--observe", "--workers", "2", "--data", str(folder), "--config", str(config))
    done = waxseal("up", *arguments, WAXSEAL_LOG_ANCHORS=str(folder.with_name("anchors")))
    assert (0, "") == (done.returncode, done.stderr)
    return folder


def test_stack_json_says_where_everything_is_and_only_the_owner_can_read_it(running: Path) -> None:
    stack = stack_of(running)

    assert CONTRACT <= stack.keys()
    assert ROLES <= stack["pids"].keys()
    crew = {"ingress", "ingest", "ingest-2", "relay", "deliver", "deliver-2", "mail-pull", "mail-idle"}
    crew |= {"sequencer", "sealer", "eraser", "verifier", "console"}
    assert crew | {"supervisor"} == stack["metrics"].keys()
    assert [1, 2, 1, 2] == [len(stack["pids"][role]) for role in ("ingress", "ingest", "relay", "deliver")]
    assert 0o600 == (running / "stack.json").stat().st_mode & 0o777
    assert all(200 == status(url) for url in stack["metrics"].values())
    assert 200 == status(stack["ingress_url"] + "/readyz")


def test_the_first_up_leaves_a_token_for_its_owner_that_opens_the_console_and_no_log_has_it(running: Path) -> None:
    file = running / "console-token"
    token = file.read_text().strip()
    asked = urllib.request.Request(f"{stack_of(running)['console_url']}/settings", headers={"Authorization": f"Bearer {token}"})

    assert 0o600 == file.stat().st_mode & 0o777
    with urllib.request.urlopen(asked, timeout=30) as answer:
        assert 200 == answer.status
    assert [] == [log.name for log in (running / "log").iterdir() if token in log.read_text(errors="replace")]


def test_each_process_shows_the_metrics_of_the_table_that_it_feeds_with_their_labels(running: Path) -> None:
    urls = stack_of(running)["metrics"]
    wait_for(lambda: 'collector_up{collector="inbox"} 1.0' in text_of(urls["relay"]), 60)
    shown = {name: families_of(url) for name, url in urls.items()}

    for process, families in shown.items():
        rows = {name: row for name, row in TABLE.items() if process.removesuffix("-2") in row.by}
        assert {name: row.kind for name, row in rows.items()} == {name: each.type for name, each in families.items()}
        for name, row in rows.items():
            assert not any({*sample.labels} - {*row.labels} - {"le"} for sample in families[name].samples)
            if all(row.labels.values()):
                found = {tuple(sample.labels[label] for label in row.labels) for sample in families[name].samples}
                possible = set(product(*row.labels.values()))
                assert (possible == found) if row.kind != "gauge" else (found <= possible), (process, name)
        assert 0 < sum(len(family.samples) for family in families.values()) < 2000
        fixed = FIXED - ({"waxseal_db_pool_size"} if process == "verifier" else set())  # has no connection between its runs
        assert not [name for name in fixed & rows.keys() for sample in families[name].samples if sample.value <= 0]
    assert dict.fromkeys(urls, "") == {process: linted(text_of(url)) for process, url in urls.items()}
    waiting = {"waxseal_ingest_last_success_timestamp_seconds", "waxseal_log_anchor_last_success_timestamp_seconds"}
    assert waiting == {  # there is no mailbox, and no entry
        name for name in TABLE if not any(families[name].samples for families in shown.values() if name in families)
    }


def test_its_prometheus_scrapes_every_process_has_the_alerts_loaded_and_is_for_this_machine_only(running: Path) -> None:
    stack = stack_of(running)
    (prometheus,) = stack["pids"]["prometheus"]
    asked = {name: urlsplit(url).netloc for name, url in stack["metrics"].items()}

    def scraped() -> list[dict[str, Any]]:
        found = told_by(stack, "targets")["activeTargets"]
        return found if {"up"} == {each["health"] for each in found} else []

    wait_for(scraped, 60)
    labels = [each["labels"] for each in scraped()]
    assert set(asked.values()) == {each["instance"] for each in labels}
    assert {"waxseal"} == {each["job"] for each in labels}
    assert {"ingress", "ingest", "relay", "deliver", "mail-pull", "mail-idle", "sequencer", "sealer"} <= {
        each["role"] for each in labels
    }
    groups = told_by(stack, "rules")["groups"]
    assert {"slo.yml", "alerts.yml"} == {Path(group["file"]).name for group in groups}
    assert "WaxsealQueueStalled" in {rule["name"] for group in groups for rule in group["rules"]}
    listening = [one for one in psutil.Process(prometheus).net_connections() if one.status == psutil.CONN_LISTEN]
    assert ["127.0.0.1"] == [one.laddr.ip for one in listening]
    assert f"{stack['prometheus_url']}/alerts" in (running / "log" / "supervisor.log").read_text()


def test_without_prometheus_on_the_machine_observing_is_refused_before_anything_is_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(binaries, "_PROMETHEUS", str(tmp_path / "nowhere"))
    refused = here("up", "--observe", "--data", str(tmp_path / "data"), PATH=str(tmp_path))

    assert (2, "", 1) == (refused.exit_code, refused.stdout, refused.stderr.count("\n"))
    assert "install the package prometheus, or leave --observe out" in refused.stderr
    assert [] == list(tmp_path.iterdir())


def test_workers_log_in_with_no_more_rights_than_they_need(running: Path) -> None:
    with psycopg.connect(stack_of(running)["database_url"]) as conn:
        query = "SELECT DISTINCT usename FROM pg_stat_activity WHERE application_name LIKE 'waxseal %'"
        logins = {name for (name,) in conn.execute(query)}
        superusers = conn.execute("SELECT rolname FROM pg_roles WHERE rolsuper AND rolname LIKE 'waxseal\\_%'").fetchall()

    own = {f"waxseal_{name}_login" for name in ("sealer", "eraser", "verifier", "console")}
    assert own | {"waxseal_worker"} == logins
    assert [] == superusers


def test_the_supervisors_output_and_all_secrets_are_closed_to_others(running: Path) -> None:
    secret = [running / "keys", running / "servers.json", *(running / "log").glob("*.log")]

    assert {0} == {path.stat().st_mode & 0o077 for path in secret}


def test_no_log_and_no_list_of_processes_holds_a_password(running: Path) -> None:
    endpoint, secret = (running / "endpoint-secrets").read_text().split()
    passwords = [*json.loads((running / "servers.json").read_text())["passwords"].values(), secret]
    logs = {log.name: log.read_text() for log in (running / "log").glob("*.log")}
    pids = [pid for pids in stack_of(running)["pids"].values() for pid in pids]
    commands = {str(pid): " ".join(psutil.Process(pid).cmdline()) for pid in pids}

    assert ("acme/out", 8, True) == (endpoint, len(passwords), secret.startswith("whsec_"))
    assert 0o600 == (running / "endpoint-secrets").stat().st_mode & 0o777
    assert "Waxseal is ready" in logs["supervisor.log"]
    assert [] == [name for name, text in (logs | commands).items() if any(each in text for each in passwords)]


@pytest.mark.parametrize("name", ["it's", 'a"b', "a`b", "a\\b", "a\nb"])
def test_a_folder_that_the_servers_cannot_work_in_is_refused_at_once_in_one_line(name: str, tmp_path: Path) -> None:
    for more in ([], ["--detach"]):
        refused = here("up", "--data", str(tmp_path / name), *more)

        assert (2, "", 1) == (refused.exit_code, refused.stdout, refused.stderr.count("\n"))
        assert "use another --data" in refused.stderr
    assert [] == list(tmp_path.iterdir())


def test_so_is_a_folder_whose_name_is_not_utf_8(tmp_path: Path) -> None:
    refused = waxseal("up", "--data", str(tmp_path / "bad\udcff"))

    assert (2, "", 1) == (refused.returncode, refused.stdout, refused.stderr.count("\n"))
    assert "use another --data" in refused.stderr
    assert 2 == here("up", "--data", str(tmp_path / "bad\udcff"), "--detach").exit_code
    assert [] == list(tmp_path.iterdir())


def test_a_second_up_on_the_same_folder_is_one_line_and_exit_2(running: Path) -> None:
    in_the_foreground = waxseal("up", "--data", str(running))
    detached = here("up", "--data", str(running), "--detach")

    assert [2, 2] == [in_the_foreground.returncode, detached.exit_code]
    for said in (in_the_foreground.stderr, detached.stderr):
        assert 1 == said.count("\n")
        assert "already running" in said


def test_commands_find_the_running_system_by_its_folder(running: Path) -> None:
    done = here("migrate", "--data", str(running))

    assert (0, "the schema is at its newest version\n") == (done.exit_code, done.stdout)


#: What is set once, when a process starts.
FIXED = {"waxseal_build_info", "waxseal_worker_threads", "waxseal_db_pool_size", "waxseal_disk_size_bytes"}
#: What moves when processes and servers die: see the test of that.
MOVED_BY_DEATH = {"waxseal_process_restarts_total", "waxseal_broker_reconnects_total", "waxseal_collector_up"}
#: What moves in the tests of another file, which would take too long here.
MOVED_ELSEWHERE = {
    "waxseal_broker_alarm": "tests/integration/ingress/test_ingress_outages.py",
    "waxseal_erased_entries_total": "tests/integration/admin/test_retention.py",
    "waxseal_kept_since_timestamp_seconds": "tests/integration/admin/test_keeping.py",
    "waxseal_removed_total": "tests/integration/admin/test_keeping.py",
    "waxseal_retention_behind_seconds": "tests/integration/admin/test_retention.py",
    "waxseal_retention_held": "tests/integration/admin/test_retention.py",
    "waxseal_log_refused": "tests/integration/ledger/test_restored_log.py",
    "waxseal_log_unsealed_age_seconds": "tests/integration/ledger/test_restored_log.py",
    "waxseal_log_set_aside": "tests/integration/ledger/test_sequencing.py",
    "waxseal_wal_archive_behind_bytes": "tests/integration/admin/test_backup.py",
    "waxseal_wal_archive_failing": "tests/integration/admin/test_backup.py",
    "waxseal_search_unindexed_entries": "tests/integration/console/test_indexing.py",
}


def test_every_metric_moves_when_messages_and_mails_come_and_endpoints_take_refuse_hang_and_end(
    running: Path, sink: Sink, gmail: Gmail, watched: int, silent: int
) -> None:
    stack, config = stack_of(running), running.with_name("more.yaml")
    config.write_text(f"""
tenants: [{{name: acme}}]
sources:
  - {{tenant: acme, name: up, kind: amqp}}
  - {{tenant: acme, name: hooks, kind: token, secrets: [s3cret]}}
endpoints:
  - {{tenant: acme, name: takes, url: "{sink.url("/200")}"}}
  - {{tenant: acme, name: ends, url: "{sink.url("/410")}"}}
  - {{tenant: acme, name: hangs, url: "{sink.url("/hang")}", filter: {{exact: {{source: hooks}}}}}}
mailboxes:
  - {{tenant: acme, name: post, kind: imap, host: 127.0.0.1, port: 1, tls: false, username: us, password: s3cret}}
  - {{tenant: acme, name: watched, kind: imap, host: 127.0.0.1, port: {watched}, tls: false, username: us, password: s3cret}}
  - {{tenant: acme, name: silent, kind: imap, host: 127.0.0.1, port: {silent}, tls: false, username: us, password: s3cret}}
  - {{tenant: acme, name: letters, kind: gmail, username: u@x.org, api_url: "{gmail.url}", poll: 1s,
     oauth: {{token_url: "{gmail.token_url}", client_id: app, client_secret: shh, refresh_token: refresh-0}}}}
""")
    movement = Movement(stack["metrics"])
    assert 0 == here("apply", str(config), "--data", str(running)).exit_code
    with pika.BlockingConnection(pika.URLParameters(stack["amqp_url"])) as connection:
        channel = connection.channel()
        channel.confirm_delivery()

        channel.basic_consume(xq_name(QUEUE), lambda *_: None)
        for number in range(14):  # enough for the breaker of the endpoint that refuses
            put(channel, "acme.up", f"e-{number}", b"x" * (300_000 if number == 0 else 10))
        put(channel, "acme.nothing", "e", b"x")
        put(channel, UNROUTED, "u", b"x", exchange="")
        movement.wait_for("waxseal_dedupe_messages_total", "waxseal_dead_letters_total")
        put(channel, "acme.up", "e-1", b"y")
        post(stack, "s3cret")
        with pytest.raises(HTTPError):
            post(stack, "other")
        decide_earlier(running)
        with a_forged_body(stack):
            assert 1 == here("verify", "--data", str(running)).exit_code
        receive_mail_until_consent_ends(gmail, movement)
        movement.wait_for("waxseal_chain_broken_links")
        assert 0 == here("verify", "--data", str(running)).exit_code
        by_this = TABLE.keys() - FIXED - MOVED_BY_DEATH - MOVED_ELSEWHERE.keys()
        movement.wait_for(*by_this, seconds=100)

    assert TABLE.keys() >= FIXED | MOVED_BY_DEATH | MOVED_ELSEWHERE.keys()
    for name, path in MOVED_ELSEWHERE.items():
        assert name in (ROOT / path).read_text()


@pytest.fixture
def gmail() -> Iterator[Gmail]:
    with serving(Gmail()) as fake:
        fake.put(mail(0))
        yield fake


@pytest.fixture
def watched() -> Iterator[int]:
    """The port of an IMAP server that tells of new mail."""
    empty = b"* 0 EXISTS\r\n* OK [UIDVALIDITY 7] x\r\n* OK [UIDNEXT 1] x\r\n"
    idles = {rb"CAPABILITY": b"* CAPABILITY IMAP4rev1 AUTH=PLAIN IDLE\r\n", rb"IDLE": b"+ idling\r\n", rb"EXAMINE": empty}
    with scripted(idles) as (mailbox, _):
        yield mailbox.port


@pytest.fixture
def silent() -> Iterator[int]:
    """The port of a server that says nothing: whoever asks it is busy for seconds, and holds a message meanwhile."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


def receive_mail_until_consent_ends(gmail: Gmail, movement: Movement) -> None:
    movement.wait_for("waxseal_mail_fetched_total", "waxseal_mail_token_refreshes_total")
    gmail.instead("/messages/", BACKEND_ERROR)  # to the request for the mail; that for what is known of it succeeds
    gmail.put(mail(1))
    movement.wait_for("waxseal_mail_missing_total")
    gmail.forget_history()
    movement.wait_for("waxseal_mail_resyncs_total")
    gmail.tokens.revoke()
    movement.wait_for("waxseal_mail_reauthorizations_needed_total")


def decide_earlier(folder: Path) -> None:
    """Discards a dead letter, as if more than a minute ago: the collector counts decisions only when all are committed."""
    assert 0 == here("dead", "discard", "--reason", "unknown_source", "--yes", "--by", "kim", "--data", str(folder)).exit_code
    with psycopg.connect(stack_of(folder)["database_url"]) as conn:
        conn.execute("UPDATE dead_letter SET decided_at = decided_at - interval '75 s' WHERE state = 'discarded'")


@contextmanager
def a_forged_body(stack: dict[str, Any]) -> Iterator[None]:
    where = "WHERE (chain_id, seq) = (SELECT chain_id, seq FROM content WHERE body = %s LIMIT 1)"
    with psycopg.connect(stack["database_url"], autocommit=True) as conn:
        wait_for(lambda: conn.execute(f"UPDATE content SET body = %s {where}", (b"forged", b"x" * 10)).rowcount == 1)
        yield
        assert 1 == conn.execute(f"UPDATE content SET body = %s {where}", (b"x" * 10, b"forged")).rowcount


def post(stack: dict[str, Any], token: str) -> None:
    headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
    url = stack["ingress_url"] + "/in/acme/hooks"
    with urllib.request.urlopen(urllib.request.Request(url, b"{}", headers), timeout=30) as answer:
        assert 202 == answer.status


#: What dies: the last process of each role but the relay, which is to see the servers die, and one of deliver is left, too.
VICTIMS = (
    "ingress",
    "ingest",
    "deliver",
    "mail-pull",
    "mail-idle",
    "sequencer",
    "sealer",
    "postgres",
    "rabbitmq",
    "epmd",
    "prometheus",
)
#: What a process holds at the moment: nothing of it may outlive the process.
HELD = {"waxseal_queue_messages", "waxseal_actor_in_progress", "waxseal_mail_idle_connections"}


def test_whatever_dies_is_restarted_on_its_port_and_stack_json_says_so(running: Path) -> None:
    before = stack_of(running)
    victims = {role: before["pids"][role][-1] for role in VICTIMS}
    killed_at = time.time()
    for pid in victims.values():
        os.kill(pid, signal.SIGKILL)
    ingress = int(before["ingress_url"].rpartition(":")[2])
    wait_until(lambda: is_free(ingress), 0.4)
    assert ingress != choose_ports(["another system's"], {"another system's": ingress})["another system's"]

    def healed() -> bool:
        now = stack_of(running)["pids"]
        return all(len(now[role]) == len(before["pids"][role]) and pid not in now[role] for role, pid in victims.items())

    relay, deliver = before["metrics"]["relay"], before["metrics"]["deliver"]  # which live on
    wait_for(lambda: shows(relay, 'waxseal_collector_up{collector="database"} 0.0'), 60)
    wait_for(healed, 120)
    for name, url in before["metrics"].items():
        ready = wait_until(lambda url=url: is_ready(url), 300)
        assert ready, "\n".join([f"{name} is not ready", *last_lines(running, name), *last_lines(running, "supervisor")])
    restarts = {
        sample.labels["process"]: sample.value
        for sample in families_of(before["metrics"]["supervisor"])["waxseal_process_restarts_total"].samples
    }
    assert [] == [role for role in victims if restarts[role] < 1]
    wait_for(lambda: shows(relay, 'waxseal_collector_up{collector="database"} 1.0'), 60)
    wait_for(lambda: not shows(deliver, 'waxseal_broker_reconnects_total{connection="actors"} 0.0'), 60)
    for name in ("ingress", "ingest-2", "deliver-2", "mail-pull", "mail-idle", "sequencer", "sealer"):
        assert killed_at - 2 < started_at(before["metrics"][name])
        wait_for(lambda url=before["metrics"][name]: holds(url) == 0)
    after = stack_of(running)
    wait_for(lambda: entries(relay) is not None)  # some, if the tests above ran
    known, killed_at, shown = entries(relay), time.time(), []
    os.kill(after["pids"]["relay"][0], signal.SIGKILL)
    wait_for(lambda: is_ready(relay) and started_at(relay) > killed_at - 2, 60)
    wait_for(lambda: shown.append(entries(relay)) or shown[-1] == known)
    assert {known} == {each for each in shown if each is not None}  # what is not known yet is not shown, not even as 0
    again = after["processes"]["ingest-2"]
    assert victims["ingest"] != again["pid"]
    assert again["restarts"] >= 1
    assert "ingest-2 was killed by SIGKILL" in again["last_end"]
    assert [before[name] for name in CONTRACT - {"pids"}] == [after[name] for name in CONTRACT - {"pids"}]
    assert before["pids"]["supervisor"] == after["pids"]["supervisor"]


def test_up_resumes_with_all_data_after_the_supervisor_was_killed_and_down_ends_what_it_left(
    running: Path, lateness: Callable[[], float], monkeypatch: pytest.MonkeyPatch
) -> None:
    before = stack_of(running)
    with psycopg.connect(before["database_url"]) as conn:
        conn.execute("CREATE TABLE kept AS SELECT 7 AS n")
    os.kill(before["pids"]["supervisor"][0], signal.SIGKILL)

    with up_with(READY, running) as again:
        assert any("webhooks" in line for line in again.stdout)
        after = stack_of(running)
        assert not any(seen.alive() for seen in processes_of(before))
        assert before["database_url"] == after["database_url"]
        with psycopg.connect(after["database_url"]) as conn:
            assert (7,) == conn.execute("SELECT n FROM kept").fetchone()

        for pid in after["pids"]["ingress"]:
            os.kill(pid, signal.SIGSTOP)  # a stopped process does not react to the death of its supervisor
        again.kill()
        again.wait(10)
        monkeypatch.setattr(stack_file, "_STOP_SECONDS", 1.0)
        begun = time.monotonic()
        done = here("down", "--data", str(running))

    assert 0 == done.exit_code
    assert "left behind" in done.stdout
    assert not any(seen.alive() for seen in processes_of(after))
    assert nothing_runs_on(running)
    assert time.monotonic() - begun < 60 + lateness()


def test_an_up_that_fails_says_why_in_one_line_and_leaves_nothing(folder: Path) -> None:
    with up_with("import sys; sys.exit('Error: no work to be had')", folder) as failing:
        _, said = failing.communicate(timeout=120)

    assert "Error: ingress exited with 1: no work to be had (log: " in said
    assert (2, 1) == (failing.returncode, said.count("\nError: "))
    assert nothing_runs_on(folder)


def test_ctrl_c_on_a_terminal_stops_everything_and_succeeds(folder: Path) -> None:
    with up_with(READY, folder) as supervisor:
        told = next(line for line in supervisor.stdout if "webhooks" in line)
        stack = stack_of(folder)
        assert stack["ingress_url"] in told
        supervisor.send_signal(signal.SIGINT)

        assert 0 == supervisor.wait(timeout=120)
    assert not any(seen.alive() for seen in processes_of(stack))
    assert nothing_runs_on(folder)
    assert set() == {pid for pids in stack_of(folder)["pids"].values() for pid in pids}
    assert stack["ingress_url"] == stack_of(folder)["ingress_url"]


def test_down_where_nothing_runs_says_so_and_succeeds(tmp_path: Path) -> None:
    never_used = here("down", "--data", str(tmp_path / "never"))

    assert (0, f"nothing is running on {tmp_path / 'never'}\n") == (never_used.exit_code, never_used.stdout)
    assert not (tmp_path / "never").exists()


def last_lines(folder: Path, name: str) -> list[str]:
    return (folder / "log" / f"{name}.log").read_text().splitlines()[-20:]


def status(url: str) -> int:
    with urllib.request.urlopen(url, timeout=30) as answer:
        return answer.status


def linted(metrics: str) -> str:
    """What Prometheus' own tool says against the text of /metrics."""
    command = ["promtool", "check", "metrics"]
    ended = subprocess.run(command, input=metrics, capture_output=True, text=True, timeout=60, check=False)
    return ended.stdout + ended.stderr


def told_by(stack: dict[str, Any], what: str) -> dict[str, Any]:
    """What the system's Prometheus says through its API."""
    with urllib.request.urlopen(f"{stack['prometheus_url']}/api/v1/{what}", timeout=30) as answer:
        return json.load(answer)["data"]


def shows(url: str, line: str) -> bool:
    """Whether a process shows the line at /metrics. Takes half a second."""
    time.sleep(0.5)
    return line in text_of(url)


def started_at(url: str) -> float:
    """When the process that shows these metrics started, in Unix seconds."""
    return float(re.search(r"^process_start_time_seconds (\S+)$", text_of(url), re.MULTILINE)[1])


def entries(url: str) -> float | None:
    """How many entries the ledger has, by a relay's metrics."""
    found = re.search(r"^waxseal_chain_head_sequence\S* (\S+)$", text_of(url), re.MULTILINE)
    return None if found is None else float(found[1])


def holds(url: str) -> float:
    """How much a process holds, by its metrics."""
    shown = [sample for name, family in families_of(url).items() if name in HELD for sample in family.samples]
    return sum(sample.value for sample in shown if sample.labels.get("state") != "ready")


def is_ready(metrics_url: str) -> bool:
    try:
        return status(metrics_url.replace("/metrics", "/readyz")) == 200
    except OSError:
        return False
