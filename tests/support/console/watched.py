"""A browser whose pages are watched: for dialogs, errors, refusals of the policy, and requests to anywhere else."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import axe_playwright_python
from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Page, sync_playwright

CHROMIUM: Final = "/usr/bin/chromium-headless-shell"
AXE: Final = (Path(axe_playwright_python.__file__).parent / "axe.min.js").read_text()

#: Drawing in the browser's own process, by the CPU as there is no GPU, takes a tenth less in all.
_DRAWING: Final = ["--disable-dev-shm-usage", "--disable-gpu", "--in-process-gpu"]
#: A page is left before its scripts, and axe, which is loaded anew in each, have run as often as optimizing them is worth.
_SCRIPTS: Final = ["--js-flags=--no-opt --no-maglev --max-lazy"]

#: All rules but those that only advise, with the one on the size of targets, which is off by default. The first rows of
#: a table stand for all of them: each more costs as much, also one that is only excluded. So the others are away
#: meanwhile, and only that no id is there twice is looked for in all.
_RUN: Final = """async (only) => {
  const ids = [...document.querySelectorAll('[id]')].map((each) => each.id);
  const twice = ids.filter((id, place) => ids.indexOf(id) < place).map((id) => `twice on the page: id ${id}`);
  const away = [...document.querySelectorAll('tbody tr:nth-child(n+12)')].map((row) => [row.parentNode, row]);
  away.forEach(([_, row]) => row.remove());
  const found = await axe.run(document, {
    resultTypes: ['violations'],
    rules: {'target-size': {enabled: true}},
    ...(only ? {runOnly: {type: 'rule', values: only}} : {}),
  });
  away.forEach(([body, row]) => body.append(row));
  return twice.concat(found.violations.filter((each) => ['serious', 'critical', 'moderate'].includes(each.impact))
    .map((each) => `${each.id}: ${each.nodes.map((node) => node.html.slice(0, 160)).slice(0, 3).join(' | ')}`));
}"""


@contextmanager
def chromium() -> Iterator[Browser]:
    """One headless browser. It fails loudly if Debian's and the driver's versions do not go together."""
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=[*_DRAWING, *_SCRIPTS])
        page = browser.new_page()
        page.set_content("<title>ready</title>")
        assert "ready" == page.title()
        page.close()
        yield browser
        browser.close()


class Watch:
    """What must not happen on any page of a context."""

    def __init__(self, context: BrowserContext, base: str) -> None:
        self._base = base
        self.seen: list[str] = []
        context.on("page", self._watch)
        context.on("request", lambda request: self._request(request.url))

    def _watch(self, page: Page) -> None:
        page.on("dialog", lambda dialog: (self.seen.append(f"dialog: {dialog.message}"), dialog.dismiss()))
        page.on("pageerror", lambda error: self.seen.append(f"error: {error}"))
        page.on("console", self._said)

    def _said(self, message: ConsoleMessage) -> None:
        if message.type in ("error", "warning") and "status of 4" not in message.text:
            self.seen.append(f"{message.type}: {message.text}")

    def _request(self, url: str) -> None:
        if not url.startswith((self._base, "data:", "about:")):
            self.seen.append(f"request: {url}")


def axe(page: Page, *only: str) -> list[str]:
    """What keeps people from using the page: all rules, or only these."""
    if not page.evaluate("typeof axe === 'object'"):
        page.evaluate(AXE)
    found: list[str] = page.evaluate(_RUN, list(only) or None)
    return found


def overflow(page: Page) -> int:
    """By how many pixels the page is wider than the window."""
    found: Any = page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
    return int(found)
