"""What a list shows: its filter, from the words in the address; the fields of a form become such words."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from starlette.responses import RedirectResponse, Response

from workers.console.call import Call
from workers.console.rendering.filter_words import Field, filled, read, time, write
from workers.console.rendering.page_addresses import asked

_PREFIX = "f_"  # of the form's fields


@dataclass(frozen=True)
class Filter:
    """The words as written, their values by name, and what is wrong with them, if anything is: then nothing is shown."""

    words: str
    values: Mapping[str, str]
    error: str | None
    fields: Sequence[Field]

    def text(self, name: str) -> str | None:
        """The value of a word; None if it is not there."""
        return self.values.get(name)

    def time(self, name: str) -> datetime | None:
        """The time that a word names."""
        return time(self.values[name]) if name in self.values else None

    def but(self, **values: str) -> str:
        """The words with these added or replaced; empty ones removed."""
        return write({**self.values, **values})

    def without(self) -> Sequence[tuple[str, str]]:
        """For each word, its name and the words without it: what to drop when nothing matches."""
        return [(name, self.but(**{name: ""})) for name in self.values]


def chosen(call: Call, fields: Sequence[Field]) -> Filter | Response:
    """The filter of a page, or a redirect to the page whose address has it as words."""
    given = {name: value for name, value in call.query.items() if name.startswith(_PREFIX)}
    if given:
        kept = {name: value for name, value in call.query.items() if name not in given and name != "q"}
        words = write({name.removeprefix(_PREFIX): value.strip() for name, value in given.items()})
        return RedirectResponse(asked(call.request.url.path, **kept, q=words), 303)
    words = call.query.get("q", "")[:1000]
    values, error = read(words, fields)
    return Filter(words, values, error, filled(fields, values))
