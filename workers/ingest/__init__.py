"""The ingest process, from the inbox into the ledger. The rules are in `pipeline`."""
