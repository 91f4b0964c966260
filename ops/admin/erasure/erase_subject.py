"""Erases what is recorded of a subject, in batches: each is one transaction with an erasure entry of its own.

After each batch its entries have no content any more, so repeating an interrupted command does the rest.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final
from uuid import UUID

from sqlalchemy import Connection, Engine

from ops.admin.bulk import Act, Pace, noted, uninterrupted
from ops.admin.read_session import known_tenant, snapshot, tenant_keys
from ops.errors import OpsError, Unknown
from ops.runtime.db import persist, sqlstate
from ops.settings import Settings
from pipeline.dedupe import chain_key
from pipeline.errors import ChainBroken
from pipeline.ledger import erase as rule
from pipeline.ledger.erase import Batch, Erasures, Order
from pipeline.store.admin import queries
from pipeline.store.ledger import erasure
from schemas.access import By
from schemas.ledger.erasure import Counted, ErasableChain, Erased

PATIENCE: Final = 30.0  # seconds for which a batch that met a deadlock or a lost connection is tried again


@dataclass(frozen=True, slots=True)
class Wanted:
    """What somebody wants erased: all events of a subject, or those with the numbers `only`; `name`: the subject's name too."""

    tenant: str
    subject: str
    only: Sequence[int] | None = None
    name: bool = False


@dataclass(frozen=True, slots=True)
class ErasurePlan:
    """What there is to erase, counted in one snapshot. Entries that are recorded after it are not touched."""

    chain: ErasableChain
    counted: Counted
    only: Sequence[int] | None
    name: bool  # there is a name to erase
    erased: Erasures  # before
    keys: Mapping[str, bytes]

    @property
    def does_nothing(self) -> bool:
        """Whether all of it was erased before."""
        return not self.counted.erasable and not self.name


def plan(engine: Engine, settings: Settings, wanted: Wanted) -> ErasurePlan:
    """Counts what would be erased. Raises `OpsError` for a tenant, subject or number that does not exist or is never erased."""
    with snapshot(engine) as conn:
        keys = _keys(conn, settings)
        found = _chain(conn, wanted, keys[_with_key(conn, keys, wanted.tenant)])
        number = counted(conn, found, wanted.only)
        erased = rule.erasures(conn, found.chain_id)
    return ErasurePlan(found, number, wanted.only, wanted.name and found.subject is not None, erased, keys)


def chain_of(engine: Engine, settings: Settings, tenant: str, subject: str) -> ErasableChain:
    """The subject's chain. Raises `OpsError` for a tenant or subject that does not exist."""
    with snapshot(engine) as conn:
        keys = _keys(conn, settings)
        return _chain(conn, Wanted(tenant, subject), keys[_with_key(conn, keys, tenant)])


def chain(conn: Connection, tenant: str, id_: UUID) -> ErasableChain:
    """The tenant's chain of that id. Raises `Unknown`."""
    found = erasure.chain(conn, id_)
    if found is None or found.tenant != tenant:
        raise Unknown("there is no such chain")
    return found


def counted(conn: Connection, chain: ErasableChain, only: Sequence[int] | None) -> Counted:
    """What there is to erase of a chain. Raises `OpsError` for a number that does not exist or is never erased."""
    _check_numbers(conn, chain, only or ())
    return erasure.count(conn, chain.chain_id, chain.seq, only)


def check_key(keys: Mapping[str, bytes], tenant: str) -> None:
    """Raise `OpsError` if the tenant has no key, under which an erasure would be recorded."""
    if tenant not in keys:
        raise OpsError(f"tenant {tenant!r} is recorded but not configured any more: apply a file that names it")


def check_requests(settings: Settings) -> None:
    """Raise `OpsError` where erasures are left to the command: where `waxseal eraser` carries out no requests."""
    if not settings.erase_requests:
        raise OpsError("the eraser carries out no requests here (WAXSEAL_ERASE_REQUESTS): `waxseal erase` does it")


def check_told(subject: str, order: Order) -> None:
    """Raise `OpsError` if what is kept of an erasure for ever names its subject."""
    if subject.casefold() in f"{order.reason}\n{order.by}".casefold():
        raise OpsError("who erases and the reason are kept for ever and must not name the subject: give a case number")


def carry_out(
    engine: Engine, planned: ErasurePlan, order: Order, pace: Pace, show: Callable[[int], None], actor: By | None = None
) -> Erased:
    """Erases what was planned; returns what went. The audit names the chain by its id: a subject may be personal data.

    It also names the `actor`, if that is not simply who the order is by.
    """
    about: dict[str, Any] = {"tenant": planned.chain.tenant, "chain": planned.chain.chain_id.hex, "reason": order.reason}
    if planned.only is not None:
        about["seqs"] = rule.runs(planned.only)
    if planned.name:
        about["subject_name"] = True
    total, after = Erased(), -1
    with noted(engine, Act(actor or order.by, "erase", about), planned.counted.erasable) as tally:
        while True:
            with uninterrupted():
                done = _batch(engine, planned, order, after, pace.chunk)
                if done is None:
                    return total
                erased, after = done
                total += erased
                tally.done += erased.entries
            show(tally.done)
            pace.keep(tally.done)


def _batch(engine: Engine, planned: ErasurePlan, order: Order, after: int, size: int) -> tuple[Erased, int] | None:
    """Erases the next entries; returns what went and the last of them, or None when nothing is left."""

    def work(conn: Connection) -> tuple[Erased, int] | None:
        span, now = (after, planned.counted.last), datetime.now(UTC)
        return erase_next(conn, planned.chain, order, planned.keys, span, size, planned.only, now, name=planned.name)

    try:
        return persist(engine, PATIENCE, work)
    except Exception as error:
        if is_unsound(error):
            chain = planned.chain
            told = f"nothing was erased: chain {chain.chain_id.hex} is not sound, so no entry can follow its last one"
            raise OpsError(f"{told}; `waxseal verify --tenant {chain.tenant}` names the fault") from error
        raise


def is_unsound(error: BaseException) -> bool:
    """Whether an erasure failed because no entry can follow the chain's last one."""
    return isinstance(error, ChainBroken) or sqlstate(error).startswith("23")


def erase_next(
    conn: Connection,
    chain: ErasableChain,
    order: Order,
    keys: Mapping[str, bytes],
    span: tuple[int, int],
    size: int,
    only: Sequence[int] | None,
    now: datetime,
    *,
    name: bool,
) -> tuple[Erased, int] | None:
    """Erases at most `size` entries after the first number of the span and up to its second, and at the end the `name`.

    Returns what went and the last of them; None when nothing is left.
    """
    erasure.serialise(conn, [chain.chain_id])
    seqs = erasure.erasable(conn, chain.chain_id, span[0], span[1], size, only)
    takes_name = name and len(seqs) < size and _has_name(conn, chain)
    if not seqs and not takes_name:
        return None
    erased = rule.erase(conn, [Batch(chain, seqs, takes_name)], order, keys, now)
    return erased, seqs[-1] if seqs else span[0]


def _keys(conn: Connection, settings: Settings) -> Mapping[str, bytes]:
    keys = tenant_keys(conn, settings)
    if keys is None:
        raise OpsError("an erasure is recorded under the tenant's key: set WAXSEAL_KEYS, the keys that the workers have")
    return keys


def _with_key(conn: Connection, keys: Mapping[str, bytes], name: str) -> str:
    tenant = known_tenant(conn, name)
    check_key(keys, tenant)
    return tenant


def _has_name(conn: Connection, chain: ErasableChain) -> bool:
    now = erasure.chain(conn, chain.chain_id)
    return now is not None and now.subject is not None


def _chain(conn: Connection, wanted: Wanted, key: bytes) -> ErasableChain:
    chain_id = queries.chain_of(conn, wanted.tenant, wanted.subject, chain_key(key, wanted.subject))
    chain = None if chain_id is None else erasure.chain(conn, chain_id)
    if chain is None:
        raise Unknown(f"tenant {wanted.tenant} has nothing recorded of that subject: check how it is written, case included")
    return chain


def _check_numbers(conn: Connection, chain: ErasableChain, only: Sequence[int]) -> None:
    kinds = erasure.kinds(conn, chain.chain_id, only) if only else {}
    if missing := sorted(set(only) - kinds.keys()):
        raise OpsError(f"there is no entry {missing[0]}: the subject's entries are 0 to {chain.seq}")
    for seq, kind in sorted(kinds.items()):
        if kind != "event":
            raise OpsError(f"entry {seq} is of kind {kind}, which is Waxseal's own record and is never erased: leave it out")
