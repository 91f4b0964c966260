"""What templates are rendered with: everything is escaped, and what a sender can hide in a text is made visible."""

from pathlib import Path
from typing import Any, Final

import orjson
from jinja2 import Environment, FileSystemLoader, StrictUndefined, select_autoescape

from workers.console.rendering.asset_files import ASSETS
from workers.console.rendering.figures_in_words import browser, counted, many, moment, number, size, span
from workers.console.rendering.page_addresses import asked, at
from workers.console.rendering.plots import chart, phases, sparkline, tries
from workers.console.rendering.visible_text import exact, shown

_ENVIRONMENT: Final = Environment(
    loader=FileSystemLoader(Path(__file__).parents[1] / "templates"),
    autoescape=select_autoescape(default=True, default_for_string=True),
    undefined=StrictUndefined,
    finalize=shown,
    trim_blocks=True,
    lstrip_blocks=True,
    auto_reload=False,
)
_ENVIRONMENT.filters |= {
    "moment": moment,
    "span": span,
    "number": number,
    "counted": counted,
    "size": size,
    "browser": browser,
    "exact": exact,
    "tojson_text": lambda value: orjson.dumps(value).decode(),
    "indented": lambda value: orjson.dumps(value, option=orjson.OPT_INDENT_2).decode(),
    "range_down": lambda count: range(count - 1, -1, -1),
}
_ENVIRONMENT.globals |= {
    "at": at,
    "asked": asked,
    "most": lambda series: max((each for each in series if each is not None), default=None),
    "many": many,
    "asset": lambda name: ASSETS[name].url,
    "chart": chart,
    "sparkline": sparkline,
    "phases": phases,
    "tries": tries,
}


def page(template: str, values: dict[str, Any]) -> str:
    """The page of a template."""
    return _ENVIRONMENT.get_template(template).render(values)
