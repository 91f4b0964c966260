"""The report of a benchmark: the machine, the versions, the results (CONTRACT §8)."""

import os
import platform
import sys
from collections.abc import Mapping, Sequence
from importlib import metadata
from typing import Any

import psutil
import psycopg

_PACKAGES = ("waxseal", "pika", "dramatiq", "celery", "psycopg", "sqlalchemy", "aiohttp", "httptools", "uvicorn")


def report(benchmark: str, results: Mapping[str, Any], database_url: str, broker: str = "") -> dict[str, Any]:
    """The one JSON object of a benchmark."""
    return {"benchmark": benchmark, "machine": machine(), "versions": versions(database_url, broker), "results": dict(results)}


def tell(text: str) -> None:
    """Say how far the benchmark is, apart from its report."""
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()


def machine() -> dict[str, Any]:
    """Cores, memory and whatever else is needed to judge the figures; the servers run on the same cores."""
    return {
        "cores": os.cpu_count(),
        "memory_mib": psutil.virtual_memory().total // 2**20,
        "architecture": platform.machine(),
        "system": f"{platform.system()} {platform.release()}",
        "shared_with": "PostgreSQL, RabbitMQ and the load",
    }


def versions(database_url: str, broker: str) -> dict[str, str]:
    """The versions of everything that was measured."""
    found = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            found[package] = "absent"
    with psycopg.connect(database_url) as conn:
        found["postgresql"] = conn.info.parameter_status("server_version") or "unknown"
    if broker:
        found["rabbitmq"] = broker
    return found


def percentiles(latencies: Sequence[float]) -> dict[str, float]:
    """p50, p95 and p99 in milliseconds, of latencies in seconds; by nearest rank."""
    ordered = sorted(latencies)
    ranks = {p: -(-len(ordered) * p // 100) for p in (50, 95, 99)}  # rounded up, counted from 1
    return {f"p{p}_ms": round(ordered[rank - 1] * 1000, 2) for p, rank in ranks.items() if ordered}


def ratio(ours: float, theirs: float) -> float:
    """Ours divided by theirs; for rates, above 1 is faster."""
    return round(ours / theirs, 2)
