"""The HTTP ingress process, from a request to the inbox. Nothing here writes to the ledger."""
