"""The catalog that a process works with: read at the start, and again within a second of a change."""

import random
import threading
import time
from typing import Final

import structlog

from ops.errors import one_line
from ops.runtime.db import Engine, transaction
from ops.runtime.vault import Vault
from ops.telemetry import table
from pipeline.store.config import catalog as store
from schemas.catalog import EMPTY, Catalog

_PERIOD: Final = 0.5  # seconds between two polls; a change must take effect within one second

_log = structlog.get_logger()


class CatalogWatch:
    """Holds the catalog, less than a second behind the database, from `start` to `stop`.

    While Postgres is away, or a secret cannot be decrypted, the last catalog read stays in use. `current` is replaced as a
    whole and never changed: take it once for one piece of work. Safe to use from any thread.
    """

    def __init__(self, engine: Engine, vault: Vault) -> None:
        self._engine = engine
        self._vault = vault
        self._current = EMPTY
        self._fault: str | None = None
        self._looked = time.monotonic()  # when the database last said whether there is a newer catalog
        self._loaded = threading.Event()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="catalog", daemon=True)

    @property
    def current(self) -> Catalog:
        """The last catalog read; `EMPTY` before the first read."""
        return self._current

    @property
    def loaded(self) -> bool:
        """Whether a catalog has been read."""
        return self._loaded.is_set()

    def ready(self) -> str | None:
        """Give None once a catalog has been read, though it may be stale by now; else the reason."""
        return None if self._loaded.is_set() else f"not read yet: {self._fault}" if self._fault else "not read yet"

    def stale(self, limit: float) -> str | None:
        """Give None while the last successful poll is less than `limit` seconds old; else a note for the operator."""
        age = time.monotonic() - self._looked
        return None if age < limit else f"Postgres has not answered for {age:.0f} s: the configuration read last is in use"

    def start(self) -> None:
        """Start the polling thread. Does not wait."""
        self._thread.start()

    def wait(self, seconds: float | None = None) -> bool:
        """Wait for the first catalog; give whether it has been read."""
        return self._loaded.wait(seconds)

    def stop(self) -> None:
        """End the thread."""
        self._stopping.set()
        if self._thread.ident is not None:
            self._thread.join(timeout=5)

    def _watch(self) -> None:
        while not self._stopping.wait(self._look()):
            pass

    def _look(self) -> float:
        try:
            self._read()
        except Exception as error:  # noqa: BLE001 - whatever it is, the catalog stays in use and the next poll may succeed
            self._failed(error)
            return random.uniform(_PERIOD, 4 * _PERIOD)  # noqa: S311 - processes that lost one database return out of step
        self._looked = time.monotonic()
        table.SERVER_LAST_ANSWER.labels("postgres").set_to_current_time()
        if self._fault is not None:
            self._fault = None
            _log.info("catalog_reachable", version=self._current.version)
        return _PERIOD

    def _read(self) -> None:
        with transaction(self._engine) as conn:
            # Compare for inequality: a restored database starts from an older version number.
            if self._loaded.is_set() and store.version(conn) == self._current.version:
                return
            self._current = store.load(conn, self._vault.decrypt)
        self._loaded.set()
        loaded = self._current
        _log.info("catalog_loaded", version=loaded.version, tenants=len(loaded.tenants), sources=len(loaded.sources))

    def _failed(self, error: Exception) -> None:
        fault = type(error).__name__
        if fault != self._fault:
            self._fault = fault
            _log.warning("catalog_unreachable", error=one_line(error), version=self._current.version)
