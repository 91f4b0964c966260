"""The pages of documentation, parsed: their fenced blocks, the commands in them, and text in backticks."""

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from textwrap import dedent

import click

from ops.cli import main
from support.paths import ROOT

README = "README.md"
#: Every page by its path, in the order in which their commands are run: those that change most for the others come last.
PATHS = (
    README,
    *(
        f"ops/docs/{name}.md"
        for name in (
            "sources",
            "delivery",
            "mailboxes",
            "dead-letters",
            "console",
            "api",
            "ledger",
            "log",
            "verifying",
            "backup",
            "connections",
            "failover",
            "scaling",
            "growth",
            "capacity",
            "cells",
            "settings",
            "metrics",
            "tracing",
        )
    ),
    *(
        f"ops/docs/{name}.md"
        for name in ("architecture", "containers", "kubernetes", "systemd", "dashboards", "runbook", "operating", "erasure")
    ),
    ".github/CONTRIBUTING.md",
    ".github/SECURITY.md",
)
PAGES = {path: (ROOT / path).read_text(encoding="utf-8") for path in PATHS}

_FENCE = re.compile(r"^( *)```(\w*)\n(.*?)^\1```$", re.DOTALL | re.MULTILINE)
_LOGICAL = re.compile(
    r"[^\n]*<<'?(\w+)'?\n.*?^\1$|(?:[^\n]*\\\n)*[^\n]+", re.DOTALL | re.MULTILINE
)  # a here-document, or a line


@dataclass(frozen=True)
class Block:
    """A fenced block of a page."""

    page: str
    language: str
    text: str

    def commands(self) -> Iterator[str]:
        """The commands of a block in `sh`, with their comments."""
        return (match[0].strip() for match in _LOGICAL.finditer(self.text) if match[0].strip())


def blocks(language: str | None = None, page: str | None = None) -> list[Block]:
    """The fenced blocks of all pages, or of one, in their order."""
    found = (Block(path, match[2], dedent(match[3])) for path, text in PAGES.items() for match in _FENCE.finditer(text))
    return [block for block in found if language in (None, block.language) and page in (None, block.page)]


def commands(program: str) -> list[list[str]]:
    """The arguments of every command of `program` in the blocks of all pages."""
    found = (shlex.split(command, comments=True) for block in blocks("sh") for command in block.commands())
    return [words[1:] for words in found if words and words[0] == program]


def quoted(page: str) -> list[str]:
    """The texts in backticks on a page, outside its blocks."""
    return re.findall(r"`([^`\n]+)`", _FENCE.sub("", PAGES[page]))


def section(page: str, heading: str) -> str:
    """The text under a heading, up to the next one of any level."""
    found = re.search(rf"^#+ {re.escape(heading)}\n(.*?)(?=^#|\Z)", PAGES[page], re.DOTALL | re.MULTILINE)
    assert found is not None, heading
    return found[1]


def unknown_words(words: list[str]) -> list[str]:
    """The arguments of `waxseal` that are neither a command nor one of its options."""
    command: click.Command = main
    unknown = []
    for word in words:
        if isinstance(command, click.Group) and not word.startswith("-"):
            if word not in command.commands:
                return [word]
            command = command.commands[word]
        elif word.startswith("-") and word != "-":
            options = {"--help", "-h"}.union(*(parameter.opts for parameter in command.params))
            unknown += [] if word.partition("=")[0] in options else [word]
    return unknown
