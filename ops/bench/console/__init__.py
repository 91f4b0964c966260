"""`bench console`: a ledger of millions of events, which the database itself makes, and how the console answers of it."""

from ops.bench.console.page_times import run

__all__ = ["run"]
