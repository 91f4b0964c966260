"""The demo fails if any result is wrong, and names it; its last words can be followed in any shell."""

import subprocess
import sys
from pathlib import Path

import pytest

from ops.demo.outcome import Outcome
from ops.demo.run import path_hint
from ops.demo.traffic import Sent
from support.pages import PAGES, README

SENT = [
    Sent("paid", "p", str, "202", "order-1", planned_for=("works", "recovers", "broken")),
    Sent("paid again", "p", str, "202", "order-1", repeats=True),
    Sent("forged", "f", str, "401"),
    Sent("lost", "l", str, "confirmed", buried="missing_id"),
]
ANSWERS = ["202", "202", "401", "confirmed"]
ENTRY = {"id": "p", "subject": "order-1", "seq": 0}
LETTER = {"id": 1, "stage": "admit", "reason": "missing_id", "detail": ""}
DELIVERIES = {
    ("p", "works"): {"state": "delivered", "attempts": 1},
    ("p", "recovers"): {"state": "delivered", "attempts": 3},
    ("p", "broken"): {"state": "dead", "attempts": 3},
}
GOOD = Outcome({"p": [ENTRY]}, DELIVERIES, {"l": LETTER}, [])


def changed(**deliveries: dict) -> Outcome:
    return Outcome(
        GOOD.entries, {**DELIVERIES, **{("p", name): view for name, view in deliveries.items()}}, GOOD.dead_letters, []
    )


def problems(outcome: Outcome, answers: list[str] = ANSWERS) -> list[str]:
    return list(outcome.problems(SENT, answers))


def test_all_is_well_when_everything_came_out_as_it_must() -> None:
    assert [] == problems(GOOD)
    assert GOOD.settled(SENT)
    assert ["order-1 #0", "still once: order-1 #0", "nothing", "dead letter 1: missing_id"] == [
        GOOD.place(sent) for sent in SENT
    ]


def test_every_other_outcome_is_a_problem_with_a_name() -> None:
    cases = {
        "forged: answered 202 instead of 401": problems(GOOD, ["202", "202", "202", "confirmed"]),
        "paid: recorded 2 times": problems(Outcome({"p": [ENTRY, ENTRY]}, DELIVERIES, {"l": LETTER}, [])),
        "forged: recorded 1 times": problems(Outcome({"p": [ENTRY], "f": [ENTRY]}, DELIVERIES, {"l": LETTER}, [])),
        "lost: became no dead letter instead of missing_id": problems(Outcome({"p": [ENTRY]}, DELIVERIES, {}, [])),
        "paid: recovers came to ('delivered', 1) instead of ('delivered', 3)": problems(
            changed(recovers={"state": "delivered", "attempts": 1})
        ),
        "paid: broken came to ('delivered', 1) instead of ('dead', 3)": problems(
            changed(broken={"state": "delivered", "attempts": 1})
        ),
        "a dead letter that should not be: actor boom x": problems(
            Outcome(GOOD.entries, DELIVERIES, GOOD.dead_letters, [{"stage": "actor", "reason": "boom", "detail": "x"}])
        ),
    }

    for told, found in cases.items():
        assert told in found


def test_it_waits_for_what_is_still_on_its_way() -> None:
    assert not changed(recovers={"state": "pending", "attempts": 2}).settled(SENT)
    assert not Outcome({}, DELIVERIES, {"l": LETTER}, []).settled(SENT)
    assert not Outcome({"p": [ENTRY]}, DELIVERIES, {}, []).settled(SENT)


@pytest.mark.parametrize("folder", [".venv/bin", "it's elsewhere/bin"])
def test_a_line_puts_waxseal_on_the_path_of_a_shell_unless_it_is_there(
    folder: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / folder / "waxseal"
    program.parent.mkdir(parents=True)
    program.write_text("#!/bin/sh\necho found\n")
    program.chmod(0o755)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "executable", str(program.with_name("python")))
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    hint = path_hint()

    assert "found\n" == subprocess.run(["sh", "-c", f"{hint}waxseal"], capture_output=True, text=True, check=True).stdout
    assert ("it's" in folder) != (hint.strip() in PAGES[README])
    monkeypatch.setenv("PATH", str(program.parent))
    assert "" == path_hint()
