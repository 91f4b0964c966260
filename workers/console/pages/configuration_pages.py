"""The configuration: what is applied, what an uploaded file would change, and applying it if nothing moved meanwhile."""

from collections.abc import Mapping
from typing import Any, Final

from starlette.datastructures import FormData, UploadFile
from starlette.responses import Response

from ops.admin import bulk
from ops.admin.configured import configured
from ops.admin.configuring import uploads
from ops.config.apply import Difference, apply_config
from ops.config.read_file import ConfigRead
from ops.errors import Misconfigured
from pipeline.sources import AMQP
from workers.console.call import Call, Refused
from workers.console.pages.layout import render
from workers.console.pages.page_table import Act, Page, field
from workers.console.pages.questions import by

LARGEST: Final = 1_000_000  # bytes of an uploaded file
_OPTIONS: Final = ("prune", "enable")


def applied(call: Call) -> Mapping[str, Any]:
    """What is configured now."""
    return {"tenants": configured.tenants(call.console.acts), "faults": ()}


def difference(call: Call) -> Response:
    """What an uploaded file would change; nothing is changed."""
    return _shown(call, _uploaded(call))


def apply(call: Call) -> Response:
    """Apply the file whose difference was shown, if that is still the difference."""
    text = field_text(call)
    if field(call, "version") != str(configured.version(call.console.acts)):
        return _shown(
            call, text, "The configuration changed since you looked: this is the difference now. Nothing was applied."
        )
    read = _read(call, text)
    if isinstance(read, Response):
        return read
    options: dict[str, Any] = {name: field(call, name) == "on" for name in _OPTIONS}
    if options["prune"] and field(call, "typed") != "prune":
        return _shown(call, text, "To remove what the file does not name, type prune. Nothing was applied.")
    with bulk.noted(call.console.acts, bulk.Act(by(call), "apply", {"by": "upload", **options}), 0) as tally:
        done = apply_config(read, call.console.settings, give_up=options["prune"], who=by(call), **options)
        tally.done = len(done.changed)
    return render(call, "configuration_done.html", _values(done))


def sources(call: Call) -> Mapping[str, Any]:
    """The tenant's sources."""
    return {"sources": configured.sources(call.console.acts, call.tenant), "amqp": AMQP}


def _shown(call: Call, text: str, error: str = "") -> Response:
    version = configured.version(call.console.acts)
    read = _read(call, text)
    if isinstance(read, Response):
        return read
    options: dict[str, Any] = {name: field(call, name) == "on" for name in _OPTIONS}
    found = apply_config(read, call.console.settings, dry_run=True, who=by(call), **options)
    values = {"text": text, "version": version, "options": options, "error": error, **_values(found)}
    return render(call, "configuration_difference.html", values, 409 if error else 200)


def _read(call: Call, text: str) -> ConfigRead | Response:
    try:
        return uploads.read(call.console.settings, text.encode(errors="replace"))
    except Misconfigured as error:
        return render(call, "configuration.html", {**applied(call), "faults": str(error).splitlines()}, 422)


def _values(found: Difference) -> Mapping[str, Any]:
    return {
        "changes": [each for each in found.changes if each.action != "unchanged"],
        "unchanged": sum(each.action == "unchanged" for each in found.changes),
        "generated": found.generated,
        "gives_up": found.gives_up,
        "warnings": found.warnings,
    }


def _uploaded(call: Call) -> str:
    file = call.body.get("file") if isinstance(call.body, FormData) else None
    if not isinstance(file, UploadFile) or not file.size:
        raise Refused(422, "file", "choose a configuration file first")
    if file.size > LARGEST:
        raise Refused(413, "too_large", f"the console takes files of {LARGEST:,} bytes; `waxseal apply` takes larger ones")
    return file.file.read().decode(errors="replace")


def field_text(call: Call) -> str:
    """The file's text, as the page with the difference sent it back."""
    given = call.body.get("text", "") if isinstance(call.body, FormData) else ""
    return given if isinstance(given, str) else ""


PAGES: Final = [
    Page("/configuration", "viewer", "configuration.html", applied),
    Page("/t/{tenant}/sources", "viewer", "sources.html", sources),
]
ACTS: Final = [
    Act("/configuration/difference", "admin", difference),
    Act("/configuration/apply", "admin", apply),
]
