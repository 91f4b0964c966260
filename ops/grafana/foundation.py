"""What the processes stand on, a part of the dashboard of workers: the database pool, the ledger's locks, servers and disks."""

from typing import Final

from grafana_foundation_sdk.models.dashboard import Panel

from ops.grafana.panels import Limits, Text, bars, lines
from ops.grafana.promql import age, increase, largest, mean, ours, quantile, share, total

_USED: Final = total("db_pool_connections", 'state="checked_out"', by="instance")
POSTGRES: Final[tuple[Panel, ...]] = (
    lines(
        Text(
            "Connections in use",
            "Share of each process's pool that is checked out.",
            "look for slow statements in Postgres: a pool that is too small shows waits below, and idle CPU",
            "WaxsealPoolExhausted",
        ),
        {"{{instance}}": f"{_USED} / {total('db_pool_size', by='instance')}"},
        "percentunit",
        Limits(0.8, 0.95),
        size=(8, 8),
    ),
    lines(
        Text(
            "Wait for a connection, p95",
            "Waiting for a connection of a pool, and for connecting if the pool grows.",
            "see whether Postgres answers, and whether its `max_connections` is reached",
            "WaxsealPoolExhausted",
        ),
        {"{{instance}}": quantile(0.95, "db_pool_wait_seconds", by="instance")},
        "s",
        Limits(0.1, 1),
        size=(8, 8),
    ),
    lines(
        Text(
            "Wait for the chains' heads, p95",
            "Waiting for the locks of the heads of one batch.",
            "look for a long transaction in Postgres; more `ingest` processes make this longer, not shorter",
            "WaxsealQueueStalled",
        ),
        {
            "lock": quantile(0.95, "chain_lock_wait_seconds"),
            "append": quantile(0.95, "chain_append_duration_seconds"),
        },
        "s",
        Limits(0.5, 2.5),
        size=(8, 8),
    ),
    lines(
        Text(
            "One batch",
            "Duration of a batch of ingest, from its first message to COMMIT.",
            "if it grows with the same number of messages, Postgres is slow: see its disk",
            "WaxsealQueueStalled",
        ),
        {f"p{percent}": quantile(percent / 100, "dedupe_batch_duration_seconds") for percent in (50, 95, 99)},
        "s",
        Limits(1, 5),
        size=(8, 8),
    ),
    lines(
        Text(
            "Messages in a batch",
            "How many messages a batch of ingest holds on average: it takes what is there, up to 1,000.",
            "if it stays near the most, ingest is saturated: start another",
            "WaxsealBacklogGrowing",
        ),
        {"mean": mean("dedupe_batch_messages")},
        "short",
        Limits(500, 900),
        size=(8, 8),
    ),
    lines(
        Text(
            "Entries not yet verified",
            "Entries of the ledger that the last verification of the whole has not read.",
            "run `waxseal verify`, and see that it runs regularly",
            "WaxsealChainUnverified",
        ),
        {"not verified": f"{largest('chain_head_sequence')} - {largest('chain_verified_sequence')}"},
        "short",
        size=(4, 8),
    ),
    lines(
        Text(
            "Last verified",
            "Seconds since the whole ledger was last found intact.",
            "run `waxseal verify`, and see that it runs regularly",
            "WaxsealChainUnverified",
        ),
        {"age": age("chain_verify_last_success_timestamp_seconds")},
        "s",
        Limits(2 * 86_400, 7 * 86_400),
        size=(4, 8),
    ),
    lines(
        Text(
            "What can be claimed",
            "Tenants by what the last verification found that can be claimed of their ledgers.",
            "`waxseal status` says what is missing for more; of none, `waxseal verify` names the faults",
            "WaxsealChainBroken",
        ),
        {"{{claim}}": f"max by (claim) ({ours('ledger_claims')})"},
        "short",
        size=(4, 8),
    ),
    lines(
        Text(
            "Claims last checked",
            "Seconds since the claim that was checked longest ago was.",
            "see that `waxseal verifier` runs",
            "WaxsealChainUnverified",
        ),
        {"age": age("ledger_claims_checked_timestamp_seconds")},
        "s",
        Limits(2 * 86_400, 7 * 86_400),
        size=(4, 8),
    ),
)

_ANSWERED: Final = ours("server_last_answer_timestamp_seconds")
SERVERS: Final[tuple[Panel, ...]] = (
    bars(
        Text(
            "Last answer",
            "Seconds since Postgres and RabbitMQ answered each process.",
            "if one process is red, see its network; if all are, see the server",
            "WaxsealServerSilent",
        ),
        {"{{server}} to {{instance}}": age("server_last_answer_timestamp_seconds", by="server, instance")},
        "s",
        Limits(10, 30),
        size=(6, 8),
    ),
    lines(
        Text(
            "Connections to RabbitMQ made anew",
            "Times within an hour that a connection to the broker was lost and made again.",
            "read RabbitMQ's log: it says why it closed the connection",
            "WaxsealServerSilent",
        ),
        {"{{connection}}": increase("broker_reconnects_total", "1h", by="connection")},
        "short",
        Limits(1, 10),
        size=(6, 8),
    ),
    bars(
        Text(
            "RabbitMQ blocks publishers",
            "1 while RabbitMQ takes no messages because it lacks memory or disk.",
            "give RabbitMQ the resource that it lacks; the ingress answers 503 until then",
            "WaxsealBrokerAlarm",
        ),
        {"{{resource}}": largest("broker_alarm", by="resource")},
        "none",
        Limits(1, 1),
        size=(4, 8),
    ),
    bars(
        Text(
            "Disk free",
            "Share of each disk that is free.",
            "free or add space before it is full: Postgres stops when it is",
            "WaxsealDiskFilling",
        ),
        {"{{disk}}": f"{largest('disk_free_bytes', by='disk')} / {largest('disk_size_bytes', by='disk')}"},
        "percentunit",
        Limits(0.15, 0.05, falling=True),
        size=(4, 8),
    ),
    lines(
        Text(
            "Blob store away",
            "Share of the calls to the blob store that failed: it could not be reached, refused or took too long.",
            "see that the store answers and has room; large messages wait until then",
            "WaxsealBlobStoreAway",
        ),
        {"{{operation}}": share("blob_operations_total", 'outcome="away"', by="operation")},
        "percentunit",
        Limits(0.001, 0.01),
        size=(4, 8),
    ),
    lines(
        Text(
            "Clocks",
            "By how many seconds each process's clock is ahead of Prometheus's, seen when a server last answered it.",
            "set the machine's clock (NTP): signatures and schedules depend on it. Far below 0, no server answers",
            "WaxsealClockWrong",
        ),
        {"{{instance}}": f"max by (instance) ({_ANSWERED} - timestamp({_ANSWERED}))"},
        "s",
        Limits(2, 5),
        size=(16, 6),
    ),
    lines(
        Text(
            "Write-ahead log not archived",
            "Bytes of it that Postgres has not archived, and 1 while its last attempt failed; 0 if it archives none.",
            "run `waxseal doctor`, and read the log of Postgres",
            "WaxsealArchiveBehind",
        ),
        {"behind": largest("wal_archive_behind_bytes"), "failing": largest("wal_archive_failing")},
        "bytes",
        Limits(128 * 2**20, 512 * 2**20),
        size=(8, 6),
    ),
)

_DEAD: Final = "pg_stat_user_tables_n_dead_tup"
# Their job is that of the exporter, which the variables do not name.
EXPORTER: Final[tuple[Panel, ...]] = (
    lines(
        Text(
            "Deadlocks within an hour",
            "Transactions that Postgres ended because they waited for each other. They are tried again.",
            "read Postgres' log: it names both statements; Waxseal locks in one order, so look for another program",
            "WaxsealQueueStalled",
        ),
        {"{{datname}}": "sum by (datname) (increase(pg_stat_database_deadlocks[1h]))"},
        "short",
        Limits(1, 10),
        size=(8, 8),
    ),
    lines(
        Text(
            "Dead rows",
            "Share of dead rows in tables of more than a thousand.",
            "see that autovacuum runs and that no transaction has been open for hours",
            "WaxsealQueueStalled",
        ),
        {"{{relname}}": f"max by (relname) ({_DEAD} / ({_DEAD} + pg_stat_user_tables_n_live_tup > 1000))"},
        "percentunit",
        Limits(0.2, 0.5),
        size=(8, 8),
    ),
    lines(
        Text(
            "Connections of Postgres",
            "Share of the connections that Postgres allows to all programs.",
            "see which program holds them (`pg_stat_activity`), or raise `max_connections`",
            "WaxsealPoolExhausted",
        ),
        {"connections": "sum(pg_stat_activity_count) / max(pg_settings_max_connections)"},
        "percentunit",
        Limits(0.8, 0.95),
        size=(8, 8),
    ),
)
