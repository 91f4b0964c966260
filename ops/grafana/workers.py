"""Processes: their threads, restarts, CPU and memory, with what they stand on."""

from typing import Final

from grafana_foundation_sdk.models.dashboard import Dashboard, Panel

from ops.grafana.foundation import EXPORTER, POSTGRES, SERVERS
from ops.grafana.frame import framed
from ops.grafana.log_panels import LOG, RETENTION, SEARCH
from ops.grafana.panels import Limits, Text, lines, rows
from ops.grafana.promql import INTERVAL, increase, ours, quantile, rate, series, share, total

# The roles of processes, as Prometheus is told them.
ROLE: Final = 'role=~"$role"'
POOL: Final = 'pool=~"$pool"'

_ACTORS: Final[tuple[Panel, ...]] = (
    lines(
        Text(
            "Threads in use",
            "Share of the threads of each pool that are running an actor.",
            "add processes, or threads in the settings, as long as Postgres and the CPU have room",
            "WaxsealWorkersSaturated",
        ),
        {"{{pool}}": f"{total('actor_in_progress', POOL, by='pool')} / {total('worker_threads', POOL, by='pool')}"},
        "percentunit",
        Limits(0.7, 0.9),
        size=(8, 8),
    ),
    lines(
        Text(
            "Wait for a thread, p95",
            "From enqueueing to an actor's start.",
            "see whether the threads are in use: if not, the broker is slow; if so, add processes",
            "WaxsealWorkersSaturated",
        ),
        {"{{pool}}": quantile(0.95, "actor_queue_wait_seconds", POOL, by="pool")},
        "s",
        Limits(5, 30),
        size=(8, 8),
    ),
    lines(
        Text(
            "One run of an actor, p95",
            "How long an actor takes.",
            "compare with Postgres' pool below and the attempts on the dashboard Delivery: one of them is slow",
            "WaxsealWorkersSaturated",
        ),
        {"{{actor}}": quantile(0.95, "actor_duration_seconds", by="actor")},
        "s",
        size=(8, 8),
    ),
    lines(
        Text(
            "Messages of actors",
            "Messages per second that actors finished, by outcome.",
            "if `failed` grows, read the log of the process: nothing is lost, the lease ends and the work is claimed again",
            "WaxsealWorkersSaturated",
        ),
        {"{{actor}} {{outcome}}": rate("actor_messages_total", by="actor, outcome")},
        "mps",
    ),
    lines(
        Text(
            "Actors that fail",
            "Share of the messages of actors that failed.",
            "read the log of the process that runs the actor",
            "WaxsealWorkersSaturated",
        ),
        {"{{actor}}": share("actor_messages_total", 'outcome="failed"', by="actor")},
        "percentunit",
        Limits(0.01, 0.1),
    ),
)

_PROCESSES: Final[tuple[Panel, ...]] = (
    lines(
        Text(
            "Restarts within ten minutes",
            "Processes that the supervisor started again.",
            "read the log of the process: its last lines before each start say why it ended",
            "WaxsealCrashLoop",
        ),
        {"{{process}}": increase("process_restarts_total", "10m", by="process")},
        "short",
        Limits(1, 3),
        size=(8, 8),
    ),
    lines(
        Text(
            "Age of processes",
            "Seconds since each process started. A saw-tooth is a crash loop.",
            "read the log of the process with the smallest age",
            "WaxsealCrashLoop",
        ),
        {"{{instance}}": f"time() - {series('process_start_time_seconds', ROLE)}"},
        "s",
        size=(8, 8),
        log=True,
    ),
    rows(
        Text(
            "Versions",
            "What each process runs.",
            "finish the upgrade: all processes should run one version",
            "WaxsealProcessDown",
        ),
        f"sum by (version, python) ({ours('build_info', ROLE)})",
        "short",
        value="processes",
        size=(8, 8),
    ),
    lines(
        Text(
            "CPU",
            "Cores that each process uses. Python runs on one at a time: a process at 1 is saturated.",
            "start another process of the same kind",
            "WaxsealWorkersSaturated",
        ),
        {"{{instance}}": f"rate({series('process_cpu_seconds_total', ROLE)}[{INTERVAL}])"},
        "none",
        Limits(0.8, 0.95),
        size=(8, 8),
    ),
    lines(
        Text(
            "Memory",
            "Resident memory of each process.",
            "if it grows without end, restart the process and report the leak; limits are in the page on containers",
            "WaxsealProcessDown",
        ),
        {"{{instance}}": series("process_resident_memory_bytes", ROLE)},
        "bytes",
        size=(8, 8),
    ),
    lines(
        Text(
            "File descriptors",
            "Share of the file descriptors that each process may open.",
            "raise the limit (`ulimit -n`); if the number only grows, restart the process and report the leak",
            "WaxsealProcessDown",
        ),
        {"{{instance}}": f"{series('process_open_fds', ROLE)} / {series('process_max_fds', ROLE)}"},
        "percentunit",
        Limits(0.7, 0.9),
        size=(8, 8),
    ),
)


def dashboard() -> Dashboard:
    """Build it."""
    return framed(
        "waxseal-workers",
        "Waxseal / Workers and Postgres",
        "What is exhausted: threads, CPU, memory, connections, locks, disk?",
        {
            "Actors": _ACTORS,
            "Processes": _PROCESSES,
            "Postgres and the ledger": (*POSTGRES, *RETENTION),
            "The tenants' logs": (*LOG, *SEARCH),
            "Servers and disks": SERVERS,
            "Postgres, by its exporter": EXPORTER,
        },
        choices={"role": "build_info", "pool": "worker_threads"},
    )
