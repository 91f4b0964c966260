"""The ingest process: from the inbox into the ledger. Rules are in `pipeline`."""
