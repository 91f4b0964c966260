"""The console as people use it: in a browser, with scripts and without, by keyboard, on a phone; and with hostile senders."""

import re
from collections import Counter
from collections.abc import Callable
from html import unescape
from pathlib import Path
from typing import Any, Literal, cast
from urllib.parse import quote

import pytest
from playwright.sync_api import Page, expect
from starlette.routing import compile_path

from schemas.access import Principal, Role
from support.console.browser import Browser as Client
from support.console.seeding import HOSTILE, HTML, UNKNOWN
from support.console.watched import Watch, axe, overflow
from support.waiting import wait_for
from workers.console.pages import every_page

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

Visit = Callable[..., Page]
Look = Callable[[Page, str], list[str]]

PAGES = {
    "login": "/login",
    "overview of all": "/",
    "overview": "/t/acme",
    "overview, nothing yet": "/t/empty",
    "tenants": "/tenants",
    "events": "/t/acme/events",
    "events, by a wrong word": "/t/acme/events?q=colour:red",
    "events, none match": "/t/acme/events?q=type:nope",
    "events, nothing yet": "/t/empty/events",
    "event": "event:evt_1",
    "event, hostile": "event:" + HOSTILE[0] + "0",
    "timeline": "/t/acme/subjects?subject=order-1",
    "erase": "chain:order-1",
    "retry": "/t/acme/endpoints/warehouse/retry",
    "deliveries": "/t/acme/deliveries",
    "delivery": "delivery:dead",
    "dead letters": "/t/acme/dead",
    "dead letters, row by row": "/t/acme/dead/rows",
    "dead letter": "letter:unknown_source",
    "discard": "/t/acme/dead/decide/discard?q=reason%3Aexhausted",
    "endpoints": "/endpoints",
    "endpoint": "/t/acme/endpoints/crm",
    "resume": "/t/acme/endpoints/archive/resume",
    "sources": "/t/acme/sources",
    "mailboxes": "/mailboxes",
    "mailbox": "/t/acme/mailboxes/support",
    "ledger": "/t/acme/ledger",
    "exports": "/t/acme/ledger/exports",
    "jobs": "/jobs",
    "audit": "/audit",
    "configuration": "/configuration",
    "settings": "/settings",
    "sessions": "/settings/sessions",
    "find": "/find?id=nothing-has-this-id",
    "refused": "/t/nobody/events",
}


PHONE = 320  # pixels
#: How each page is looked at: the rules that apply to all of it, and those that depend on colours or on the width.
LOOKS: tuple[tuple[int, Literal["light", "dark"], tuple[str, ...]], ...] = (
    (1280, "light", ()),
    (1280, "dark", ("color-contrast",)),
    (PHONE, "light", ("target-size", "scrollable-region-focusable")),
)
#: What has colours on a phone that it has not at the desk, on some page of each kind: the menu, and rows as cards.
COLOURS_OF_A_PHONE = ("login", "overview", "events", "audit")


@pytest.fixture(params=[True, False], ids=["scripts", "no scripts"])
def scripts(request: pytest.FixtureRequest) -> bool:
    return bool(request.param)


def address(seeded: Any, name: str) -> str:
    """The path of a page; of one that is known by what it shows, as the database has it."""
    kind, mark, wanted = PAGES[name].partition(":")
    if kind not in ("event", "delivery", "letter", "chain") or not mark:
        return PAGES[name]
    if kind == "chain":
        ((chain,),) = seeded.rows("SELECT chain_id FROM chain WHERE tenant = 'acme' AND subject = %s", wanted)
        return f"/t/acme/subjects/{chain.hex}/erase"
    if kind == "event":
        ((chain, seq),) = seeded.rows("SELECT chain_id, seq FROM event_search WHERE event_id = %s", wanted)
        return f"/t/acme/events/{chain.hex}/{seq}"
    if kind == "delivery":
        return f"/t/acme/deliveries/{seeded.rows('SELECT min(id) FROM delivery WHERE state = %s', wanted)[0][0]}"
    return f"/t/acme/dead/{seeded.rows('SELECT min(id) FROM dead_letter WHERE reason = %s', wanted)[0][0]}"


def letters(seeded: Any, reason: str) -> int:
    """How many dead letters with this reason are open."""
    return int(seeded.rows("SELECT count(*) FROM dead_letter WHERE state = 'open' AND reason = %s", reason)[0][0])


def job_done(page: Page, seeded: Any) -> None:
    """Looks at the job's page again, as somebody without scripts does, when the job has ended: it is done."""
    page.wait_for_url("**/jobs/*")
    id_ = int(page.url.rpartition("/")[2])
    wait_for(lambda: seeded.rows("SELECT FROM job WHERE id = %s AND ended_at IS NOT NULL", id_), 60)
    page.reload()
    expect(page.locator("h1 + .state")).to_have_text("done")


@pytest.fixture
def look(request: pytest.FixtureRequest) -> Look:
    """Looks at a page in light and dark, on a desk and on a phone; says what axe finds, and takes pictures if asked to."""
    folder: Path | None = request.config.getoption("--screenshots", None)

    def look(page: Page, name: str) -> list[str]:
        found = []
        for width, scheme, rules in LOOKS:
            page.set_viewport_size({"width": width, "height": 900})
            page.emulate_media(color_scheme=scheme)
            more = ("color-contrast",) if width == PHONE and name in COLOURS_OF_A_PHONE else ()
            found += [f"{width} {scheme} {each}" for each in axe(page, *rules, *more)]
            wide = overflow(page)
            found += [f"{width} {scheme} is wider than the window by {wide}"] if wide else []
            if folder is not None:
                folder.mkdir(parents=True, exist_ok=True)
                page.screenshot(path=folder / f"{name} {'phone' if width == PHONE else scheme}.png", full_page=True)
        page.set_viewport_size({"width": 1280, "height": 900})
        return found

    return look


@pytest.mark.parametrize("name", PAGES)
def test_a_page_can_be_used_by_everybody(name: str, seeded: Any, desk: tuple[Page, Watch], look: Look) -> None:
    page, watch = desk
    page.goto(address(seeded, name))

    assert ([], []) == (look(page, name), watch.seen)


def test_one_logs_in_by_a_token_and_out_again(visit: Visit, token: Callable[..., str], scripts: bool) -> None:
    page = visit(known=False, java_script_enabled=scripts)
    page.goto("/t/acme/events?q=type%3Aorder.paid")
    page.get_by_label("Token").fill(token())
    page.get_by_role("button", name="Log in").click()

    expect(page.get_by_label("Filter")).to_have_value("type:order.paid")

    page.get_by_role("button", name="Log out").click()
    page.goto("/")
    expect(page.get_by_role("heading", level=1)).to_have_text("Log in")


def test_an_event_is_found_and_followed_to_the_answer_of_an_endpoint(visit: Visit, scripts: bool) -> None:
    page = visit(java_script_enabled=scripts)
    page.goto("/t/acme")
    page.get_by_role("link", name="Events", exact=True).click()
    page.get_by_label("Filter").fill("type:order.* id:evt_1")
    page.get_by_role("button", name="Show").first.click()
    page.locator("tbody tr a").first.click()

    expect(page.get_by_role("heading", level=1)).to_have_text("order.paid")

    page.get_by_role("link", name="warehouse").click()
    expect(page.locator("tbody tr").first).to_contain_text("status: answered 500")
    page.get_by_text("Show what the endpoint answered").click()
    page.get_by_label("Reason").fill("the customer asks")
    page.get_by_role("button", name="Reveal").click()
    expect(page.locator("pre").first).to_have_text("<script>alert(1)</script><img src=x onerror=alert(1)>")


def test_any_id_leads_to_its_page(visit: Visit, scripts: bool) -> None:
    page = visit(java_script_enabled=scripts)
    page.goto("/")
    page.get_by_label("Any id").fill("evt_2")
    page.get_by_role("button", name="Find").click()

    expect(page.get_by_role("heading", level=1)).to_have_text("order.paid")


def test_a_dead_letter_is_replayed(visit: Visit, seeded: Any, scripts: bool) -> None:
    page = visit(java_script_enabled=scripts)
    page.goto("/t/acme/dead/rows?q=reason%3Aunknown_source")
    page.locator("tbody tr a").first.click()
    page.get_by_role("link", name="Replay").click()
    expect(page.locator(".sentence")).to_contain_text("Replay 1 dead letter")
    page.get_by_role("button", name="Replay 1").click()

    job_done(page, seeded)
    expect(page.locator(".sentence")).to_contain_text("1 of 1 done")
    wait_for(lambda: letters(seeded, "unknown_source") == len(UNKNOWN))  # nobody has configured it meanwhile


def test_all_dead_letters_that_match_are_replayed_by_a_job(visit: Visit, seeded: Any, scripts: bool) -> None:
    page = visit(java_script_enabled=scripts)
    page.goto("/t/acme/dead")
    page.get_by_label("Filter").fill("stage:admit reason:unknown_source")
    page.get_by_role("button", name="Show").first.click()
    page.get_by_role("link", name="Replay unknown_source").click()
    page.get_by_role("button", name=f"Replay {len(UNKNOWN)}").click()

    job_done(page, seeded)
    expect(page.locator(".sentence")).to_contain_text(f"{len(UNKNOWN)} of {len(UNKNOWN)} done")
    wait_for(lambda: letters(seeded, "unknown_source") == len(UNKNOWN))


def test_what_is_discarded_must_be_confirmed_by_its_number(visit: Visit, seeded: Any, scripts: bool) -> None:
    reason = "missing_id" if scripts else "exhausted"
    page = visit(java_script_enabled=scripts)
    page.goto(f"/t/acme/dead/rows?q=reason%3A{reason}")
    page.get_by_role("checkbox").first.check()
    page.get_by_role("button", name="Discard ticked").click()
    page.get_by_label("Reason").fill("a test of theirs")
    page.get_by_label("To confirm").fill("2")
    page.get_by_role("button", name="Discard 1").click()
    expect(page.get_by_role("alert")).to_contain_text("That is not 1. Nothing was done.")
    before = letters(seeded, reason)
    page.get_by_label("To confirm").fill("1")
    page.get_by_role("button", name="Discard 1").click()

    job_done(page, seeded)
    assert before - 1 == letters(seeded, reason)


def test_two_operators_who_decide_about_the_same_do_it_once(visit: Visit, seeded: Any, look: Look) -> None:
    ann, bob = visit(), visit("operator")
    id_ = seeded.rows("SELECT max(id) FROM dead_letter WHERE state = 'open' AND reason = 'exhausted'")[0][0]
    for page in (ann, bob):
        page.goto(f"/t/acme/dead/decide/discard?id={id_}")
        page.get_by_label("Reason").fill("both of us")
        page.get_by_label("To confirm").fill("1")
    ann.get_by_role("button", name="Discard 1").click()
    job_done(ann, seeded)
    assert [] == look(ann, "job")
    bob.get_by_role("button", name="Discard 1").click()

    expect(bob.get_by_role("alert")).to_contain_text("There were 1 when you looked; there are 0 now. Nothing was done yet.")
    assert [("discarded",)] == seeded.rows("SELECT state FROM dead_letter WHERE id = %s", id_)


def test_an_endpoint_is_paused_and_resumed(visit: Visit, scripts: bool) -> None:
    page = visit(java_script_enabled=scripts)
    page.goto("/t/acme/endpoints")
    page.get_by_role("link", name="analytics").click()
    page.get_by_role("link", name="Pause").click()
    page.get_by_label("Reason").fill("they move")
    page.get_by_role("button", name="Pause").click()
    expect(page.get_by_role("status").first).to_have_text("analytics is paused.")
    expect(page.locator("h1 + .state")).to_contain_text("paused they move")
    page.get_by_role("link", name="Resume").click()
    page.get_by_role("button", name="Resume").click()

    expect(page.locator("h1 + .state")).to_have_text("active")


def test_a_test_event_shows_the_answer_at_once(visit: Visit, scripts: bool, look: Look) -> None:
    page = visit(java_script_enabled=scripts)
    page.goto("/t/acme/endpoints/billing")
    page.get_by_role("link", name="Send a test").click()
    page.get_by_role("button", name="Send").click()

    expect(page.locator("h1 + .state")).to_have_text("delivered")
    expect(page.locator("tbody tr").first).to_contain_text("200")
    assert not scripts or [] == look(page, "test of an endpoint")


def test_a_secret_is_rotated_beside_the_last_one_which_then_retires(visit: Visit, seeded: Any, look: Look) -> None:
    count = "SELECT cardinality(secrets) FROM endpoint WHERE name = 'crm'"
    page = visit("admin", "acme")
    for act, secrets in (("Rotate the secret", 2), ("Retire the last one", 1)):
        page.goto("/t/acme/endpoints/crm")
        page.get_by_role("link", name=act).click()
        page.get_by_label("Reason").fill("it was in a log")
        page.get_by_label("To confirm").fill("crm")
        page.get_by_role("button", name=act.split()[0]).click()
        page.wait_for_url(lambda url: "/retire" not in url)
        wait_for(lambda secrets=secrets: [(secrets,)] == seeded.rows(count))
        if secrets == 2:
            expect(page.locator(".secret code")).to_contain_text("whsec_")
            assert [] == look(page, "new secret")

    page.goto("/t/acme/audit")
    expect(page.locator("tbody tr").first).to_contain_text("endpoint retire-secret")


def test_what_failed_since_a_time_is_delivered_again(visit: Visit, seeded: Any) -> None:
    page = visit("operator", "acme")
    page.goto("/t/acme/endpoints/warehouse")
    page.get_by_role("link", name="Redeliver").click()
    expect(page.locator(".sentence")).to_contain_text("failed for good since then")
    page.get_by_role("button", name="Redeliver").click()

    job_done(page, seeded)


def test_a_configuration_is_compared_then_applied_unless_it_moved(
    visit: Visit, seeded: Any, tmp_path: Path, scripts: bool, look: Look
) -> None:
    name = "first" if scripts else "second"
    file = tmp_path / "waxseal.yaml"
    file.write_text(
        "tenants: [{name: acme}]\nendpoints:\n"
        f"  - {{tenant: acme, name: {name}, url: 'https://{name}.example/<script>alert(1)</script>'}}\n"
    )
    page = visit(java_script_enabled=scripts)
    page.goto("/configuration")
    page.get_by_label("Configuration file").set_input_files(file)
    page.get_by_role("button", name="Show the difference").click()
    expect(page.locator("tbody tr").first).to_contain_text(f"acme/{name}")
    assert not scripts or [] == look(page, "difference")
    seeded.run("UPDATE catalog SET version = version + 1")
    page.get_by_role("button", name="Apply 1 change").click()
    expect(page.get_by_role("alert")).to_contain_text("The configuration changed since you looked")
    page.get_by_role("button", name="Apply 1 change").click()

    expect(page.get_by_role("heading", level=1)).to_have_text("Applied")
    expect(page.locator(".secret + dl")).to_contain_text("whsec_")
    page.goto("/audit")
    expect(page.locator("tbody tr").first).to_contain_text("apply")


def test_an_upload_reads_no_file_and_no_variable_of_the_machine(visit: Visit, tmp_path: Path, look: Look) -> None:
    file = tmp_path / "waxseal.yaml"
    kinds = "kind: standard-webhooks, secrets"
    file.write_text(
        "tenants: [{name: acme}]\nsources:\n"
        f"  - {{tenant: acme, name: a, {kinds}: ['env:WAXSEAL_KEYS']}}\n"
        f"  - {{tenant: acme, name: b, {kinds}: ['file:/etc/passwd']}}\n"
    )
    page = visit()
    page.goto("/configuration")
    page.get_by_label("Configuration file").set_input_files(file)
    page.get_by_role("button", name="Show the difference").click()

    expect(page.get_by_role("alert")).to_contain_text("2 faults")
    expect(page.locator(".warning li").first).to_contain_text("the environment variable WAXSEAL_KEYS is not set")
    expect(page.locator(".warning li").last).to_contain_text("names a file, which an upload may not")
    assert [] == look(page, "configuration, faulty")


def test_content_is_shown_after_a_reason_which_the_audit_has(visit: Visit, seeded: Any, scripts: bool) -> None:
    page = visit("operator", java_script_enabled=scripts)
    page.goto(address(seeded, "event, hostile"))
    assert "onerror=alert(1)>" not in page.locator("#content").inner_html()
    page.get_by_label("Reason").fill(f"to see it {scripts}")
    page.get_by_role("button", name="Reveal").click()

    expect(page.get_by_label("Content", exact=True)).to_have_text(
        "<html><script>alert(1)</script><img src=x onerror=alert(1)></html>"
    )
    page.goto("/t/acme/audit")
    expect(page.locator("tbody tr").first).to_contain_text(f"to see it {scripts}")


def test_a_buried_message_is_shown_after_a_reason(visit: Visit, seeded: Any) -> None:
    page = visit("operator", "acme")
    page.goto(address(seeded, "dead letter"))
    assert "onerror=alert(1)>" not in page.content()
    page.get_by_label("Reason").fill("what did they send")
    page.get_by_role("button", name="Reveal").click()

    expect(page.get_by_label("Content", exact=True)).to_have_text(HTML.decode())
    page.goto("/t/acme/audit")
    expect(page.locator("tbody tr").first).to_contain_text("reveal content")


def test_a_mail_with_hostile_names_is_shown_as_text(visit: Visit, seeded: Any, look: Look) -> None:
    page = visit()
    ((chain, seq),) = seeded.rows("SELECT chain_id, seq FROM event_search WHERE type = 'email.received'")
    wait_for(lambda: seeded.rows("SELECT FROM mail_document WHERE document IS NOT NULL"), 60)
    page.goto(f"/t/acme/events/{chain.hex}/{seq}")
    page.get_by_label("Reason").fill("a phishing mail")
    page.get_by_role("button", name="Reveal").click()

    expect(page.get_by_label("Document")).to_contain_text("<svg onload=alert(1)>")
    expect(page.get_by_label("Content", exact=True)).to_contain_text("<b onclick=alert(1)>hello</b>")
    assert [] == look(page, "content")


def test_what_senders_write_is_text_on_every_page(visit: Visit, seeded: Any) -> None:
    page = visit()
    for chain, seq, subject in seeded.rows(
        "SELECT chain_id, seq, subject FROM event_search JOIN subject_search USING (chain_id)"
    ):
        if subject not in HOSTILE:
            continue
        page.goto(f"/t/acme/events/{chain.hex}/{seq}")
        shown = page.get_by_role("heading", level=1).inner_text()
        assert subject.replace("\u202e", "⟨U+202E⟩").replace("\u2066", "⟨U+2066⟩").replace("\u200b", "⟨U+200B⟩") == shown
        assert page.title().endswith("· acme · Waxseal")
        page.locator(".crumbs a").last.click()
        assert shown == page.get_by_role("heading", level=1).inner_text()
        page.locator("tbody tr a").first.click()
        assert shown == page.get_by_role("heading", level=1).inner_text()
    for path in ("/t/acme/dead/rows?q=stage%3Aadmit", f"/t/acme/events?q={quote(HOSTILE[0])}", f"/find?id={quote(HOSTILE[3])}"):
        page.goto(path)
        assert 0 == page.locator("main script, main img, main svg[onload]").count()


def test_a_session_is_ended_from_another_one(visit: Visit, token: Callable[..., str], scripts: bool) -> None:
    other = visit(known=False, java_script_enabled=scripts)
    who = f"bob {scripts}".lower()
    other.goto("/login")
    other.get_by_label("Token").fill(token("viewer", "acme", who))
    other.get_by_role("button", name="Log in").click()
    expect(other.get_by_role("heading", level=1)).to_have_text("acme")
    page = visit(java_script_enabled=scripts)
    page.goto("/settings")
    page.get_by_role("link", name="Sessions").click()
    page.get_by_role("button", name=f"End the session of {who}").click()
    other.goto("/t/acme")

    expect(other.get_by_role("heading", level=1)).to_have_text("Log in")


def press_to(page: Page, name: str, most: int = 60) -> None:
    """Moves the focus by Tab to what has this name, as somebody without a mouse does."""
    for _ in range(most):
        page.keyboard.press("Tab")
        focused = "document.activeElement.labels?.[0]?.textContent.trim() || document.activeElement.textContent.trim()"
        if str(page.evaluate(focused)).startswith(name):
            return
    raise AssertionError(f"Tab does not lead to {name}")


def test_one_logs_in_by_keyboard_alone(visit: Visit, token: Callable[..., str]) -> None:
    page = visit(known=False)
    page.goto("/login")
    press_to(page, "Token")
    page.keyboard.type(token("viewer", "acme"))
    page.keyboard.press("Enter")

    expect(page.get_by_role("heading", level=1)).to_have_text("acme")


def test_an_event_is_found_by_keys_alone(visit: Visit) -> None:
    page = visit()
    page.goto("/t/acme")
    page.keyboard.press("g")
    page.keyboard.press("e")
    page.wait_for_url("**/events")
    page.keyboard.press("/")
    page.keyboard.type("type:order.created")
    page.keyboard.press("Enter")
    page.wait_for_url("**/events?q=*")
    page.keyboard.press("j")
    page.keyboard.press("j")
    page.keyboard.press("Enter")

    expect(page.get_by_role("heading", level=1)).to_have_text("order.created")


def test_an_endpoint_is_paused_and_resumed_by_keyboard_alone(visit: Visit) -> None:
    page = visit(viewport={"width": 1280, "height": 900})
    page.goto("/t/acme/endpoints/billing")
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")  # skips to the content
    press_to(page, "Pause")
    page.keyboard.press("Enter")
    page.wait_for_url("**/pause")
    press_to(page, "Reason")
    page.keyboard.type("by keyboard")
    page.keyboard.press("Enter")
    expect(page.locator("h1 + .state")).to_contain_text("paused by keyboard")
    press_to(page, "Resume")
    page.keyboard.press("Enter")
    page.wait_for_url("**/resume")
    press_to(page, "Resume")
    page.keyboard.press("Enter")

    expect(page.locator("h1 + .state")).to_have_text("active")


def test_a_page_is_refreshed_only_while_nobody_is_busy_with_it(visit: Visit) -> None:
    page = visit(use="a clock that stands still")
    page.clock.install()
    page.goto("/t/acme/dead/rows")
    fetched: list[str] = []
    page.on("request", lambda request: fetched.append(request.url) if request.resource_type == "fetch" else None)
    page.get_by_role("checkbox").first.check()
    page.clock.run_for(40_000)
    assert [] == fetched
    page.get_by_role("checkbox").first.uncheck()
    page.locator("h1").click()
    with page.expect_response(lambda answer: answer.request.resource_type == "fetch") as answer:
        page.clock.run_for(20_000)
    assert answer.value.text().startswith('<div id="live">')


@pytest.mark.parametrize("grant", ["viewer acme", "operator acme", "admin acme", "viewer", "admin"])
def test_whatever_is_offered_to_somebody_he_may_have(grant: str, console: str, token: Callable[..., str]) -> None:
    """Follows every link from the first page, a few of each kind; looks up the role of every act that a form is for."""
    given, _, where = grant.partition(" ")
    role, tenant = cast(Role, given), where or None
    browser = Client(console)
    assert 303 == browser.post("/login", {"token": token(role, tenant), "next": "/"}).status
    grants: dict[str, Role] = {tenant or "*": role}
    asks = Principal("crawler", grants, "session", "1")
    acts = [(compile_path(act.path)[0], act.role) for act in every_page.ACTS]
    left, seen, kinds = ["/"], {"/"}, Counter[str]()
    while left:
        path = left.pop()
        answer = browser.get(path, accept="text/html")
        if answer.status == 303:
            answer = browser.get(answer.location.removeprefix(console), accept="text/html")
        assert 200 == answer.status, (path, answer.status)
        for action in re.findall(r'<form method="post" action="([^"]*)"', answer.text):
            needed = [needs for form, needs in acts if needs and form.match(unescape(action))]
            assert all(asks.may(needs, tenant or "*") for needs in needed), (path, action)
        for link in map(unescape, re.findall(r'(?:href|formaction)="([^"#][^"]*)"', answer.text)):
            kind = re.sub(r"[0-9a-f]{32}|\d+|=[^&]*", "", link)
            if link.startswith("/") and not link.startswith("/static/") and link not in seen and kinds[kind] < 2:
                kinds[kind] += 1
                seen.add(link)
                left.append(link)
    assert len(kinds) > 40
    if tenant is not None:
        assert {"/t/acme"} == {"/".join(path.split("/")[:3]) for path in seen if path.startswith("/t/")}
        assert 404 == browser.get("/t/empty/events").status
        assert 403 == browser.get("/audit").status
