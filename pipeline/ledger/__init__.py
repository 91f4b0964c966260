"""Verifies the ledger, erases content from it, writes and verifies bundles of it, and finds broken chains."""
