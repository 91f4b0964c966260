"""Writes bundles of the ledger, and verifies them offline (LEDGER §5)."""
