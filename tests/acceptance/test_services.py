"""The page on systemd, followed on a system that systemd has booted; then its units under load. `make systemd`."""

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Final

import psycopg
import pytest

from ops.process_roles import LOGINS
from pipeline.mail.event_attributes import event_id
from support.mail.dovecot import PASSWORD as MAILBOX_PASSWORD
from support.mail.dovecot import mail, private_dovecot
from support.outages.crew import PASSWORD, make_logins
from support.outages.flow import NORMAL, Flow
from support.outages.senders import assert_once_and_in_order, configuration, endpoint, first, recorded
from support.pages import PAGES, blocks
from support.paths import ROOT
from support.waiting import wait_for

PAGE: Final = "ops/docs/systemd.md"
UNITS: Final = sorted(set(re.findall(r"waxseal-[a-z-]+@\d{4}", PAGES[PAGE])) - {"waxseal-deliver@9022"})
OWNER: Final = f"postgresql://waxseal_owner:{PASSWORD}@127.0.0.1/waxseal"
BROKER: Final = f"amqp://waxseal-worker:{PASSWORD}@127.0.0.1/"
TYPED: Final = f'sudo() {{ "$@"; }}; systemd-ask-password() {{ echo {PASSWORD}; }}'  # by whom follows the page
MAILBOX: Final = """
mailboxes:
  - {{tenant: acme, name: support, kind: imap, host: 127.0.0.1, port: {port}, tls: false, username: us,
     password: "{password}", poll: 2s, subject: "header:Subject"}}
"""

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(1200),
    pytest.mark.skipif(not os.environ.get("WAXSEAL_TEST_SYSTEMD"), reason="`make systemd` runs it"),
]


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def test_the_units_run_as_the_page_says_and_lose_nothing_when_they_are_killed_restarted_and_upgraded(stack: ExitStack) -> None:
    install, settings, credentials, operator, migrate, start, upgrade = (block.text for block in blocks("sh", PAGE))
    begin_servers()
    for each in (install, settings, credentials, operator):
        run(each)
    write_what_the_page_leaves_to_the_reader()
    run(migrate)
    make_logins(OWNER)
    arrivals, box = stack.enter_context(endpoint()), stack.enter_context(private_dovecot())
    mailbox = MAILBOX.format(port=box.port, password=MAILBOX_PASSWORD)
    Path("/etc/waxseal/waxseal.yaml").write_text(configuration(arrivals.url) + mailbox)
    run(start)
    run(f"systemctl start {' '.join(unit for unit in UNITS if 'mail' in unit)}")
    with psycopg.connect(OWNER, autocommit=True) as conn:  # mails that are there before are recorded newest first
        wait_for(lambda: first(conn, "SELECT count(*) FROM mailbox WHERE pulled_at IS NOT NULL") == 1, 60)

    def post(text: str, subject: str) -> str:
        raw = mail(0, message_id=f"{text}@example.org").replace(b"Subject: number 0", f"Subject: {subject}".encode())
        box.deliver("us", raw)
        return event_id(raw)

    flow = Flow("http://127.0.0.1:8420", BROKER, arrivals, post)
    stack.callback(flow.end)
    flow.start()
    tell("started", flow, time.monotonic())
    for unit in UNITS:
        assert_confined(unit)
        tell(f"{unit} killed", flow, killed(unit))
    for what, script in (
        ("RabbitMQ restarted", "systemctl restart rabbitmq-server"),
        ("PostgreSQL restarted", "systemctl restart postgresql"),
        ("upgraded, all at once", upgrade),
    ):
        *before, last = script.strip().splitlines()
        run("\n".join(before))
        since = time.monotonic()
        run(last)
        tell(what, flow, since)
    flow.stop()
    wait_for(flow.all_arrived, 60)
    with psycopg.connect(OWNER) as conn:
        wait_for(lambda: first(conn, "SELECT count(*) FROM delivery WHERE state <> 'delivered'") == 0, 60)
        assert_once_and_in_order(flow.sent, recorded(conn), arrivals.seen)
    run("waxseal verify")
    assert_stops_within(30)
    assert_logged_as_json_and_without_secrets()
    say(f"{len(arrivals.seen)} events, none lost, none twice, in their order; the ledger verifies")


def begin_servers() -> None:
    """Debian's own services, with the owner, its database and the user of RabbitMQ that the page asks for."""
    run("systemctl start postgresql rabbitmq-server")
    role = f"CREATE ROLE waxseal_owner LOGIN CREATEROLE PASSWORD '{PASSWORD}'"
    run(f'su postgres -c "psql --quiet" <<< "{role}; CREATE DATABASE waxseal OWNER waxseal_owner"')
    (rights,) = re.findall(r"rabbitmqctl set_permissions -p / waxseal-worker .*", PAGES["ops/docs/operating.md"])
    run(f"rabbitmqctl --quiet add_user waxseal-worker {PASSWORD}\n{rights}")


def write_what_the_page_leaves_to_the_reader() -> None:
    """The files of the other logins; and that endpoints and mail servers may be on this machine."""
    folder = Path("/etc/waxseal")
    with (folder / "waxseal.env").open("a") as file:
        file.write("WAXSEAL_ALLOW_NETWORKS=127.0.0.0/8\n")
    (folder / "credentials" / "amqp").write_text(PASSWORD)
    for login in ("owner", *(each.key for each in LOGINS)):
        (folder / "credentials" / login).write_text(PASSWORD)
    for key, name in {"owner": "waxseal_owner", **{each.key: each.name for each in LOGINS}}.items():
        given = (folder / "worker.env").read_text().replace("//waxseal_worker@", f"//{name}@")
        (folder / f"{key}.env").write_text(given)


def run(script: str) -> str:
    """Runs commands as the page shows them, on this machine's servers; returns what they print. They must succeed."""
    script = re.sub(r"\b(mq|db)\.example\b", "127.0.0.1", script)
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", f"{TYPED}\n{script}"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert 0 == done.returncode, f"{script}\n{done.stdout}{done.stderr}"
    return done.stdout


def shown(unit: str, name: str) -> str:
    return run(f"systemctl show --value --property={name} {unit}").strip()


def killed(unit: str) -> float:
    """Kills all of its processes; returns when that was, once others run."""
    before, since = shown(unit, "MainPID"), time.monotonic()
    run(f"systemctl kill --signal=KILL {unit}")
    wait_for(lambda: shown(unit, "MainPID") not in ("0", before), 30)
    return since


def assert_confined(unit: str) -> None:
    """The filter of system calls is in effect, and there are no capabilities to gain or use."""
    lines = Path(f"/proc/{shown(unit, 'MainPID')}/status").read_text().splitlines()
    status = dict(line.split(":\t") for line in lines)

    assert ("1", "2") == (status["NoNewPrivs"], status["Seccomp"]), unit
    assert {0} == {int(status[name], 16) for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")}, unit


def assert_stops_within(seconds: float) -> None:
    since = time.monotonic()
    run("systemctl stop waxseal.target")
    wait_for(lambda: {"inactive"} == {shown(unit, "ActiveState") for unit in UNITS}, 120)
    took = time.monotonic() - since

    assert took < seconds
    assert {("success", "0")} == {(shown(unit, "Result"), shown(unit, "ExecMainStatus")) for unit in UNITS}
    say(f"all stopped within {took:.1f} s")


def assert_logged_as_json_and_without_secrets() -> None:
    journal = run("journalctl --output=json --identifier=waxseal --no-pager --unit='waxseal-*@*'")
    lines = [json.loads(line)["MESSAGE"] for line in journal.splitlines()]
    key = Path("/etc/waxseal/credentials/keys").read_text().strip()

    assert [] == [line for line in lines if not line.startswith("{")]
    assert [] == [line for line in lines if key in line or PASSWORD in line]


def tell(what: str, flow: Flow, since: float) -> None:
    """Waits until the flow is whole after this moment, and says how it was since then."""
    now = time.monotonic() + NORMAL
    wait_for(lambda: flow.whole(now), 120)
    found = flow.whole(since)
    assert found is not None
    say(f"{what}: whole after {found.after:.1f} s; an event took {found.delivered:.1f} s at most until it was delivered")


def say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()
