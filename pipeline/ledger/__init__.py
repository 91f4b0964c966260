"""Verifies the ledger, writes and verifies bundles of it, and finds broken chains. Nothing here appends."""
