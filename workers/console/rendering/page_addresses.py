"""The addresses of pages. Every part that comes from data is percent-encoded, so that no address leads elsewhere."""

from urllib.parse import quote, urlencode


def at(tenant: str | None, *parts: object, **query: object) -> str:
    """The address of a page: below `/t/TENANT`, or of all tenants; parameters without a value are left out."""
    steps = [*(("t", tenant) if tenant else ()), *parts]
    path = "/" + "/".join(quote(str(step), safe="", errors="replace") for step in steps)
    return asked(path, **query)


def asked(path: str, **query: object) -> str:
    """The path with these parameters; those without a value are left out."""
    given = {name: value for name, value in query.items() if value not in (None, "")}
    return f"{path}?{urlencode(given, errors='replace')}" if given else path


def local(address: str) -> str:
    """The address if it is that of a page of this console, else the first page: where a form may lead back to."""
    plain = address.startswith("/") and not address.startswith(("//", "/\\")) and address.isprintable() and address.isascii()
    return address if plain else "/"
