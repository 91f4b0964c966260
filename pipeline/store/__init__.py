"""Every SQL statement, each with a name and a why. Functions take `conn`, never commit, and return schemas.

catalog     what is configured
ledger      chains, entries, content
deliveries  claims, leases, settlements
graves      dead letters
reading     what people and verifiers ask for
"""
