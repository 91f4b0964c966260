"""Verifies the ledger and bundles of it, and finds broken chains. Nothing here appends."""
