"""Every SQL statement, each with a name and a why. Functions take `conn`, never commit, and return schemas.

catalog     what is configured
configure   how that changes
ledger      chains, entries, content
deliveries  claims, leases, settlements
graves      dead letters
reading     what people ask for
overview    how much there is of everything
scan        the whole ledger in order, for those who verify and export it
"""
