"""Coverage-guided fuzzing of reading a mail: its header, subject, admission and document. `make fuzz` runs it.

Needs atheris, which is in no lock file: `pip install atheris`. Starts from the nasty mails of the tests. It writes each
failing mail to a file, which `python tests/fuzz/fuzz_mail.py FILE` tries again, with or without atheris.
"""

import signal
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

try:
    import atheris
except ImportError:
    atheris = None

SECONDS = 10  # for one mail; a slower one counts as a failure
LONGEST = 64 * 1024  # bytes of a mail


def imported() -> Any:
    import dkim
    import orjson

    from pipeline import admit
    from pipeline.mail import document, event_attributes
    from schemas import catalog, mail_document, message, source
    from support.mail.nasty import NASTY

    return dkim, orjson, NASTY, admit, event_attributes, document, catalog, mail_document, message, source


if atheris is not None and len(sys.argv) > 1 and not Path(sys.argv[1]).is_file():
    with atheris.instrument_imports(include=["pipeline", "email", "dkim", "authres", "tnefparse", "inscriptis"]):
        DKIM, ORJSON, NASTY, ADMIT, ATTRIBUTES, DOCUMENT, CATALOGS, SCHEMA, MESSAGES, SOURCES = imported()
else:
    DKIM, ORJSON, NASTY, ADMIT, ATTRIBUTES, DOCUMENT, CATALOGS, SCHEMA, MESSAGES, SOURCES = imported()

NOW = datetime(2026, 1, 1, tzinfo=UTC)
SUPPORT = SOURCES.Source("acme", "support", "imap", max_body=64 << 20)
CATALOG = CATALOGS.Catalog(1, {"acme": b"k" * 32}, {("acme", "support"): SUPPORT}, {})
TERMS = DOCUMENT.ParsingTerms(trusted=["mx.y.example"], dns=lambda _name: b"v=DKIM1; k=rsa; p=AAAA", seconds=5)
RULES = ("address", "thread", "plus-address", "header:Subject")


def try_one(raw: bytes) -> None:
    """Raises unless every promise about mails holds for these bytes."""
    for rule in RULES:
        read = ATTRIBUTES.read_attributes(raw, rule, "support@y.example", "support")
        attributes = {"specversion": "1.0", "id": ATTRIBUTES.event_id(raw), "source": "support", "subject": read.subject}
        headers = {f"cloudEvents:{name}": value for name, value in attributes.items()}
        message = MESSAGES.Message("acme.support", raw, "message/rfc822", headers=headers, trusted=True)
        (event,) = ADMIT.admit(message, CATALOG, NOW)
        assert raw == event.body
        assert read.subject == event.subject
    document = DOCUMENT.mail_document(raw, TERMS, time.monotonic)
    assert "unparsed" not in document.flags, document.notes
    assert b"\\u0000" not in ORJSON.dumps(SCHEMA.view(document))


def main() -> None:
    """Try the given files, or fuzz with libFuzzer's own options."""
    files = [Path(each) for each in sys.argv[1:] if Path(each).is_file()]
    if files:
        for each in files:
            signal.alarm(SECONDS)
            try_one(each.read_bytes())
        return
    if atheris is None:
        sys.exit("atheris is not installed: pip install atheris")
    corpus = Path(next((each for each in sys.argv[1:] if not each.startswith("-")), "."))
    corpus.mkdir(parents=True, exist_ok=True)
    for number, raw in enumerate(NASTY.values()):
        if len(raw) <= LONGEST:
            (corpus / f"nasty-{number}").write_bytes(raw)
    atheris.Setup([*sys.argv, f"-max_len={LONGEST}", f"-timeout={SECONDS}"], try_one)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
