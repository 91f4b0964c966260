"""What queries, bodies and answers of several operations have in common, as pydantic models."""

from datetime import datetime
from typing import Annotated, Any, Final

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, create_model

MOST: Final = 200  # rows on a page
USUAL: Final = 50


class Given(BaseModel):
    """What a client sends: known members only."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Shape(BaseModel):
    """What a client gets; it may get more members with a later version."""


def _decimal(value: Any) -> Any:
    """Digits only: pydantic takes `1_0`, ` 1` and `1.0` for numbers, too."""
    if isinstance(value, str) and not (value.isascii() and value.isdecimal()):
        raise ValueError("must be a number in digits")
    return value


def _flag(value: Any) -> Any:
    """These words only: pydantic takes `yes`, `on` and `1`, too."""
    if isinstance(value, str) and value not in ("true", "false"):
        raise ValueError("must be true or false")
    return value


Number = Annotated[int, BeforeValidator(_decimal)]
Flag = Annotated[bool, BeforeValidator(_flag)]
Cursor = Annotated[str, Field(min_length=1, max_length=2000, pattern=r"^[A-Za-z0-9_.~-]+$", description="`next` of a page")]
Limit = Annotated[Number, Field(ge=1, le=MOST, description="rows on a page at most")]
Reason = Annotated[str, Field(min_length=1, max_length=1000, pattern=r"^[^\u0000-\u001f\u007f-\u009f\u2028\u2029]*$")]


class Paged(Given):
    """The query of a list."""

    limit: Limit = USUAL
    cursor: Cursor | None = None


class Page(Shape):
    """A page of a list."""

    next: Annotated[str | None, Field(description="`cursor` of the next page; null: this is the last one")]


def page_of(row: type[BaseModel], **more: Any) -> type[BaseModel]:
    """The model of a page of such rows."""
    name = f"{row.__name__}Page"
    return create_model(name, __base__=Page, __doc__=f"A page of {row.__name__} rows.", data=(list[row], ...), **more)  # type: ignore[valid-type]


class Changed(Shape):
    """Whether an act changed anything; false: all was so already."""

    changed: bool


class Why(Given):
    """The body of an act that takes a reason."""

    reason: Annotated[Reason | None, Field(description="why; the audit keeps it")] = None


class Because(Given):
    """The body of an act that needs a reason."""

    reason: Annotated[Reason, Field(description="why; the audit keeps it")]


Time = datetime
Hex = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Chain = Annotated[str, Field(pattern=r"^[0-9a-f]{32}$")]
