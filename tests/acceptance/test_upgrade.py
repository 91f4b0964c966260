"""An earlier version is upgraded under load, process by process; then every event is checked. `make upgrade FROM=REF`."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import psycopg
import pytest
from cryptography.fernet import Fernet
from psycopg.conninfo import conninfo_to_dict

from ops.servers.private import private_servers
from support.outages.crew import ROLES, THIS, Crew, Program, make_logins
from support.outages.flow import Flow
from support.outages.senders import assert_once_and_in_order, configuration, endpoint, first, recorded
from support.waiting import wait_for

FROM = os.environ.get("WAXSEAL_TEST_UPGRADE", "")
ROOT = Path(__file__).parents[2]
BESIDE = 10.0  # seconds for which the earlier processes work on the new schema

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900), pytest.mark.skipif(not FROM, reason="`make upgrade` runs it")]


@pytest.fixture
def earlier(module_folder: Path) -> Program:
    """The program at the commit `FROM`, with the packages of this one."""
    tree = module_folder / "earlier"
    tree.mkdir()
    archive = subprocess.run(["git", "archive", FROM], cwd=ROOT, capture_output=True, check=True).stdout
    subprocess.run(["tar", "-x"], cwd=tree, input=archive, check=True)
    return Program([sys.executable, "-m", "ops.cli"], {"PYTHONPATH": str(tree)})


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def test_processes_are_replaced_one_by_one_beside_a_migration(module_folder: Path, earlier: Program, stack: ExitStack) -> None:
    servers = stack.enter_context(private_servers(module_folder))
    arrivals = stack.enter_context(endpoint())
    owner = servers.database_url.replace("+psycopg", "")
    place = conninfo_to_dict(owner)
    settings = {
        "AMQP_URL": servers.amqp_url,
        "KEYS": Fernet.generate_key().decode(),
        "BLOBS": str(module_folder / "blobs"),
        "LOG_FILES": str(module_folder / "published"),
        "LOG_ORIGIN": "upgrade.test",
        "ALLOW_NETWORKS": "127.0.0.0/8",
    }
    (module_folder / "blobs").mkdir()
    url = "postgresql://{}:{}@{host}:{port}/{dbname}"
    crew = Crew(module_folder, lambda login, password: url.format(login, password, **place), settings, earlier)
    migrated = crew.command("migrate", url=owner, program=earlier)
    assert 0 == migrated.returncode, migrated.stderr
    make_logins(owner)
    config = module_folder / "waxseal.yaml"
    config.write_text(configuration(arrivals.url))
    applied = crew.command("apply", str(config), url=owner, program=earlier)
    assert 0 == applied.returncode, applied.stderr
    crew.start()
    stack.callback(crew.stop)
    wait_for(crew.ready, 60)
    flow = Flow(crew.ingress_url, servers.amqp_url, arrivals)
    stack.callback(flow.end)
    flow.start()
    wait_for(lambda: flow.whole(time.monotonic() - 3), 60)
    with psycopg.connect(owner, autocommit=True) as conn:
        before = versions(conn)

        since = time.monotonic()
        assert_too_new_for(crew, before)
        migrated = crew.command("migrate", url=owner)
        assert 0 == migrated.returncode, migrated.stderr
        say(f"from {before} to {versions(conn)}: migrated within {time.monotonic() - since:.1f} s")
        time.sleep(BESIDE)
        assert [] == crew.ends
        tell("earlier processes on the new schema", flow, since)

        for role in ROLES:
            since = time.monotonic()
            crew.replace(role, THIS)
            tell(f"{role} replaced", flow, since)
        flow.stop()
        wait_for(flow.all_arrived, 60)
        wait_for(lambda: first(conn, "SELECT count(*) FROM delivery WHERE state <> 'delivered'") == 0, 60)
        assert 0 == first(conn, "SELECT count(*) FROM dead_letter")
        assert_once_and_in_order(flow.sent, recorded(conn), arrivals.seen)
    verified = crew.command("verify")
    assert 0 == verified.returncode, verified.stdout + verified.stderr
    say(f"{len(arrivals.seen)} events, none lost, none twice, in their order; the ledger verifies")


def assert_too_new_for(crew: Crew, version: int) -> None:
    """A process of this version does not start on the earlier schema, and says what to do."""
    refused = crew.command("relay")
    if version != newest():
        assert 2 == refused.returncode
        assert "run `waxseal migrate`" in refused.stderr + refused.stdout


def newest() -> int:
    return max(int(path.name[:4]) for path in (ROOT / "ops/migrations/versions").glob("[0-9]*.py"))


def versions(conn: psycopg.Connection) -> int:
    return first(conn, "SELECT version_num::int FROM alembic_version")


def say(line: str) -> None:
    sys.stdout.write(f"{line}\n")


def tell(what: str, flow: Flow, since: float) -> None:
    wait_for(lambda: flow.whole(since), 60)
    found = flow.whole(since)
    assert found is not None
    say(f"{what}: whole after {found.after:.1f} s; an event took {found.delivered:.1f} s at most until it was delivered")
