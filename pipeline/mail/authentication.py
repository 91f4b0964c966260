"""Authentication of a mail: DKIM (RFC 6376) and ARC (RFC 8617) verified, and the results of a trusted server (RFC 8601)."""

import re
from collections.abc import Callable, Collection
from typing import Any, Final

import authres
import dkim
import dkim.canonicalization

from pipeline.mail.charsets import header_text, one_line
from pipeline.mail.flags import Findings
from pipeline.mail.headers import Fields
from schemas.mail_document import UNCHECKED, UNKNOWN, Authentication, Result, Verdict

#: Look-up of TXT records: name -> the first record's content, or None if there is none. Raises `DnsAway` without an answer.
Dns = Callable[[str], bytes | None]

MAX_SIGNATURES: Final = 5
MAX_SETS: Final = 10  # ARC sets, each with two signatures
MAX_SIGNED: Final = 32 * 1024 * 1024  # bytes; signatures of larger mails are not verified
MAX_SIGNATURE: Final = 8 * 1024  # bytes
MAX_RESULTS: Final = 16 * 1024  # characters
MINKEY: Final = 1024  # bits
NO_ARC: Final = Verdict("none", "there is no ARC-Seal")

#: dkimpy's time is quadratic in such a run of spaces.
_SPACES: Final = re.compile(rb"(?<![\t ])[\t ]{2000}|(?<!\s)\s{4000}")
_TRAILING: Final = re.compile(rb"(?<![\t ])[\t ]++\r\n")
_TAG: Final = re.compile(r"(?:^|;)\s*([a-z]{1,2})\s*=\s*([^;]*)")
_RESULTS: Final[dict[str, Result]] = {
    "pass": "pass",
    "fail": "fail",
    "hardfail": "fail",
    "softfail": "softfail",
    "neutral": "neutral",
    "none": "none",
    "policy": "policy",
    "temperror": "temperror",
    "permerror": "permerror",
    "bestguesspass": "neutral",
}


def _without_trailing_spaces(content: bytes) -> bytes:
    """Replaces dkimpy's own function, whose time is quadratic in each run of spaces within a line; same result."""
    return _TRAILING.sub(b"\r\n", content)


dkim.canonicalization.strip_trailing_whitespace = _without_trailing_spaces


class DnsAway(Exception):
    """DNS did not answer in time."""


class _Lookup:
    """The function that dkimpy calls for keys. Remembers why there was no key, which dkimpy does not report."""

    def __init__(self, dns: Dns) -> None:
        self._dns = dns
        self.name = ""
        self.away = False
        self.missing = False

    def __call__(self, name: bytes | str, timeout: float = 5) -> bytes | None:  # noqa: ARG002 - dkimpy passes it by name
        self.name = (name.decode("ascii", "replace") if isinstance(name, bytes) else name).rstrip(".")
        self.away = self.missing = False
        try:
            found = self._dns(self.name)
        except DnsAway as error:
            self.away = True
            raise dkim.DnsTimeoutError(str(error)) from error
        self.missing = found is None
        return found


def authenticate(
    raw: bytes, fields: Fields, trusted: Collection[str], dns: Dns | None, findings: Findings, *, careful: bool
) -> Authentication:
    """The verdicts on a mail's sender, each with its evidence. Without `dns`, or if `careful`, no signature is verified."""
    claimed: dict[str, Verdict] = {}
    servers: tuple[Verdict, ...] = ()
    with findings.flagging_errors("malformed_authentication_results"):
        servers = _from_trusted(fields, trusted, findings)
    for each in servers:
        claimed.setdefault(str(each.detail).partition(" ")[0], each)
    dkims = _unchecked(fields, UNCHECKED)
    arc = Verdict("unknown", UNCHECKED) if fields.first("arc-seal") else NO_ARC
    if dns is not None and not careful:
        why = _why_not_verified(raw, fields)
        if why:
            dkims, arc = _unchecked(fields, why), Verdict("unknown", why) if fields.first("arc-seal") else NO_ARC
        else:
            dkims = _dkim(raw, fields, dns, findings)
            arc = _arc(raw, fields, dns, findings)
    return Authentication(dkims, arc, claimed.get("spf", UNKNOWN), claimed.get("dmarc", UNKNOWN), servers)


def _unchecked(fields: Fields, why: str) -> tuple[Verdict, ...]:
    found = fields.all("dkim-signature")[:MAX_SIGNATURES]
    return tuple(Verdict("unknown", why, _tag(each, "d")) for each in found)


def _why_not_verified(raw: bytes, fields: Fields) -> str:
    """Why no signature is to be verified; "" if they are. dkimpy has no bounds of its own."""
    if len(raw) > MAX_SIGNED:
        return f"nothing: a mail of {len(raw)} bytes is not checked"
    names = ("dkim-signature", "arc-seal", "arc-message-signature", "arc-authentication-results")
    if any(len(value) > MAX_SIGNATURE for name in names for value in fields.all(name)):
        return f"nothing: a signature of more than {MAX_SIGNATURE} bytes is not checked"
    if _SPACES.search(raw):
        return "nothing: a mail with so many spaces in a row is not checked"
    return ""


def _dkim(raw: bytes, fields: Fields, dns: Dns, findings: Findings) -> tuple[Verdict, ...]:
    signatures = fields.all("dkim-signature")
    if len(signatures) > MAX_SIGNATURES:
        findings.flag("too_many_signatures", f"DKIM: {len(signatures)}")
    verdicts = []
    for index, signature in enumerate(signatures[:MAX_SIGNATURES]):
        findings.check_time()
        lookup = _Lookup(dns)
        domain = _tag(signature, "d")
        try:
            verified = dkim.DKIM(raw, minkey=MINKEY).verify(index, dnsfunc=lookup)
        except Exception as error:  # noqa: BLE001 - dkimpy raises its own errors, and any others on malformed input
            verdicts.append(_error_verdict(error, lookup, domain))
            continue
        verdicts.append(_verdict(bool(verified), lookup, domain))
    return tuple(verdicts)


def _error_verdict(error: Exception, lookup: _Lookup, domain: str | None) -> Verdict:
    detail = one_line(str(error), 200)
    if isinstance(error, dkim.ValidationError) and "body hash" in detail:
        return Verdict("fail", "the body, which is not what was signed", domain)
    return Verdict("permerror", _evidence(lookup), domain, detail or type(error).__name__)


def _verdict(verified: bool, lookup: _Lookup, domain: str | None) -> Verdict:
    if lookup.away:
        return Verdict("temperror", f"nothing: DNS did not answer for {one_line(lookup.name, 300)}", domain)
    if lookup.missing:
        return Verdict("permerror", f"nothing: there is no key at {one_line(lookup.name, 300)}", domain)
    return Verdict("pass" if verified else "fail", _evidence(lookup), domain)


def _evidence(lookup: _Lookup) -> str:
    return f"the signature, and the key at {one_line(lookup.name, 300)}" if lookup.name else "the signature"


def _arc(raw: bytes, fields: Fields, dns: Dns, findings: Findings) -> Verdict:
    seals = fields.all("arc-seal")
    if not seals:
        return NO_ARC
    if len(seals) > MAX_SETS:
        findings.flag("too_many_signatures", f"ARC: {len(seals)} sets")
        return Verdict("unknown", f"nothing: a chain of more than {MAX_SETS} is not checked")
    findings.check_time()
    lookup = _Lookup(dns)
    try:
        result, _sets, reason = dkim.ARC(raw, minkey=MINKEY).verify(dnsfunc=lookup)
    except Exception as error:  # noqa: BLE001 - as in _dkim
        return Verdict("permerror", "the chain of seals", None, one_line(f"{type(error).__name__}: {error}", 200))
    if lookup.away:
        return Verdict("temperror", f"nothing: DNS did not answer for {one_line(lookup.name, 300)}")
    passed = result == dkim.CV_Pass
    return Verdict("pass" if passed else "fail", "the chain of seals", _tag(seals[0], "d"), one_line(str(reason), 200))


def _from_trusted(fields: Fields, trusted: Collection[str], findings: Findings) -> tuple[Verdict, ...]:
    """The topmost Authentication-Results of a trusted server; the sender may have forged those below it."""
    known = {each.lower() for each in trusted}
    if not known:
        return ()
    for value in fields.all("authentication-results"):
        text = header_text(value, findings)[:MAX_RESULTS]
        server = re.split(r"[;\s]", text.strip(), maxsplit=1)[0].lower()
        if server in known:
            header: Any = authres.AuthenticationResultsHeader.parse_value(text)
            return tuple(_result_verdict(each, server) for each in header.results[:50])
    return ()


def _result_verdict(result: Any, server: str) -> Verdict:
    said = {f"{each.type}.{each.name}": str(each.value) for each in result.properties if each.value is not None}
    names = ("header.d", "header.from", "smtp.mailfrom", "smtp.helo", "header.i")
    domain = next((said[name].rpartition("@")[2] for name in names if name in said), None)
    about = " ".join([one_line(str(result.method), 40).lower(), *(f"{name}={value}" for name, value in said.items())])
    kind = _RESULTS.get(str(result.result).lower(), "unknown")
    rests_on = f"Authentication-Results of {one_line(server, 255)}"
    return Verdict(kind, rests_on, domain and one_line(domain, 255), one_line(about, 500))


def _tag(signature: bytes, name: str) -> str | None:
    tags = dict(_TAG.findall(signature.decode("utf-8", "replace")))
    return one_line(tags[name], 255) if name in tags else None
