"""Checks of tenants that move between cells: whether one is neither here nor there for long."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Final

from sqlalchemy import Connection

from ops.admin.doctor.finding import Finding, note, wrong
from pipeline.store.moving import moves
from pipeline.store.moving.moves import Move

FROZEN: Final = timedelta(minutes=5)  # what comes for the tenant is kept meanwhile, and delivered late
UNDER_WAY: Final = timedelta(days=7)  # the copy lies in the other cell, and grows old


def check_moves(conn: Connection) -> Iterator[Finding]:
    """A finding for each tenant that has been on its way for long, or has gone; none where no tenant moves."""
    now = datetime.now(UTC)
    for move in moves.all_moves(conn):
        yield from _of(move, now)


def _of(move: Move, now: datetime) -> Iterator[Finding]:
    again = f"run `waxseal tenant move {move.tenant} --to CELL --yes` again, or with --abort"
    if move.state == "moving" and move.frozen_at is not None and now - move.frozen_at > FROZEN:
        frozen = f"{move.tenant} is frozen since {move.frozen_at:%Y-%m-%d %H:%M}, on its way to {move.cell}"
        yield wrong("move", f"{frozen}: what comes for it is kept, and nothing is recorded or delivered", again)
    elif move.state in ("copying", "arriving") and now - move.began_at > UNDER_WAY:
        yield note("move", f"{move.tenant} is {move.state} since {move.began_at:%Y-%m-%d}, other cell {move.cell}", again)
    elif move.state == "moved":
        said = f"{move.tenant} lives in {move.cell}; what still comes here is kept until it is forwarded"
        end = f"and then `waxseal tenant move {move.tenant} --to CELL --finish --yes`"
        yield note("move", said, f"run `waxseal tenant forward {move.tenant} --to CELL` while senders still send here, {end}")
    elif move.state == "finishing":
        said = f"{move.tenant} lives in {move.cell}; its copy here is deleted in part"
        yield note("move", said, f"run `waxseal tenant move {move.tenant} --to CELL --finish --yes` again")
