"""Verifying the ledger for operators and the verifier process: in one process or several, with what is around the ledger."""
