"""All pages and acts of the console, and the routes that are made of them."""

from typing import Final

from starlette.routing import BaseRoute

from workers.console.call import Console
from workers.console.pages import (
    audit_page,
    configuration_pages,
    dead_letter_pages,
    delivery_pages,
    endpoint_acts,
    endpoint_pages,
    erasure_page,
    event_pages,
    home_pages,
    job_pages,
    ledger_pages,
    mailbox_pages,
    setting_pages,
)
from workers.console.pages.page_table import Act, Page, act_route, back_route, page_route

PAGES: Final[list[Page]] = [
    *home_pages.PAGES,
    *event_pages.PAGES,
    *erasure_page.PAGES,
    *delivery_pages.PAGES,
    *dead_letter_pages.PAGES,
    *endpoint_pages.PAGES,
    *endpoint_acts.PAGES,
    *mailbox_pages.PAGES,
    *ledger_pages.PAGES,
    *configuration_pages.PAGES,
    *job_pages.PAGES,
    *audit_page.PAGES,
    *setting_pages.PAGES,
]
ACTS: Final[list[Act]] = [
    *event_pages.ACTS,
    *erasure_page.ACTS,
    *delivery_pages.ACTS,
    *dead_letter_pages.ACTS,
    *endpoint_acts.ACTS,
    *mailbox_pages.ACTS,
    *ledger_pages.ACTS,
    *configuration_pages.ACTS,
    *job_pages.ACTS,
    *setting_pages.ACTS,
]


def routes(console: Console) -> list[BaseRoute]:
    """The routes of all pages and acts."""
    shown = {each.path for each in PAGES}
    return [
        *(page_route(console, each) for each in PAGES),
        *(act_route(console, each) for each in ACTS),
        *(back_route(each) for each in ACTS if each.path not in shown),
    ]
