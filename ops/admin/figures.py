"""Figures for the console's first page and an endpoint's: what needs somebody, how much there is, and rates by the minute.

Every count says what it is: `exact`, `at_least` where it stopped at a bound, or `about`.
"""

import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Final
from weakref import WeakKeyDictionary

from sqlalchemy import Connection, Engine
from sqlalchemy import RowMapping as Row

from ops.admin.search.found import BadSearch, checked, reading
from ops.admin.views import View, rfc3339
from pipeline.store.search import figures, minutes

KEPT: Final = 5.0  # seconds for which one answer is given to everybody
MOST_ANSWERS: Final = 1000  # in memory
LATE: Final = timedelta(minutes=10)  # that a delivery is due
LAG: Final = timedelta(minutes=1)  # that an entry waits for its position, or for the index
MOST_HOURS: Final = 168
POINTS: Final = 180  # of a plot, at most

_HOUR: Final = 60
_MINUTE: Final = timedelta(minutes=1)
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass
class _Kept:
    """An answer, and the lock of whoever makes it: the others wait for it instead of asking as well."""

    at: float = float("-inf")
    view: View = field(default_factory=dict)
    lock: threading.Lock = field(default_factory=threading.Lock)


_ANSWERS: Final[WeakKeyDictionary[Engine, dict[str | None, _Kept]]] = WeakKeyDictionary()
_ANSWERS_LOCK: Final = threading.Lock()


def _kept(engine: Engine, tenant: str | None) -> _Kept:
    with _ANSWERS_LOCK:
        answers = _ANSWERS.setdefault(engine, {})
        if len(answers) >= MOST_ANSWERS:
            answers.clear()
        return answers.setdefault(tenant, _Kept())


def home(engine: Engine, tenant: str | None) -> View:
    """What a tenant's first page shows, or that of all tenants: `problems`, `numbers` and `series` of the last 60 minutes.

    It is made at most once in five seconds, and says when: `at`. Do not change what it gives. In a series, null is a minute
    of which nothing is known yet.
    """
    checked(tenant or "")
    kept = _kept(engine, tenant)
    with kept.lock:
        if time.monotonic() - kept.at >= KEPT:
            with reading(engine) as conn:
                kept.view = _home(conn, tenant, datetime.now(UTC))
            kept.at = time.monotonic()
        return kept.view


def endpoint_figures(engine: Engine, tenant: str, name: str, hours: int) -> View | None:
    """Tries at an endpoint in the last `hours`, by outcome, with their durations; None if the tenant has no such endpoint.

    Each point of the series is of `step` minutes, the first of those after `since`; null: nothing was counted yet.
    """
    if not 1 <= hours <= MOST_HOURS:
        raise BadSearch(f"hours: 1 to {MOST_HOURS}")
    step = -(-hours * _HOUR // POINTS)
    end = datetime.now(UTC).replace(second=0, microsecond=0) + _MINUTE
    since = end - timedelta(minutes=-(-hours * _HOUR // step) * step)
    with reading(engine) as conn:
        rows = figures.of_endpoint(conn, checked(tenant), checked(name), since)
        counted = minutes.counted_to(conn)
    if rows is None:
        return None
    points = [_Point() for _ in range((end - since) // (step * _MINUTE))]
    for row in rows:
        points[min((row["minute"] - since) // (step * _MINUTE), len(points) - 1)].add(row)
    known = 0 if counted is None else max(0, -(-(counted + _MINUTE - since) // (step * _MINUTE)))
    shown = [point if n < known else None for n, point in enumerate(points)]
    series: View = {
        outcome: [None if each is None else each.n.get(outcome, 0) for each in shown]
        for outcome in ("delivered", "retry", "dead")
    }
    for part, quantile in (("p50_ms", 0.5), ("p95_ms", 0.95)):
        series[part] = [None if each is None else _quantile(each.buckets, quantile) for each in shown]
    tried = sum((sum(each.n.values()) for each in points), 0)
    return {
        "since": rfc3339(since),
        "step": step,
        "at": rfc3339(datetime.now(UTC)),
        "series": series,
        "tried": {"count": tried, "relation": "exact"},
        "seconds": round(sum(each.seconds for each in points), 3),
    }


class _Point:
    """Tries of some minutes."""

    def __init__(self) -> None:
        self.n: dict[str, int] = {}
        self.seconds = 0.0
        self.buckets = [0] * (len(minutes.BOUNDS) + 1)

    def add(self, row: Row) -> None:
        self.n[row["outcome"]] = self.n.get(row["outcome"], 0) + row["n"]
        self.seconds += row["seconds"]
        self.buckets = [ours + more for ours, more in zip(self.buckets, row["buckets"], strict=True)]


def _quantile(buckets: Sequence[int], share: float) -> float | None:
    """About the duration, in milliseconds, that this share of tries was shorter than; evenly spread within a bucket."""
    left = share * sum(buckets)
    if not left:
        return None
    bounds = (0.0, *minutes.BOUNDS, minutes.BOUNDS[-1])
    for n, (count, low) in enumerate(zip(buckets, bounds[:-1], strict=True)):
        if count and left <= count:
            return round(1000 * (low + (bounds[n + 1] - low) * left / count), 1)
        left -= count
    return round(1000 * minutes.BOUNDS[-1], 1)


def _home(conn: Connection, tenant: str | None, now: datetime) -> View:
    (index,) = figures.listed(conn, figures.INDEX, tenant)
    open_letters = _capped(figures.count(conn, "dead_letters", tenant))
    return {
        "at": rfc3339(now),
        "problems": list(_problems(conn, tenant, now, index, open_letters)),
        "numbers": {
            **{state: _capped(figures.count(conn, state, tenant)) for state in ("pending", "leased", "paused")},
            "dead_letters": open_letters,
            "entries": {"count": int(index["size"]), "relation": "exact"},
            "oldest_due": rfc3339(figures.moment(conn, figures.OLDEST_DUE, tenant)),
            "not_indexed": {"count": int(index["behind"]), "relation": "exact"},
            "indexed_to": rfc3339(index["reached"] or index["newest"]),
        },
        "series": _series(conn, tenant, now, index),
    }


def _capped(n: int) -> View:
    bound = figures.CAPPED - 1
    return {"count": min(n, bound), "relation": "at_least" if n > bound else "exact"}


def _series(conn: Connection, tenant: str | None, now: datetime, index: Row) -> View:
    this = now.replace(second=0, microsecond=0)
    last_hour = [this - n * _MINUTE for n in range(_HOUR - 1, -1, -1)]
    given = {"since": last_hour[0]}
    accepted = {row["minute"]: row["n"] for row in figures.listed(conn, figures.ACCEPTED, tenant, **given)}
    tried = {row["minute"]: row for row in figures.listed(conn, figures.TRIED, tenant, **given)}
    indexed = index["reached"] if index["behind"] else now
    counted = minutes.counted_to(conn)
    return {
        "accepted": [_known(accepted, each, indexed) for each in last_hour],
        "delivered": [_known({at: row["delivered"] for at, row in tried.items()}, each, counted) for each in last_hour],
        "failed": [_known({at: row["failed"] for at, row in tried.items()}, each, counted) for each in last_hour],
    }


def _known(by_minute: Mapping[datetime, int], minute: datetime, upto: datetime | None) -> int | None:
    return None if upto is None or minute > upto else int(by_minute.get(minute, 0))


def _problems(conn: Connection, tenant: str | None, now: datetime, index: Row, letters: View) -> Iterator[View]:
    """What needs somebody, with what to do about it; `page`, `tenant` and `name` say where to look."""
    for row in figures.listed(conn, figures.ENDPOINTS, tenant, late=now - LATE):
        yield _endpoint(row)
    for row in figures.listed(conn, figures.MAILBOXES, tenant):
        what = f"mailbox {row['name']} needs reauthorization" + (f": {row['reason']}" if row["reason"] else "")
        yield _problem("reauthorize", what, row["state_at"], "reauthorize it", "mailbox", row["tenant"], row["name"])
    if letters["count"]:
        n = f"{letters['count']:,}" + (" or more" if letters["relation"] == "at_least" else "")
        since = figures.moment(conn, figures.OLDEST_DEAD, tenant)
        what = f"{n} dead {'letter waits' if letters['count'] == 1 else 'letters wait'} for a decision"
        yield _problem("dead_letters", what, since, "replay or discard them", "dead_letters", tenant, None)
    yield from _ledger(conn, tenant)
    yield from _lags(conn, tenant, now, index)


def _endpoint(row: Row) -> View:
    name = row["name"]
    about = ("endpoint", row["tenant"], name)
    if row["state"] == "disabled":
        what = f"endpoint {name} is disabled: {row['reason']}"
        return _problem("disabled", what, row["disabled_at"], "mend it, then enable it", *about)
    if row["breaker"] != "closed":
        by = " by an operator" if row["forced"] else ""
        last = f": {row['last_error']}" if row["last_error"] else ""
        what = f"the breaker of endpoint {name} is {row['breaker'].replace('_', ' ')}{by}{last}"
        act = "close it" if row["forced"] else "see why it fails; it is tried again by itself"
        return _problem("breaker", what, row["opened_at"], act, *about)
    what = f"deliveries to endpoint {name} are due and not tried"
    return _problem("late", what, row["oldest"], "see whether it limits its rate, and whether relay and deliver run", *about)


def _ledger(conn: Connection, tenant: str | None) -> Iterator[View]:
    for row in figures.listed(conn, figures.CLAIMS, tenant):
        what = f"nothing can be claimed of {row['tenant']}'s ledger: {row['missing']}"
        yield _problem("claim", what, row["checked_at"], "verify it, and look at each fault", "ledger", row["tenant"], None)
    for row in figures.listed(conn, figures.REFUSALS, tenant):
        what = f"{row['tenant']}'s log is not signed ({row['kind']}): {row['detail']}"
        yield _problem("log_refused", what, row["since"], "see the page on the log first of all", "ledger", row["tenant"])
    for row in figures.listed(conn, figures.ASIDE, tenant):
        chains = "1 chain was" if row["n"] == 1 else f"{row['n']} chains were"
        what = f"{chains} set aside in {row['tenant']}, nothing is added: {row['fault']}"
        yield _problem("chain_aside", what, row["since"], "verify the ledger", "ledger", row["tenant"], None)


def _lags(conn: Connection, tenant: str | None, now: datetime, index: Row) -> Iterator[View]:
    at: int | None = figures.moment(conn, figures.UNSEQUENCED, tenant)
    waits_since = None if at is None else _EPOCH + timedelta(microseconds=at)
    if waits_since is not None and now - waits_since > LAG:
        what = "entries wait for their position in the log"
        yield _problem("sequencer", what, waits_since, "see whether the sequencer runs", "ledger", tenant, None)
    if index["behind"] and (index["reached"] is None or now - index["reached"] > LAG):
        what = f"{int(index['behind']):,} entries are not in the search index yet"
        yield _problem("index", what, index["reached"], "wait; if the number grows, see the console's log", "events", tenant)


def _problem(
    kind: str, what: str, since: datetime | None, act: str, page: str, tenant: str | None, name: str | None = None
) -> View:
    return {"kind": kind, "what": what, "since": rfc3339(since), "act": act, "page": page, "tenant": tenant, "name": name}
