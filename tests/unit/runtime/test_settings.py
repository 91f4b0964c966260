"""Settings: read once, checked at the start, and never revealing a secret."""

from pathlib import Path

import pytest
from cryptography.fernet import Fernet
from psycopg.conninfo import make_conninfo
from sqlalchemy import make_url
from sqlalchemy.dialects.postgresql.psycopg import PGDialect_psycopg

from ops.config.settings_page import settings_page
from ops.errors import Misconfigured
from ops.server_urls import BROKER_FILES, PASSWORD_FILE, broker_place, broker_urls, database_url, read_password, split_files
from ops.servers.accounts import own_file
from ops.settings import Settings, described, load_settings
from ops.system.prepare import allowed
from ops.system.stack_file import FILE, settings_for
from support.pages import Block, blocks
from support.paths import ROOT


@pytest.fixture(autouse=True)
def bare(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable, _, _ in described():
        monkeypatch.delenv(variable, raising=False)


def test_an_empty_environment_gives_the_defaults() -> None:
    settings = load_settings()

    assert ("", "", [], 8420) == (settings.database_url, settings.amqp_url, settings.fernet_keys(), settings.ingress_port)


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("WAXSEAL_DATABASE_URL", "mysql://secret@host/db"),
        ("WAXSEAL_AMQP_URL", "http://secret@host"),
        ("WAXSEAL_KEYS", "secret"),
        ("WAXSEAL_LOG", "secret"),
        ("WAXSEAL_LOG_LEVEL", "secret"),
        ("WAXSEAL_INGRESS_PORT", "65536"),
        ("WAXSEAL_BATCH_SIZE", "secret"),
        ("WAXSEAL_PROXY", "socks5://secret@host:1080"),
        ("WAXSEAL_PROXY", "http://us:secret@host"),
        ("WAXSEAL_PROXY", "http://us:secret@host:99999"),
        ("WAXSEAL_PROXY", "http://us:secret@host:3128/path"),
    ],
)
def test_an_invalid_value_is_named_by_its_variable_and_not_shown(
    monkeypatch: pytest.MonkeyPatch, variable: str, value: str
) -> None:
    monkeypatch.setenv(variable, value)

    with pytest.raises(Misconfigured, match=f"^{variable}: ") as raised:
        load_settings()
    assert "secret" not in str(raised.value)


def test_all_invalid_values_are_named_at_once_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WAXSEAL_BATCH_SIZE", "0")
    monkeypatch.setenv("WAXSEAL_LEASE", "-1")

    with pytest.raises(Misconfigured, match=r"^WAXSEAL_BATCH_SIZE: .*; WAXSEAL_LEASE: [^\n]*$"):
        load_settings()


@pytest.mark.parametrize("networks", ["10.0.0.1/8", "localhost", "10.0.0.0/8 fd00::/8"])
def test_what_is_no_network_is_said_to_be_none(monkeypatch: pytest.MonkeyPatch, networks: str) -> None:
    monkeypatch.setenv("WAXSEAL_ALLOW_NETWORKS", networks)

    with pytest.raises(Misconfigured, match=r"^WAXSEAL_ALLOW_NETWORKS: .* is not a range as 10.0.0.0/8"):
        load_settings()


@pytest.mark.parametrize(
    ("set_to", "allowed_here"),
    [(None, "127.0.0.0/8,::1/128"), ("", "127.0.0.0/8,::1/128"), ("none", "none"), ("10.0.0.0/8", "10.0.0.0/8")],
)
def test_private_servers_let_deliveries_reach_this_machine_unless_something_else_is_said(
    monkeypatch: pytest.MonkeyPatch, set_to: str | None, allowed_here: str
) -> None:
    if set_to is not None:
        monkeypatch.setenv("WAXSEAL_ALLOW_NETWORKS", set_to)

    assert allowed_here == allowed(load_settings())


def test_a_proxy_is_taken_with_its_password_and_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WAXSEAL_PROXY", "http://us:hidden@proxy.example:3128")

    assert "http://us:hidden@proxy.example:3128" == load_settings().proxy
    assert "hidden" not in repr(load_settings())


def test_what_a_process_needs_and_does_not_have_is_named() -> None:
    with pytest.raises(Misconfigured, match=r"^WAXSEAL_AMQP_URL, WAXSEAL_KEYS: not set; "):
        load_settings("amqp_url", "keys")


def test_secrets_do_not_show(monkeypatch: pytest.MonkeyPatch) -> None:
    key = Fernet.generate_key().decode()
    monkeypatch.setenv("WAXSEAL_DATABASE_URL", "postgresql://u:hidden@h/d")
    monkeypatch.setenv("WAXSEAL_AMQP_URL", "amqp://u:hidden@h")
    monkeypatch.setenv("WAXSEAL_KEYS", key)

    shown = repr(load_settings())
    assert ("hidden" in shown, key in shown) == (False, False)


def test_keys_come_newest_first_from_the_variable_or_the_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    new, old, other = (Fernet.generate_key().decode() for _ in range(3))
    (tmp_path / "keys").write_text(f"{new}\n{old}\n")
    monkeypatch.setenv("WAXSEAL_KEYS_FILE", str(tmp_path / "keys"))
    assert [new, old] == load_settings("keys").fernet_keys()

    monkeypatch.setenv("WAXSEAL_KEYS", f"{other}, {old}")
    assert [other, old] == load_settings("keys").fernet_keys()


def test_a_keys_file_that_cannot_be_read_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("WAXSEAL_KEYS_FILE", str(tmp_path / "none"))

    with pytest.raises(Misconfigured, match=r"^WAXSEAL_KEYS_FILE: .*none"):
        load_settings("keys")


@pytest.mark.parametrize("server", ["database", "amqp"])
def test_a_password_comes_from_a_file_whatever_characters_it_has(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, server: str
) -> None:
    scheme = {"database": "postgresql", "amqp": "amqp"}[server]
    (tmp_path / "password").write_text("p@ss/word:?#% ü\n", encoding="utf-8")
    monkeypatch.setenv(f"WAXSEAL_{server.upper()}_URL", f"{scheme}://worker@host:1/name")
    monkeypatch.setenv(f"WAXSEAL_{server.upper()}_PASSWORD_FILE", str(tmp_path / "password"))

    plain, files = split_files(getattr(load_settings(), f"{server}_url"), (PASSWORD_FILE,))
    assert f"{scheme}://worker@host:1/name" == plain
    assert "p@ss/word:?#% ü" == read_password(files[PASSWORD_FILE])


@pytest.mark.parametrize("url", ["", "postgresql://host/name", "postgresql://worker:secret@host/name"])
def test_a_password_file_wants_a_url_with_a_user_and_without_a_password(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, url: str
) -> None:
    (tmp_path / "password").write_text("secret")
    monkeypatch.setenv("WAXSEAL_DATABASE_URL", url)
    monkeypatch.setenv("WAXSEAL_DATABASE_PASSWORD_FILE", str(tmp_path / "password"))

    with pytest.raises(Misconfigured, match=r"^WAXSEAL_DATABASE_PASSWORD_FILE: WAXSEAL_DATABASE_URL must name") as raised:
        load_settings()
    assert "secret" not in str(raised.value)


def test_a_password_file_that_cannot_be_read_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("WAXSEAL_AMQP_URL", "amqp://worker@host/")
    monkeypatch.setenv("WAXSEAL_AMQP_PASSWORD_FILE", str(tmp_path / "none"))

    with pytest.raises(Misconfigured, match=r"^WAXSEAL_AMQP_PASSWORD_FILE: .*none"):
        load_settings()


def test_several_hosts_of_postgres_are_given_in_the_form_of_the_driver() -> None:
    def read(url: str) -> dict[str, object]:
        return dict(PGDialect_psycopg().create_connect_args(make_url(database_url(url)))[1])

    several = read("postgresql://worker:p%2C@one:1,two:2/name?target_session_attrs=read-write&sslrootcert=/ca.pem")
    assert {
        "user": "worker",
        "password": "p,",
        "host": "one,two",
        "port": "1,2",
        "dbname": "name",
        "target_session_attrs": "read-write",
        "sslrootcert": "/ca.pem",
    } == several
    assert {"dbname": "name", "host": "one,two", "port": "1,2"} == read("postgresql://one:1,two:2/name")
    assert "postgresql:///name?host=/run" == database_url("postgresql:///name?host=/run")


def test_several_brokers_share_a_file_of_the_password(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "password").write_text("secret")
    monkeypatch.setenv("WAXSEAL_AMQP_URL", "amqps://a,b@one/?cacertfile=/ca.pem, amqp://b@two:1/v")
    monkeypatch.setenv("WAXSEAL_AMQP_PASSWORD_FILE", str(tmp_path / "password"))

    file = f"password_file={tmp_path}/password"
    urls = broker_urls(load_settings().amqp_url)
    assert [f"amqps://a,b@one/?cacertfile=/ca.pem&{file}", f"amqp://b@two:1/v?{file}"] == urls
    assert ["one:5671/", "two:1/v"] == [broker_place(url) for url in urls]


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("amqp://u:secret@a/?cacertfile=/ca.pem", "are for amqps"),
        ("amqps://u:secret@a/?certfile=/c.pem", "belong together"),
        ("amqps://u:secret@a/?ssl_options={}", "ssl_options is not read"),
        ("amqps://u:secret/2@a/", "signs in the password"),
        ("amqps://u:secret@a/,http://b", "each in the list must start"),
    ],
)
def test_a_url_of_a_broker_that_would_not_be_connected_to_as_it_is_written_is_refused_without_its_password(
    monkeypatch: pytest.MonkeyPatch, url: str, why: str
) -> None:
    monkeypatch.setenv("WAXSEAL_AMQP_URL", url)
    with pytest.raises(Misconfigured, match=f"^WAXSEAL_AMQP_URL: .*({why})") as raised:
        load_settings()
    assert "secret" not in str(raised.value)


@pytest.mark.parametrize("block", blocks("ini", "ops/docs/connections.md"))
def test_the_urls_on_the_page_on_connections_are_taken(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, block: Block) -> None:
    (tmp_path / "password").write_text("secret")
    given = dict(line.split("=", 1) for line in block.text.splitlines())
    for name, value in given.items():
        monkeypatch.setenv(name, value)
        monkeypatch.setenv(f"{name.replace('_DIRECT', '').removesuffix('_URL')}_PASSWORD_FILE", str(tmp_path / "password"))

    settings = load_settings("database_url")
    for url in filter(None, [settings.database_url, settings.database_direct_url, *broker_urls(settings.amqp_url)]):
        plain, files = split_files(url, BROKER_FILES)
        assert files[PASSWORD_FILE] == str(tmp_path / "password")
        if plain.startswith("postgresql"):
            make_conninfo(**PGDialect_psycopg().create_connect_args(make_url(plain))[1])  # raises for an unknown parameter


def test_a_running_system_fills_in_what_the_environment_leaves_out(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "keys").write_text(Fernet.generate_key().decode())
    stack = f'{{"database_url": "postgresql://d", "amqp_url": "amqp://s", "keys_file": "{tmp_path / "keys"}", "blobs": "b"}}'
    own_file(tmp_path / FILE, stack, None)
    monkeypatch.setenv("WAXSEAL_AMQP_URL", "amqp://mine")

    settings = settings_for(tmp_path, "database_url", "amqp_url", "keys")
    assert ("postgresql://d", "amqp://mine", "b") == (settings.database_url, settings.amqp_url, settings.blobs)
    assert 1 == len(settings.fernet_keys())


def test_a_system_that_was_given_its_keys_in_the_environment_has_no_file_of_them(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    own_file(tmp_path / FILE, '{"database_url": "postgresql://d", "amqp_url": "amqp://s", "keys_file": ""}', None)

    with pytest.raises(Misconfigured, match=r"^WAXSEAL_KEYS: not set"):
        settings_for(tmp_path, "database_url", "keys")
    monkeypatch.setenv("WAXSEAL_KEYS_FILE", str(tmp_path / "none"))
    with pytest.raises(Misconfigured, match=r"^WAXSEAL_KEYS_FILE: .*No such file"):
        settings_for(tmp_path, "database_url", "keys")


def test_settings_cannot_be_changed() -> None:
    with pytest.raises(ValueError, match="frozen"):
        Settings().batch_size = 1


def test_every_setting_is_explained() -> None:
    assert [] == [variable for variable, _, meaning in described() if not meaning]


def test_the_page_on_settings_is_what_is_generated_from_them() -> None:
    assert settings_page() == (ROOT / "ops/docs/settings.md").read_text(encoding="utf-8")
