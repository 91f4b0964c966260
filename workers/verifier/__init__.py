"""The verifier: a process that verifies the ledger again and again, with rights of its own."""
