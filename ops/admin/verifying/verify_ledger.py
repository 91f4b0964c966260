"""Verifies the ledger as operators and the verifier process want it: all, a tenant, a subject, what is new, or a slice."""

from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from sqlalchemy import Connection, Engine, make_url
from sqlalchemy.exc import SQLAlchemyError

from ops.admin.read_session import DENIED, known_tenant, open_engine, snapshot
from ops.admin.verifying import protections
from ops.admin.verifying.tenant_claims import claims_of
from ops.admin.verifying.verify_jobs import verify_in_jobs
from ops.errors import OpsError, one_line
from ops.runtime.blobs import open_blobs
from ops.runtime.db import sqlstate, transaction
from ops.runtime.vault import Vault
from ops.settings import Settings
from pipeline.dedupe import chain_key
from pipeline.ledger.verify_log import verify_logs
from pipeline.ledger.verifying.verify import Keys, verify, verify_new
from pipeline.store.admin import queries, verifications
from pipeline.store.admin.verifications import Part
from pipeline.store.ledger import ledger_claims, points, scan
from pipeline.store.ledger.points import Reached
from pipeline.store.ledger.scan import Scope
from schemas.ledger.assurance import Claim
from schemas.ledger.fault import Fault, Verified

Report = Callable[[Fault], None]
Progress = Callable[[int], None]

KEPT: Final = 1000  # verified points written in one transaction
RECORDED_BY: Final = (
    "the login {login} may not record it; verify as a member of the role waxseal_verifier, as the login of `waxseal verifier`"
    " is, or as the database's owner"
)


@dataclass(frozen=True, slots=True)
class Wanted:
    """What to verify: everything, a tenant, or one subject of a tenant; `jobs` processes share it."""

    tenant: str | None = None
    subject: str | None = None
    jobs: int = 1


class LedgerVerification:
    """One verification of the ledger as it was at one moment; entries that are appended meanwhile are not included."""

    def __init__(self, settings: Settings, engine: Engine, conn: Connection, report: Report) -> None:
        self._settings = settings
        self._engine = engine
        self._conn = conn
        self._report = report
        self._fetch = open_blobs(settings).get
        self._faults = 0
        self._waiting: list[Reached] = []
        self.keys = self._keys()

    def size(self) -> int:
        """The number of entries in the whole ledger, according to the heads."""
        return scan.size(self._conn)[1]

    def all_of(self, wanted: Wanted, progress: Progress) -> Verified:
        """Verifies what is wanted, its log, and the database's protections."""
        if wanted.tenant is not None:
            known_tenant(self._conn, wanted.tenant)
        scope = self._scope(wanted)
        if wanted.jobs > 1 and wanted.subject is None:
            told = self._found, progress, lambda: self._around(scope)
            found = verify_in_jobs(self._settings, self._conn, scope, self.keys, wanted.jobs, *told)
        else:
            self._around(scope)
            found = verify(self._conn, scope, self.keys, self._fetch, self._found, progress)
        return Verified(found.entries, found.chains, self._faults)

    def new(self, progress: Progress) -> Verified:
        """Verifies what was appended since the verified points, and moves them."""
        self._around(Scope(), log=False)
        found = verify_new(self._conn, self.keys, self._fetch, self._found, self._reached, progress)
        return self._with_points(found)

    def slice(self, number: int, parts: int, progress: Progress) -> Verified:
        """Verifies the `number`-th of `parts` slices of all chains, and what can only be checked as a whole."""
        self._around(Scope())
        scope = Scope(part=(number, parts))
        found = verify(self._conn, scope, self.keys, self._fetch, self._found, progress, self._reached)
        return self._with_points(found)

    def claims(self, faulty: Collection[str | None]) -> Iterator[tuple[str, Claim]]:
        """What can be claimed of each tenant, given the tenants of which a fault was found."""
        return claims_of(self._conn, self._settings, faulty)

    def _with_points(self, found: Verified) -> Verified:
        self._keep()
        return Verified(found.entries, found.chains, self._faults)

    def _around(self, scope: Scope, *, log: bool = True) -> None:
        for fault in protections.missing(self._conn):
            self._found(fault)
        for name, key in (self.keys or {}).items():
            if key is None and scope.tenant in (None, name):
                detail = "the tenant's key is damaged: its fingerprints and the keys of its chains cannot be checked"
                self._found(Fault(name, None, None, None, "tenant_key", detail))
        if log:
            verify_logs(self._conn, scope, self._found)

    def _found(self, fault: Fault) -> None:
        self._faults += 1
        self._report(fault)

    def _scope(self, wanted: Wanted) -> Scope:
        key = (self.keys or {}).get(wanted.tenant or "")
        if key is None or wanted.subject is None:
            return Scope(wanted.tenant, wanted.subject)
        return Scope(wanted.tenant, wanted.subject, chain_key(key, wanted.subject))

    def _keys(self) -> Keys | None:
        """The tenants' keys; None for a damaged one. Raises `OpsError` if none can be decrypted: the key given is wrong."""
        fernet = self._settings.fernet_keys()
        if not fernet:
            return None
        vault, errors = Vault(fernet), []
        found: dict[str, bytes | None] = {}
        for name, encrypted in queries.tenants(self._conn).items():
            try:
                found[name] = vault.decrypt(encrypted)
            except OpsError as error:
                found[name] = None
                errors.append(error)
        if errors and not any(found.values()):
            raise errors[0]
        return found

    def _reached(self, reached: Reached) -> None:
        self._waiting.append(reached)
        if len(self._waiting) >= KEPT:
            self._keep()

    def _keep(self) -> None:
        """Written while the snapshot is read: a point says only that the chain was right up to it, so a crash repeats work."""
        last = {each.chain_id: each for each in self._waiting}
        self._waiting.clear()
        if last:
            with transaction(self._engine) as conn:
                points.keep(conn, list(last.values()), datetime.now(UTC))


@contextmanager
def verification(settings: Settings, report: Report) -> Iterator[LedgerVerification]:
    """A verification of the ledger as it is now; `report` is told every fault. Raises `OpsError` if it cannot be read."""
    with open_engine(settings, pool_size=2) as engine, snapshot(engine) as conn:
        yield LedgerVerification(settings, engine, conn, report)


def keep_claims(settings: Settings, made: Iterable[tuple[str, Claim]], part: Part) -> str | None:
    """Record what can be claimed of each tenant, and give None, or why it could not be. Call it before `note`."""
    now = datetime.now(UTC)
    return _recorded(settings, lambda conn: ledger_claims.keep(conn, made, now, only_new=part == "new"))


def note(
    settings: Settings, verified: Verified, began: datetime, part: Part, slice_: tuple[int, int] | None = None
) -> str | None:
    """Record what a verification found, and give None, or why it could not be: the verdict stands all the same."""
    return _recorded(settings, lambda conn: verifications.note(conn, verified, began, datetime.now(UTC), part, slice_))


def _recorded(settings: Settings, write: Callable[[Connection], None]) -> str | None:
    try:
        with open_engine(settings) as engine, transaction(engine) as conn:
            write(conn)
    except (SQLAlchemyError, OpsError) as error:  # such as a login that may only read, or a standby
        if sqlstate(error.__cause__ or error) == DENIED:
            return RECORDED_BY.format(login=make_url(settings.database_url).username)
        return one_line(error)
    return None


def next_slice(settings: Settings, parts: int, before: datetime) -> int | None:
    """The slice of `parts` that is to be verified next; None if one was verified after `before`."""
    with open_engine(settings) as engine, transaction(engine) as conn:
        last = verifications.last_slice(conn)
    if last is not None and last.ended_at > before:
        return None
    return 0 if last is None or last.parts != parts else (last.number + 1) % parts
