"""Connections over TLS with client certificates, to the first of several hosts that serves, with passwords from files."""

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import psycopg
import pytest
from pika.exceptions import AMQPConnectionError
from sqlalchemy.exc import OperationalError

from ops.cli.terminal.exit_codes import explain
from ops.runtime.db import make_engine
from ops.server_urls import database_url
from ops.servers.accounts import own_file
from ops.servers.private import PrivateServers
from support.broker import evaluated
from support.net.tls import Authority
from support.queues import emptied
from support.sending import SECRET
from support.waiting import wait_for
from workers.amqp.queue_depths import queues
from workers.commands.demo_publisher import Published, publish

DEAD = "localhost:1"  # nothing listens there
USER = "test_tls"

# The broker's listener is added while it runs: a restart takes seconds.
LISTEN = """
Name = <<"{user}">>,
rabbit_auth_backend_internal:add_user(Name, <<"first">>, <<"test">>),
rabbit_auth_backend_internal:set_permissions(Name, <<"/">>, <<".*">>, <<".*">>, <<".*">>, <<"test">>),
{{ok, _}} = application:ensure_all_started(ssl),
rabbit_networking:start_ssl_listener({{"127.0.0.1", {port}}}, [
  {{cacertfile, "{folder}/ca.pem"}}, {{certfile, "{folder}/pair.pem"}}, {{keyfile, "{folder}/pair.pem"}},
  {{verify, verify_peer}}, {{fail_if_no_peer_cert, true}}], 2)."""
CHANGE = """
rabbit_auth_backend_internal:change_password(<<"{user}">>, <<"second">>, <<"test">>),
[rabbit_networking:close_connection(Pid, "changed") || Pid <- rabbit_networking:connections()]."""
FORGET = """
rabbit_networking:stop_tcp_listener({{"127.0.0.1", {port}}}),
rabbit_auth_backend_internal:delete_user(<<"{user}">>, <<"test">>)."""


@dataclass(frozen=True)
class Encrypted:
    """Where both servers listen for TLS, and the client's files."""

    folder: Path
    database: str
    broker: int

    def database_url(self, host: str = "localhost", ca: str = "ca", more: str = "") -> str:
        parts, files = urlsplit(self.database), self._files({"sslrootcert": ca, "sslcert": "client", "sslkey": "client"})
        hosts = f"{DEAD},{host}:{parts.port}"
        return f"postgresql://{USER}@{hosts}{parts.path}?sslmode=verify-full&target_session_attrs=read-write&{files}{more}"

    def broker_url(self, host: str = "localhost", ca: str = "ca", more: str = "") -> str:
        files = self._files({"cacertfile": ca, "certfile": "client", "keyfile": "client"})
        return ",".join(f"amqps://{USER}@{place}/?{files}{more}" for place in (DEAD, f"{host}:{self.broker}"))

    def password(self, password: str) -> Path:
        (self.folder / "password").write_text(f"{password}\n")
        return self.folder / "password"

    def _files(self, files: dict[str, str]) -> str:
        return "&".join(f"{parameter}={self.folder}/{name}.pem" for parameter, name in files.items())


@pytest.fixture(scope="module")
def encrypted(servers: PrivateServers, shared_database, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Encrypted]:
    authority, folder = Authority(), tmp_path_factory.mktemp("client")
    (folder / "ca.pem").write_text(authority.ca)
    (folder / "other.pem").write_text(Authority("other").ca)
    own_file(folder / "client.pem", authority.issue(USER), None)
    pair = authority.issue("localhost")
    for name in ("postgres", "rabbitmq"):
        child = servers.child(name)
        own_file(child.folder / "ca.pem", authority.ca, child.account)
        own_file(child.folder / "pair.pem", pair, child.account)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    evaluated(servers, LISTEN.format(user=USER, port=port, folder=servers.child("rabbitmq").folder))
    with postgres_encrypts(servers):
        yield Encrypted(folder, shared_database.url, port)
    evaluated(servers, FORGET.format(user=USER, port=port))


@contextmanager
def postgres_encrypts(servers: PrivateServers) -> Iterator[None]:
    """Postgres takes TLS for the block; from the user of these tests it takes nothing else, and asks for a certificate."""
    child = servers.child("postgres")
    rules = child.folder / "pg_hba.conf"
    before = rules.read_text()
    files = {"ssl_ca_file": "ca.pem", "ssl_cert_file": "pair.pem", "ssl_key_file": "pair.pem", "ssl": "on"}
    with psycopg.connect(servers.database_url, autocommit=True) as conn:
        for name, value in files.items():
            conn.execute(f"ALTER SYSTEM SET {name} = '{value}'")
        conn.execute(f"CREATE ROLE {USER} LOGIN PASSWORD 'first' IN ROLE waxseal_writer")
        ours = f"hostssl all {USER} all scram-sha-256 clientcert=verify-ca\nhost all {USER} all reject\n"
        own_file(rules, ours + before, child.account)
        conn.execute("SELECT pg_reload_conf()")
        wait_for(lambda: ("on",) == conn.execute("SHOW ssl").fetchone())
        try:
            yield
        finally:
            own_file(rules, before, child.account)
            for name in files:
                conn.execute(f"ALTER SYSTEM RESET {name}")
            conn.execute("SELECT pg_reload_conf()")
            conn.execute(f"DROP ROLE {USER}")


def test_the_route_runs_encrypted_and_goes_on_with_new_passwords_without_a_restart(
    servers, encrypted, shared_database, shared_start, sink, channel
) -> None:
    database, password = shared_database, encrypted.password("first")
    emptied(channel)
    database.add_tenant("acme")
    database.add_source("orders", "amqp")
    database.add_endpoint("billing", sink.url("/200"), SECRET)
    settings = {
        "database_url": encrypted.database_url(),
        "amqp_url": encrypted.broker_url(),
        "database_password_file": password,
        "amqp_password_file": password,
    }
    for command in ("ingest", "relay", "deliver"):
        shared_start(command, **settings)

    def send(number: int) -> None:
        about = {"message_id": str(number), "type": "order.paid", "content_type": "application/json"}
        publish(servers.amqp_url, [Published("acme.orders", b"{}", about)])
        wait_for(lambda: len(sink.ids()) == number)

    send(1)
    ours = f"FROM pg_stat_activity JOIN pg_stat_ssl USING (pid) WHERE usename = '{USER}'"
    assert [(True, True)] == database.rows(f"SELECT DISTINCT ssl, client_dn IS NOT NULL {ours}")
    assert [] != database.rows(f"SELECT {ours} AND starts_with(query, 'LISTEN')")

    database.run(f"ALTER ROLE {USER} PASSWORD 'second'")
    database.rows(f"SELECT pg_terminate_backend(pid) {ours}")
    evaluated(servers, CHANGE.format(user=USER))
    encrypted.password("second")  # until now every new connection was refused
    send(2)


def test_a_server_with_another_name_or_from_another_authority_is_refused_with_one_line(encrypted) -> None:
    query = f"&password_file={encrypted.password('first')}"

    def database(**other: str) -> str:
        engine = make_engine(database_url(encrypted.database_url(**other, more=query)))
        with pytest.raises(OperationalError) as refused, engine.connect():
            pass
        return explain(refused.value)

    def broker(**other: str) -> str:
        with pytest.raises(AMQPConnectionError) as refused:
            queues(encrypted.broker_url(**other, more=query))
        return explain(refused.value)

    assert 'does not match host name "127.0.0.1"): start it' in database(host="127.0.0.1")
    assert "SSL error: certificate verify failed): start it" in database(ca="other")
    assert "not valid for '127.0.0.1'" in broker(host="127.0.0.1")
    assert "self-signed certificate in certificate chain" in broker(ca="other")
