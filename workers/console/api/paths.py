"""The paths of the API, and the form of each parameter in them."""

from collections.abc import Mapping
from typing import Final

PREFIX: Final = "/api/v1"
OF_TENANT: Final = "/tenants/{tenant}"

_NAME: Final = r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?"
#: What has another form does not exist.
IN_PATH: Final[Mapping[str, str]] = {
    "tenant": _NAME,
    "name": _NAME,
    "chain": "[0-9a-f]{32}",
    "seq": "(0|[1-9][0-9]{0,17})",
    "id": "[1-9][0-9]{0,17}",
    "key": "[A-Za-z0-9_-]{1,100}",
}
