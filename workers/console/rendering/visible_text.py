"""Makes visible what a sender can hide in a text: control, format and bidirectional characters, and lone surrogates."""

import re
from typing import Any, Final

from markupsafe import Markup, escape

# Cc but line feed and tab; Cf; Cs; Zl and Zp of Unicode: none has a shape of its own, and some reorder what is around them.
_HIDDEN: Final = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\xad\u0600-\u0605\u061c\u06dd\u070f\u0890\u0891\u08e2\u180e\u200b-\u200f\u2028-\u202e\u2060-\u206f"
    "\ud800-\udfff\ufeff\ufff9-\ufffb\U000110bd\U000110cd\U00013430-\U0001343f\U0001bca0-\U0001bca3\U0001d173-\U0001d17a"
    "\U000e0001\U000e0020-\U000e007f]"
)


def visible(text: str) -> str:
    """The text with a picture or the code point, `⟨U+202E⟩`, in place of each hidden character."""
    return _HIDDEN.sub(_shown, text)


def shown(value: Any) -> Any:
    """What a template writes for a value: nothing for None, and a text with everything in it visible."""
    if value is None:
        return ""
    if isinstance(value, str) and not isinstance(value, Markup):
        return visible(value)
    return value


def exact(value: str) -> Markup:
    """The text as it is, for the value of a field that is sent back."""
    return Markup(escape(value.encode(errors="replace").decode()))  # noqa: S704 - it is escaped


def _shown(match: "re.Match[str]") -> str:
    code = ord(match[0])
    return chr(0x2400 + code) if code < 0x20 else f"⟨U+{code:04X}⟩"
