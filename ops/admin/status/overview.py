"""The state of the system: processes, the route, deliveries, dead letters, the ledger's size, and what is wrong."""

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final, TypeVar

import psycopg
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from ops.admin.asked import Asked, Unheard
from ops.admin.read_session import explained, snapshot
from ops.admin.status import facts as database
from ops.admin.status.facts import PLAIN, Backlog, Facts
from ops.admin.status.members import Member, Questions, Said, age, members, roles
from ops.admin.status.route import Queues, Sample, route
from ops.admin.status.troubles import of_facts, of_members, of_queues, of_servers, of_urls
from ops.admin.views import View
from ops.errors import one_line
from ops.runtime.db import make_engine, passes
from ops.runtime.schema_check import check
from ops.settings import Settings

_Answer = TypeVar("_Answer")

AskBroker = Callable[[str], Queues]

_DATABASE_SECONDS: Final = 30.0  # a frozen server is noticed within nine; a large ledger takes its time to be counted
_BROKER_SECONDS: Final = 6.0  # `AskBroker` gives up after five
_STATEMENT_SECONDS: Final = 25.0


class Watcher:
    """Looks at the system as often as it is asked to. What does not answer is left out, and named; the rest is shown.

    Not for several threads at once.
    """

    def __init__(self, data: Path, settings: Settings, ask_broker: AskBroker, urls: Sequence[str] = ()) -> None:
        """`urls` are addresses of /metrics of processes that `waxseal up` did not start."""
        self._data = data
        self._settings = settings
        self._ask_broker = ask_broker
        self._urls = urls
        self._engine = make_engine(settings.direct_url, pool_size=2, statement_timeout=_STATEMENT_SECONDS)
        self._database: Asked[Backlog] = Asked()
        self._whole: Asked[Facts] = Asked()
        self._broker: Asked[Queues] = Asked()
        self._processes = Questions()
        self._before: Sample | None = None
        self._away: str | None = None  # why the database did not answer the sample just taken

    def close(self) -> None:
        """Close the connection to the database; questions that hang end by themselves."""
        self._engine.dispose()

    def sample(self) -> None:
        """Take a sample for the rates that the next `look` shows."""
        asked = self._ask()
        self._database.ask(self._read_backlog)
        heard = _heard(self._database)
        backlog, self._away = heard
        self._before = Sample(time.monotonic(), self._processes.answers(asked), self._queues()[0], backlog)

    def look(self) -> View:
        """The state as one JSON object. Without the database or the broker, what they would say is null, with the reason."""
        known = members(self._data, self._settings)
        asked = self._ask()
        if self._away is None:
            self._whole.ask(self._read_facts)
        queues, broker_error = self._queues()
        said = self._processes.answers(asked)
        found: Facts | None = None
        database_error = self._away
        if database_error is None:
            heard = _heard(self._whole)
            found, database_error = heard
        self._away = None
        now = Sample(time.monotonic(), said, queues, found.backlog if found else None)
        before, self._before = self._before, now
        dead_letters = (sum(found.plain["dead_letters"].values()), found.plain["oldest_dead_letter_seconds"]) if found else None
        errors = {"database": database_error, "broker": broker_error if self._settings.amqp_url else None}
        return {
            "processes": None if known is None else self._by_role(known, said),
            "queues": None if queues is None else {name: state and state[0] for name, state in queues.items()},
            "queues_error": broker_error,
            "database_error": database_error,
            **(found.plain if found else dict.fromkeys(PLAIN)),
            "measured_seconds": None if before is None else round(now.at - before.at, 3),
            "route": route(before, now, dead_letters),
            "dead_letters_by_reason": found and found.reasons,
            "troubles": [
                *of_servers(errors, self._data),
                *of_members(known or [], said, self._data),
                *of_urls(self._urls, said),
                *of_queues(queues, self._data),
                *(of_facts(found, self._data) if found else ()),
            ],
        }

    def _ask(self) -> list[str]:
        """Begin to ask the broker and the processes; gives the addresses of the processes."""
        if self._settings.amqp_url:
            self._broker.ask(lambda: self._ask_broker(self._settings.amqp_url))
        known = members(self._data, self._settings) or []
        asked = [*(each.url for each in known if each.url and each.seen.alive()), *self._urls]
        self._processes.ask(asked)
        return asked

    def _read_backlog(self) -> Backlog:
        with explained(), snapshot(self._engine) as conn:
            check(conn)
            return database.backlog(conn)

    def _read_facts(self) -> Facts:
        with explained(), snapshot(self._engine) as conn:
            check(conn)
            return database.facts(conn)

    def _queues(self) -> tuple[Queues | None, str | None]:
        if not self._settings.amqp_url:
            return None, "WAXSEAL_AMQP_URL is not set"
        try:
            return self._broker.answer(_BROKER_SECONDS), None
        except Exception as error:  # noqa: BLE001 - pika's errors cannot be named here; any of them means that it does not answer
            return None, f"the broker does not answer: {type(error).__name__} {one_line(error)}".strip()

    def _by_role(self, known: Sequence[Member], said: dict[str, Said]) -> dict[str, list[View]]:
        found: dict[str, list[View]] = {role: [] for role in roles(self._data)}
        for each in known:
            up = each.seen.alive()
            unready = said[each.url].unready if each.url in said else None
            view = {
                "pid": each.seen.pid,
                "up": up,
                "name": each.name,
                "age_seconds": round(age(each), 1) if up else None,
                "restarts": each.restarts,
                "ready": None if each.url is None or not up else unready is None,
                "last_end": each.last_end or None,
            }
            found.setdefault(each.role, []).append(view)
        return found


def status(data: Path, settings: Settings, ask_broker: AskBroker, urls: Sequence[str] = (), over: float = 1.0) -> View:
    """The state as one JSON object; rates and times to drain are measured over `over` seconds, with 0 not at all.

    Raises `OpsError` for a schema of another version.
    """
    watcher = Watcher(data, settings, ask_broker, urls)
    try:
        if over:
            watcher.sample()
            time.sleep(over)
        return watcher.look()
    finally:
        watcher.close()


def _heard(asked: Asked[_Answer]) -> tuple[_Answer | None, str | None]:
    """What the database answered, or why it did not. Raises `OpsError` for a schema of another version."""
    try:
        return asked.answer(_DATABASE_SECONDS), None
    except (Unheard, DBAPIError, psycopg.Error, PoolTimeout) as error:
        cause = error.orig if isinstance(error, DBAPIError) and error.orig is not None else error
        if not (isinstance(cause, Unheard | psycopg.OperationalError) or passes(error)):
            raise
        return None, f"the database does not answer: {one_line(cause)}"
