"""What is asked of a mail provider, and what it answers."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import orjson

AT_ONCE: Final = 4  # requests; as many as Microsoft allows for one mailbox
MAX_JSON: Final = 16 * 1024 * 1024  # bytes of an answer that is not a mail


@dataclass(frozen=True, slots=True)
class Request:
    """A GET, or with `form` a POST of it. Headers and form hold secrets."""

    url: str
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    form: Mapping[str, str] | None = field(default=None, repr=False)
    limit: int = MAX_JSON  # bytes of the answer


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer. `too_large`: it exceeds the limit, and its body was dropped."""

    status: int
    headers: Mapping[str, str]
    body: bytes | bytearray = field(repr=False)
    too_large: bool = False

    @property
    def ok(self) -> bool:
        """Whether the status is 2xx."""
        return 200 <= self.status < 300

    def json(self) -> dict[str, Any]:
        """The JSON object in the body; an empty one if there is none."""
        try:
            value = orjson.loads(self.body)
        except orjson.JSONDecodeError:
            return {}
        return value if isinstance(value, dict) else {}
