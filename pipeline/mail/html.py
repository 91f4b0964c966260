"""HTML to text. Nothing is fetched and nothing is run; hidden elements are left out."""

import re
from collections.abc import Iterator
from copy import copy
from typing import Final

from inscriptis import Inscriptis
from inscriptis.css_profiles import CSS_PROFILES
from inscriptis.html_properties import Display
from inscriptis.model.config import ParserConfig
from inscriptis.model.html_element import HtmlElement
from inscriptis.model.tag import CustomHtmlTagHandlerMapping
from lxml import html as lxml_html

from pipeline.mail.charsets import storable
from pipeline.mail.flags import Findings

MAX_HTML: Final = 512 * 1024  # characters

_HIDDEN: Final = re.compile(r"display\s*:\s*none|mso-hide\s*:\s*all", re.IGNORECASE)
_DECLARATION: Final = re.compile(r"\s*<\?xml[^>]{0,500}>")
_TAGS: Final = re.compile(r"<[^<>]*>?")
#: The parser's time is quadratic in a tag's attributes; a tag this long is usually an image in a data: URL.
_LONG_TAG: Final = re.compile(r"<([A-Za-z]{1,20})[^<>]{4000,}>?")


def text_of_html(source: str, findings: Findings) -> str:
    """The visible text of the first `MAX_HTML` characters. If the HTML cannot be parsed, only its tags are removed."""
    if len(source) > MAX_HTML:
        findings.flag("text_cut", "HTML")
    source = storable(source[:MAX_HTML].replace("\0", " "))
    rendered: list[str] = []
    with findings.flagging_errors("malformed_html"):
        rendered.append(_rendered(_LONG_TAG.sub(r"<\1>", source)))
    text = rendered[0] if rendered else _TAGS.sub(" ", source)
    return "\n".join(_without_gaps(text.replace("\xa0", " "))).strip()


def _rendered(source: str) -> str:
    declaration = _DECLARATION.match(source)
    source = source[declaration.end() :] if declaration else source
    if not source.strip():
        return ""
    parser = lxml_html.HTMLParser(encoding="utf-8", no_network=True, remove_comments=True, remove_pis=True)
    tree = lxml_html.document_fromstring(f"<div>{source}</div>".encode(), parser=parser)
    if any("depth" in entry.message for entry in parser.error_log):
        raise ValueError("elements nest too deep")
    return str(Inscriptis(tree, _config()).get_text())


def _config() -> ParserConfig:
    """Disables columns, indents and margins: mails use tables for layout, and inscriptis bounds none of the three."""
    css = {name: copy(element) for name, element in CSS_PROFILES["relaxed"].items()}
    for element in css.values():
        element.padding_inline = 0
    css["tr"] = HtmlElement(display=Display.block)
    css["td"] = css["th"] = HtmlElement(display=Display.inline, suffix=" ")
    config = ParserConfig(css=css, custom_html_tag_handler_mapping=_NO_TABLES)
    config.attribute_handler.attribute_mapping = {"style": _style, "hidden": _hide}
    return config


def _style(style: str, element: HtmlElement) -> None:
    if _HIDDEN.search(style):
        _hide(style, element)


def _hide(_value: str, element: HtmlElement) -> None:
    element.display = Display.none


def _leave(*_: object) -> None:
    """Do nothing."""


_NO_TABLES: Final = CustomHtmlTagHandlerMapping(
    start_tag_mapping=dict.fromkeys(("table", "tr", "td", "th"), _leave),
    end_tag_mapping=dict.fromkeys(("table", "td", "th"), _leave),
)


def _without_gaps(text: str) -> Iterator[str]:
    """The lines, with each run of empty lines reduced to one."""
    empty = False
    for line in text.splitlines():
        bare = line.rstrip()
        if bare or not empty:
            yield bare
        empty = not bare
