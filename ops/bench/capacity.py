"""`bench capacity`: what a webhook with one delivery costs each process on this machine, and what more cores would carry.

The parts run one after the other: an ingress is flooded, an ingest process takes as many events with a delivery each, a relay
and a deliver process deliver them over HTTP. What more cores carry is arithmetic: the time for which they are to be busy,
divided by the CPU of one event. It knows nothing of disks and networks that are slower than those here, nor of what cores cost
each other.
"""

from collections.abc import Mapping, Sequence
from math import ceil
from typing import Any, Final

from ops.bench import ingress, peers
from ops.bench.configured_system import configure, fresh_servers
from ops.bench.delivery import delivered
from ops.bench.delivery_stage import Stage
from ops.bench.ingest import OURS, Contestant, race
from ops.bench.measuring.results import report, tell

CORES: Final = (4, 16, 64)
BUSY: Final = 0.7  # of each core: beyond that, what comes at once waits long
COUNT, QUICK_COUNT = 30_000, 2_000

Figures = Mapping[str, float]


def run(*, quick: bool = False, cores: Sequence[int] = ()) -> dict[str, Any]:
    """Measure on fresh private servers and extrapolate to these numbers of cores; gives the report of CONTRACT §8."""
    count = QUICK_COUNT if quick else COUNT
    with fresh_servers() as (servers, folder), Stage(servers, folder) as stage:
        env = configure(servers, folder, ingress.CONFIG)
        with ingress.serving(env) as one:
            taken = ingress.flooded(servers, one, count)
        tell(f"webhooks: {taken['acks_per_s']:.0f}/s")
        peers.fill_inbox(servers.amqp_url, count)
        recorded = race(servers, stage.env, count, Contestant("ingest", peers.fill_inbox, OURS["ingest"]))
        tell(f"recorded: {recorded['events_per_s']:.0f}/s")
        sent = delivered(stage, count)
        tell(f"delivered: {sent['deliveries_per_s']:.0f}/s")
        return report("capacity", _fitted(taken, recorded, sent, sorted({*cores}) or CORES), servers.database_url)


def _fitted(taken: Figures, recorded: Figures, sent: Figures, cores: Sequence[int]) -> dict[str, Any]:
    spent = {
        "ingress": taken["python_cpu_us"],
        "ingest": recorded["python_cpu_us"],
        "relay": sent["relay_cpu_us"],
        "deliver": sent["deliver_cpu_us"],
        "PostgreSQL": recorded["postgres_cpu_us"] + sent["postgres_cpu_us"],
        "RabbitMQ": taken["rabbitmq_cpu_us"] + recorded["rabbitmq_cpu_us"] + sent["rabbitmq_cpu_us"],
    }
    whole = sum(spent.values())
    rates = {each: each * BUSY * 1e6 / whole for each in cores}
    return {
        **{f"{name.lower()}_cpu_us": round(value, 1) for name, value in spent.items()},
        "all_cpu_us": round(whole, 1),
        "wal_bytes": round(recorded["wal_bytes"]),
        "disk_bytes": round(recorded["disk_bytes"]),
        "tables": {
            f"events carried, by number of cores that are busy at {BUSY:.0%}": {
                "events per second": {str(each): round(rate) for each, rate in rates.items()},
                "MB of write-ahead log per second": _at(rates, recorded["wal_bytes"] / 1e6),
                "GB on disk per day": _at(rates, recorded["disk_bytes"] * 86400 / 1e9),
            },
            "cores that it takes of them": {name: _at(rates, value / 1e6) for name, value in spent.items()},
            "processes of ours": {
                name: {str(each): ceil(rate * spent[name] / 1e6 / BUSY) for each, rate in rates.items()}
                for name in ("ingress", "ingest", "relay", "deliver")
            },
        },
    }


def _at(rates: Mapping[int, float], each: float) -> dict[str, float]:
    return {str(cores): round(rate * each, 2) for cores, rate in rates.items()}
