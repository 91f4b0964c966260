"""Statements on retention: the policies, how far each is carried out, and the content that is due to be erased.

Content is found by when its entry was recorded, by our clock: the time in an event is its sender's.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import Connection, text

from pipeline.store.array_literals import plain, quoted

POLICIES = text("""
    SELECT tenant.name AS tenant, tenant.retention, source.name AS source,
           CAST(source.settings ->> 'retention' AS bigint) AS own
    FROM tenant LEFT JOIN source ON source.tenant_id = tenant.id
    WHERE NOT EXISTS (SELECT FROM tenant_move AS move
                      WHERE move.tenant = tenant.name AND move.state IN ('moving', 'moved', 'finishing', 'arriving'))
    ORDER BY 1, 3""")

# Summaries of the table's megabytes find the period, and the primary key each content: neither a sort nor a join of all of it.
BY_INDEX = text("""
    SELECT set_config(name, 'off', true)
    FROM unnest(ARRAY['enable_seqscan', 'enable_hashjoin', 'enable_mergejoin', 'jit']) AS name""")

_DUE = """
    FROM entry JOIN content USING (chain_id, seq)
    WHERE entry.at >= :since AND entry.at < :until AND entry.tenant = :tenant AND entry.kind = 'event'
      AND CASE WHEN CAST(:source AS text) = '' THEN content.source <> ALL(CAST(:others AS text[]))
               ELSE content.source = :source END"""

DUE = text(f"SELECT chain_id, seq, entry.at {_DUE} ORDER BY entry.at, chain_id, seq LIMIT :limit")

COUNT_DUE = text(f"""
    SELECT count(*) AS entries, coalesce(sum(octet_length(attributes) + coalesce(octet_length(body), 0)), 0) AS bytes,
           min(entry.at) AS oldest {_DUE}""")

FIRST = text("SELECT min(at) FROM entry")

# Of entries that were due a moment ago, those that still have content. A subquery with a limit never becomes a join, which
# might read the whole table.
PRESENT = text("""
    SELECT listed.chain_id, listed.seq
    FROM unnest(CAST(:chains AS uuid[]), CAST(:seqs AS bigint[])) AS listed (chain_id, seq)
    CROSS JOIN LATERAL (
      SELECT FROM content WHERE content.chain_id = listed.chain_id AND content.seq = listed.seq LIMIT 1) AS kept
    ORDER BY 1, 2""")

PROGRESS = text("SELECT policy, through, begun_at FROM retention_progress WHERE tenant = :tenant AND source = :source")

PUT_PROGRESS = text("""
    INSERT INTO retention_progress (tenant, source, policy, through, begun_at)
    VALUES (:tenant, :source, :policy, :through, :begun_at)
    ON CONFLICT (tenant, source) DO UPDATE
    SET policy = excluded.policy, through = excluded.through, begun_at = excluded.begun_at""")

LAST_RUN = text("SELECT ran_at, erased, more, held FROM retention_run")

PUT_RUN = text("""
    INSERT INTO retention_run (ran_at, erased, more, held) VALUES (:ran_at, :erased, :more, :held)
    ON CONFLICT (single) DO UPDATE
    SET ran_at = excluded.ran_at, erased = excluded.erased, more = excluded.more, held = excluded.held""")

CLOCK = text("SELECT clock_timestamp()")


@dataclass(frozen=True, slots=True)
class Policy:
    """Content of a tenant's source is kept for `seconds`; of all sources but `others`, if `source` is empty."""

    tenant: str
    source: str
    seconds: int
    others: Sequence[str] = ()

    @property
    def fingerprint(self) -> str:
        """Changes when the policy does."""
        return f"{self.seconds} {' '.join(self.others)}"


@dataclass(frozen=True, slots=True)
class Progress:
    """Everything recorded before `through` (microseconds) was looked at, beginning at `begun_at`."""

    policy: str
    through: int
    begun_at: datetime


@dataclass(frozen=True, slots=True)
class Run:
    """The last run: when, how many entries it erased, whether it stopped at its limit, and why nothing is erased, if so."""

    ran_at: datetime
    erased: int
    more: bool
    held: str | None


@dataclass(frozen=True, slots=True)
class DueContent:
    """An entry whose content is to be erased."""

    chain_id: UUID
    seq: int
    at: int


@dataclass(frozen=True, slots=True)
class DueTotal:
    """How much content is due."""

    entries: int
    bytes: int
    oldest: int | None  # microseconds


def policies(conn: Connection) -> list[Policy]:
    """Every policy, but of tenants that are between two cells: first a tenant's own, then those of its sources."""
    rows = conn.execute(POLICIES).all()
    found: list[Policy] = []
    for tenant in dict.fromkeys(row.tenant for row in rows):
        of_tenant = [row for row in rows if row.tenant == tenant]
        own = {row.source: row.own for row in of_tenant if row.own is not None}
        if of_tenant[0].retention is not None:
            found.append(Policy(tenant, "", of_tenant[0].retention, tuple(own)))
        found += [Policy(tenant, source, seconds) for source, seconds in own.items()]
    return found


def first(conn: Connection) -> int | None:
    """When the oldest entry was recorded, in microseconds; reads the whole table."""
    found: int | None = conn.execute(FIRST).scalar()
    return found


def due(conn: Connection, policy: Policy, since: int, until: int, limit: int) -> list[DueContent]:
    """At most `limit` entries with content that were recorded from `since` on and before `until`, oldest first."""
    conn.execute(BY_INDEX)
    return [DueContent(*row) for row in conn.execute(DUE, {**_asked(policy), "since": since, "until": until, "limit": limit})]


def count_due(conn: Connection, policy: Policy, until: int) -> DueTotal:
    """How much content of that policy was recorded before `until`."""
    row = conn.execute(COUNT_DUE, {**_asked(policy), "since": -(2**62), "until": until}).one()
    return DueTotal(int(row.entries), int(row.bytes), row.oldest)


def present(conn: Connection, listed: Sequence[DueContent]) -> dict[UUID, list[int]]:
    """Those of the entries that still have content, as ascending numbers by chain."""
    found: dict[UUID, list[int]] = {}
    asked = {"chains": plain(each.chain_id for each in listed), "seqs": plain(each.seq for each in listed)}
    for chain_id, seq in conn.execute(PRESENT, asked):
        found.setdefault(chain_id, []).append(seq)
    return found


def progress(conn: Connection, policy: Policy) -> Progress | None:
    """How far the policy is carried out; None if it never was."""
    row = conn.execute(PROGRESS, {"tenant": policy.tenant, "source": policy.source}).one_or_none()
    return None if row is None else Progress(*row)


def put_progress(conn: Connection, policy: Policy, reached: Progress) -> None:
    """Writes how far the policy is carried out."""
    row: dict[str, Any] = {"policy": reached.policy, "through": reached.through, "begun_at": reached.begun_at}
    conn.execute(PUT_PROGRESS, {"tenant": policy.tenant, "source": policy.source, **row})


def last_run(conn: Connection) -> Run | None:
    """The last run; None if there was none."""
    row = conn.execute(LAST_RUN).one_or_none()
    return None if row is None else Run(*row)


def put_run(conn: Connection, run: Run) -> None:
    """Writes the last run."""
    conn.execute(PUT_RUN, {"ran_at": run.ran_at, "erased": run.erased, "more": run.more, "held": run.held})


def clock(conn: Connection) -> datetime:
    """The server's clock."""
    now: datetime = conn.execute(CLOCK).scalar_one()
    return now


def _asked(policy: Policy) -> dict[str, Any]:
    return {"tenant": policy.tenant, "source": policy.source, "others": quoted(policy.others)}
