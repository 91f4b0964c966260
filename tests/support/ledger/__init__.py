"""Ledgers with their logs, in memory, for tests. No fixtures."""
