"""What a tenant's log is called, and where its files lie. A restored backup goes on in a new incarnation of the log."""


def log_origin(base: str, tenant: str, incarnation: int) -> str:
    """The origin in its checkpoints, and the name of its keys (LEDGER §3)."""
    return f"{base}/{log_folder(tenant, incarnation)}"


def log_folder(tenant: str, incarnation: int) -> str:
    """The folder of its files, which is the origin without its base: a client finds the files by the origin."""
    return tenant if incarnation == 1 else f"{tenant}/r{incarnation}"
