"""The processes that are connected to the database, wherever they run."""

from sqlalchemy import Engine

from ops.admin.read_session import snapshot
from ops.admin.views import View
from ops.process_roles import WORKERS
from pipeline.store.admin import connected


def processes(engine: Engine) -> list[View]:
    """Each role in the order of the route, with the places, `PID@HOST`, where a process of it runs: `places`.

    Every process keeps a connection, so a role without a place has none that runs, or none that reaches Postgres. A process
    of an earlier version is not told apart, and not listed.
    """
    with snapshot(engine) as conn:
        names = connected.names(conn)
    found: dict[str, list[str]] = {role: [] for role in WORKERS}
    for _, role, place in (name.split(" ", 2) for name in names if name.count(" ") == 2):
        if role in found:
            found[role].append(place)
    return [{"role": role, "places": places} for role, places in found.items()]
