"""Takes a tenant from one cell to another, step by step; killed at any of them, the same command goes on from there.

| step | durable then | killed after it |
|---|---|---|
| begin | both cells know of the move; the tenant lives where it was | the next run copies |
| copy, verify | the copy has that many leaves of the log | the next run goes on from there |
| freeze | nothing is recorded for the tenant; what comes is kept in its queue | the next run waits, and copies the rest |
| arrive | the tenant lives in the other cell | the next run tells the first cell |
| leave | the first cell refuses it for ever | the next run forwards |
| forward | what was kept is in the other cell's inbox | what was not acknowledged is forwarded again; it is dropped there |
| history | so much of what was before has come | the next run goes on from there |
"""

import itertools
import signal
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final

from ops.admin.moving.arriving import arrive, has_arrived, leave
from ops.admin.moving.cells import Route, alone
from ops.admin.moving.copying import NOTHING, Upto, compare, compare_frozen, copy_ledger, root_of, verified
from ops.admin.moving.freezing import freeze
from ops.admin.moving.history import bring_history
from ops.admin.moving.move_plan import begin, known
from ops.errors import OpsError
from pipeline.store.moving.moves import Move
from workers.commands.forward import forward, make_queue

CHECKS: Final = 3  # of a copy, while content may be erased

Say = Callable[[str], None]


@dataclass
class Moved:
    """What a move did: the log's size and root in both cells, rows by table, messages forwarded, and seconds."""

    size: int = 0
    root: str = ""
    rows: Mapping[str, int] = field(default_factory=dict)
    forwarded: int = 0
    frozen_seconds: float | None = None  # nothing was recorded for the tenant; None: it was frozen by an earlier run
    verified_entries: int = 0
    history: int = 0  # settled deliveries, closed dead letters, operator events and acts that came in this run


def move(route: Route, who: str, say: Say, show: Callable[[int], None] = lambda _size: None) -> Moved:
    """Do what is left of the move, from wherever it is. Raises `OpsError`; after that the same call goes on."""
    with alone(route):
        return _move(route, who, say, show)


def _move(route: Route, who: str, say: Say, show: Callable[[int], None]) -> Moved:
    done = Moved()
    state = begin(route).state
    say(f"{route.tenant} is {state}, from {route.source.name} to {route.target.name}")
    if state != "moved":
        make_queue(route.source.settings.amqp_url, route.tenant)
        if not has_arrived(route):
            _bring(route, who, say, show, done)
        leave(route, who)
        say(f"{route.target.name} records for {route.tenant} now; {route.source.name} refuses it")
    done.size, done.root = root_of(route)
    done.forwarded = forward(route)
    say(f"{done.forwarded} messages that were kept are in the other cell's inbox")
    done.history = bring_history(route)
    say(f"{done.history} settled deliveries, closed dead letters, operator events and acts have come after it")
    return done


def _bring(route: Route, who: str, say: Say, show: Callable[[int], None], done: Moved) -> None:
    current = begin(route)
    compared = NOTHING
    if current.state == "copying":
        size = copy_ledger(route, current, show)
        say(f"copied {size} entries while the tenant was live")
        done.verified_entries, compared = _checked(route, current)
        say(f"verified {done.verified_entries} entries of the copy; all bytes and the root at {compared.size} are alike")
        size = copy_ledger(route, current, show)
    began = time.monotonic()
    sending = freeze(route)
    if sending:
        say(f"{sending} deliveries are still being sent, and will be sent again by the other cell")
    size = copy_ledger(route, known(route), show)
    whole = compare_frozen(route, compared)
    done.rows = arrive(route, who)
    if current.state == "copying":
        done.frozen_seconds = time.monotonic() - began
        rows = sum(done.rows.values())
        more = size - compared.size if compared.incarnation == whole.incarnation else size
        say(f"frozen for {done.frozen_seconds:.2f} s: {more} entries and {rows} rows copied, and the roots compared")


def _checked(route: Route, current: Move) -> tuple[int, Upto]:
    """Verify and compare the copy while the tenant is live; gives the entries verified and the leaves compared.

    Content that is erased meanwhile is missing in one of the cells until its erasure has been copied, too.
    """
    for tries in itertools.count(1):
        try:
            return verified(route), compare(route)
        except OpsError:
            if tries == CHECKS:
                raise
        copy_ledger(route, current)
    raise AssertionError


def forward_kept(route: Route, *, once: bool) -> int:
    """Forward what is kept for a tenant that has moved: what is there now, or everything until the process is stopped."""
    if known(route).state not in ("moved", "finishing"):
        raise OpsError(f"{route.tenant} has not moved yet: `waxseal tenant move` ends that first")
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda _number, _frame: stop.set())
    return forward(route) if once else forward(route, lambda: not stop.is_set())
