"""The page ops/docs/settings.md, generated from the settings themselves."""

from typing import Final

from ops.settings import described

_TOP: Final = """\
# Settings

Every process and every command reads these environment variables once, at its start. An invalid or missing value stops
it with exit code 2 and the variable's name. `waxseal settings` prints the same list.

This page is generated: `waxseal settings --markdown`.

| variable | default | meaning |
|---|---|---|
"""


def settings_page() -> str:
    """Return the page: every variable with its default and its meaning."""
    return _TOP + "".join(_row(*each) for each in described())


def _row(variable: str, default: str, meaning: str) -> str:
    return f"| `{variable}` | {f'`{default}`' if default else ''} | {meaning.replace('|', '&#124;')} |\n"
