"""What is said of the ledger: its rows, faults, erasures, the names of the tenants' logs, and what can be claimed."""
