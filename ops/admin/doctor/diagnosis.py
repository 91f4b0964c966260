"""All checks of the set-up, in the order in which one would mend. A server that hangs ends only its own checks."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Final
from urllib.parse import unquote, urlsplit

import psycopg
from sqlalchemy import RowMapping as Row
from sqlalchemy.engine import make_url
from sqlalchemy.exc import DBAPIError

from ops.admin.asked import Asked, Unheard
from ops.admin.doctor.broker_checks import BrokerFacts, check_broker
from ops.admin.doctor.claim_checks import check_claims
from ops.admin.doctor.cluster_checks import heard_cluster
from ops.admin.doctor.finding import Finding, wrong
from ops.admin.doctor.host_checks import check_hosts
from ops.admin.doctor.log_checks import check_logs
from ops.admin.doctor.machine_checks import (
    check_blobs,
    check_disks,
    check_names,
    check_ports,
    check_processes,
    check_settings,
)
from ops.admin.doctor.move_checks import check_moves
from ops.admin.doctor.postgres_checks import check_postgres
from ops.admin.status.members import members
from ops.errors import OpsError, one_line
from ops.runtime.db import make_engine
from ops.server_urls import broker_place, broker_urls
from ops.servers.state_file import peek
from ops.settings import Settings
from pipeline.store.admin import inspection, schema_version

InspectBroker = Callable[[str], BrokerFacts]

_POSTGRES_SECONDS: Final = 12.0
_BROKER_SECONDS: Final = 10.0
_STATEMENT_SECONDS: Final = 8.0
_MOST_HOSTS: Final = 100


def diagnose(
    data: Path, settings: Settings, inspect_broker: InspectBroker, rabbitmqctl: str | None = None
) -> Iterator[Finding]:
    """Every finding. Raises nothing that a server or a disk does wrong: that is a finding.

    `rabbitmqctl` is a command that runs it on a node of the broker, for what AMQP does not tell.
    """
    postgres: Asked[tuple[list[Finding], Sequence[Row]]] = Asked()
    broker: Asked[BrokerFacts] = Asked()
    if settings.database_url:
        postgres.ask(lambda: _postgres(settings, alone=_is_private(data, settings.database_url, "postgres")))
    if settings.amqp_url:
        broker.ask(lambda: inspect_broker(settings.amqp_url))
    yield from check_settings(settings)
    rows: Sequence[Row] = ()
    if settings.database_url:
        found, rows = _heard_postgres(postgres, settings)
        yield from found
        yield from check_hosts(settings.direct_url)
    else:
        yield _unset("postgres", "WAXSEAL_DATABASE_URL", data)
    if settings.amqp_url:
        yield from _heard_broker(broker, settings, alone=_is_private(data, settings.amqp_url, "amqp"))
        if rabbitmqctl is not None:
            yield from heard_cluster(rabbitmqctl, _vhost(settings.amqp_url))
    else:
        yield _unset("broker", "WAXSEAL_AMQP_URL", data)
    known = members(data, settings)
    yield from check_processes(known, data)
    yield from check_ports(settings, known)
    yield from check_disks(_places(data, settings))
    yield check_blobs(settings)
    yield from check_names(rows)


def _postgres(settings: Settings, *, alone: bool) -> tuple[list[Finding], Sequence[Row]]:
    """The checks of Postgres, and where endpoints and mailboxes are, for the check of their names."""
    engine = make_engine(settings.direct_url, pool_size=1, statement_timeout=_STATEMENT_SECONDS)
    try:
        with engine.connect() as conn:
            found = list(check_postgres(conn, settings, alone=alone))
            if schema_version.found(conn).filled and not _is_old(found):
                found += check_logs(conn, settings)
                found += check_claims(conn)
                found += check_moves(conn)
            configured = schema_version.found(conn).filled
            return found, inspection.hosts(conn, _MOST_HOSTS) if configured and not _is_old(found) else ()
    finally:
        engine.dispose()


def _is_old(found: Sequence[Finding]) -> bool:
    return any(each.check == "schema" and each.state == "wrong" for each in found)


def _heard_postgres(
    asked: Asked[tuple[list[Finding], Sequence[Row]]], settings: Settings
) -> tuple[Sequence[Finding], Sequence[Row]]:
    try:
        return asked.answer(_POSTGRES_SECONDS)
    except (Unheard, DBAPIError, psycopg.Error, OpsError) as error:
        where = make_url(settings.direct_url).render_as_string(hide_password=True)
        mend = "start Postgres, or correct WAXSEAL_DATABASE_URL, its user, and pg_hba.conf"
        return [wrong("postgres", f"{where}: {one_line(error)}", mend)], ()


def _heard_broker(asked: Asked[BrokerFacts], settings: Settings, *, alone: bool) -> Sequence[Finding]:
    try:
        return list(check_broker(asked.answer(_BROKER_SECONDS), alone=alone))
    except Exception as error:  # noqa: BLE001 - pika's errors cannot be named here; any of them means that it does not answer
        where = ", ".join(map(broker_place, broker_urls(settings.amqp_url)))
        said = f"{type(error).__name__} {one_line(error)}".strip()
        mend = "start RabbitMQ, or correct WAXSEAL_AMQP_URL, its user and virtual host"
        return [wrong("broker", f"{where}: {said}", mend)]


def _is_private(data: Path, url: str, server: str) -> bool:
    """Whether the URL leads to the server that `waxseal up` runs on this folder."""
    memory = peek(data)
    parts = urlsplit(broker_urls(url)[0])
    return memory is not None and (parts.hostname, parts.port) == ("127.0.0.1", memory.ports.get(server))


def _vhost(amqp_url: str) -> str:
    return unquote(urlsplit(broker_urls(amqp_url)[0]).path[1:]) or "/"


def _unset(check: str, variable: str, data: Path) -> Finding:
    return wrong(check, f"{variable} is not set, and no system was started on {data}", "set it, or run `waxseal up`")


def _places(data: Path, settings: Settings) -> dict[str, Path]:
    """The folders whose disks fill up."""
    places = {} if settings.blobs.startswith("s3://") else {"blob store": Path(settings.blobs)}
    memory = peek(data)
    if memory is not None:
        places |= {"data folder": data, "servers": memory.folder}
    return places
