"""`bench claims`: the time of one claim in a table with millions of delivered rows, compared with a table that has few.

The two tables are on one server and claimed from alternately, so that other load on the machine affects both alike. The
deliveries of a claim are settled before the next claim.
"""

import statistics
from typing import Any, Final

from ops.bench.claims_table import CLAIM, ENDPOINTS, SUBJECTS, Table
from ops.bench.configured_system import fresh_servers
from ops.bench.measuring.results import percentiles, ratio, report

FEW: Final = 20_000  # delivered rows of the table that the other is compared with
CLAIMS: Final = 150  # timed claims from each table
WARM: Final = 10  # claims before them that are not timed
FLAT: Final = 0.2  # share by which the time beside many rows may differ from that beside few


def run(*, quick: bool = False, rows: int = 5_000_000) -> dict[str, Any]:
    """Fill both tables on fresh private servers and claim from them; gives the report of CONTRACT §8."""
    rows, claims = (rows // 10, CLAIMS // 10) if quick else (rows, CLAIMS)
    with fresh_servers() as (servers, _):
        few = Table(servers.database_url, "few", min(FEW, rows))
        many = Table(servers.database_url, "many", rows)
        try:
            return report("claims", _results(few, many, claims), servers.database_url)
        finally:
            few.engine.dispose()
            many.engine.dispose()


def _results(few: Table, many: Table, claims: int) -> dict[str, Any]:
    tables = {"few": few, "many": many}
    before = {f"{name}_{figure}": value for name, table in tables.items() for figure, value in table.sizes().items()}
    taken = _taken(tables, claims)
    medians = {name: statistics.median(seconds) for name, seconds in taken.items()}
    times = round(medians["many"] / medians["few"], 3)
    return {
        "endpoints": ENDPOINTS,
        "subjects": SUBJECTS,
        "claims": claims,
        "deliveries_in_a_claim": CLAIM,
        **before,
        **{f"{part.removesuffix('_ms')}_{name}_ms": each for name in taken for part, each in percentiles(taken[name]).items()},
        "many_to_few": times,
        "ratio_to_few": ratio(medians["few"], medians["many"]),
        "flat": abs(times - 1) <= FLAT,
        "plans": many.plans(),
    }


def _taken(tables: dict[str, Table], claims: int) -> dict[str, list[float]]:
    """The seconds of each claim from each table, without the warm-up. Some due deliveries are left for the plans."""
    taken: dict[str, list[float]] = {name: [] for name in tables}
    for table in tables.values():
        table.plan((WARM + claims) * CLAIM * 11 // 10)  # more, as the lanes are not drained evenly
    for number in range(WARM + claims):
        for name, table in tables.items():
            seconds, lease, claimed = table.claim()
            assert len(claimed) == CLAIM, f"{len(claimed)} deliveries in a claim"
            table.settle(lease, claimed)
            if number >= WARM:
                taken[name].append(seconds)
    return taken
