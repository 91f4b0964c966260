"""The units start processes that exist, with the login of each and little else; systemd's own checker reads them."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from ops.cli import main
from ops.process_roles import INGRESS, LOGIN_OF
from ops.settings import Settings, described, load_settings
from support.pages import PAGES
from support.paths import ROOT

FOLDER = ROOT / "ops" / "systemd"
UNITS = FOLDER / "system"
SHARED = UNITS / "waxseal-.service.d" / "process.conf"
PROGRAM = "/opt/waxseal/bin/waxseal"
PAGE = PAGES["ops/docs/systemd.md"]


def values(path: Path, key: str) -> list[str]:
    """What a unit gives a key, each time it does."""
    lines = path.read_text(encoding="utf-8").splitlines()
    return [line.partition("=")[2] for line in lines if line.partition("=")[0] == key]


def template(role: str) -> Path:
    return UNITS / f"waxseal-{role}@.service"


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The units as they are installed, but for the program, which must be there; each template has an instance."""
    folder = tmp_path_factory.mktemp("units")
    for path in [*UNITS.glob("*.*"), SHARED]:
        if path.is_file():
            copy = folder / path.relative_to(UNITS)
            copy.parent.mkdir(exist_ok=True)
            program = str(Path(sys.executable).parent / "waxseal")
            copy.write_text(path.read_text(encoding="utf-8").replace(PROGRAM, program), encoding="utf-8")
            if "@" in path.name:
                (folder / path.name.replace("@", "@9000")).symlink_to(copy)
    return folder


def analyzed(folder: Path, *words: str) -> str:
    """What systemd-analyze says of the services and the target."""
    units = [each.name for each in sorted(folder.iterdir()) if each.is_file() and "@." not in each.name]
    of = [f"./{unit}" for unit in units if words[0] == "verify" or unit.endswith(".service")]
    done = run(folder, "systemd-analyze", *words, *of)
    return done.stderr if words[0] == "verify" else ""


def run(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """Runs a program of systemd, which must succeed. If it is not installed, the test fails and is never skipped."""
    try:
        done = subprocess.run(words, cwd=folder, capture_output=True, text=True, check=False, timeout=60)
    except FileNotFoundError:
        pytest.fail(f"{words[0]} is not on this machine (`make test` installs it, where apt can)")
    assert 0 == done.returncode, done.stdout + done.stderr
    return done


def written(name: str) -> dict[str, str]:
    """What the page writes into a file of /etc/waxseal; what it writes for the worker, for any other login."""
    files = dict(re.findall(r"^sudo tee /etc/waxseal/(\S+) <<END\n(.*?)^END$", PAGE, re.DOTALL | re.MULTILINE))
    return dict(line.split("=", 1) for line in files.get(name, files["worker.env"]).splitlines())


def test_systemd_finds_no_fault_in_the_units(installed: Path) -> None:
    assert "" == analyzed(installed, "verify", "--man=no")


def test_the_exposure_of_a_process_is_ok_to_systemd(installed: Path) -> None:
    """Tenths; what is shared counts only if systemd finds it. Versions differ a little in what they count."""
    analyzed(installed, "security", "--offline=yes", "--no-pager", "--threshold=20")


def test_every_process_has_a_template_and_there_is_no_other() -> None:
    assert {template(role).name for role in LOGIN_OF} == {path.name for path in UNITS.glob("*@.service")}
    assert {"waxseal-migrate.service", "waxseal.target"} == {
        path.name for path in UNITS.iterdir() if path.is_file() and "@" not in path.name
    }


@pytest.mark.parametrize("role", LOGIN_OF)
def test_a_process_runs_its_command_as_its_own_account_and_is_given_one_password(role: str) -> None:
    unit, login = template(role), LOGIN_OF[role].key

    assert [f"{PROGRAM} {role}"] == values(unit, "ExecStart")
    assert role in main.commands
    assert [f"waxseal-{login}"] == values(unit, "User")
    assert f"/etc/waxseal/{login}.env" in values(unit, "EnvironmentFile")
    assert f"database:/etc/waxseal/credentials/{login}" in values(unit, "LoadCredential")
    assert ["waxseal.target"] == values(unit, "WantedBy") == values(unit, "PartOf")


@pytest.mark.parametrize("path", [*UNITS.glob("*.service"), SHARED], ids=lambda path: path.stem)
def test_a_unit_names_settings_that_exist_and_credentials_that_it_has(path: Path) -> None:
    settings = dict(each.split("=", 1) for each in values(path, "Environment"))
    credentials = {each.partition(":")[0] for each in values(path, "LoadCredential")}
    named = {value.removeprefix("%d/") for name, value in settings.items() if name.endswith("_FILE")}

    assert set() == settings.keys() - {name for name, _, _ in described()}
    assert credentials == (named if path != SHARED else set()) | (set() if path == SHARED else {"database"})
    assert [] == [name for name, value in settings.items() if name.endswith("_FILE") and not value.startswith("%d/")]


@pytest.mark.parametrize("path", [*UNITS.glob("*.service")], ids=lambda path: path.stem)
def test_what_the_page_writes_are_settings_with_which_each_unit_starts(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    credentials = {each.partition(":")[0] for of in (path, SHARED) for each in values(of, "LoadCredential")}
    for name in credentials:
        (tmp_path / name).write_text("secret")
    for file in (*values(SHARED, "EnvironmentFile"), *values(path, "EnvironmentFile")):
        for name, value in written(Path(file).name).items():
            monkeypatch.setenv(name, value)
    for setting in (*values(SHARED, "Environment"), *values(path, "Environment")):
        name, _, value = setting.partition("=")
        monkeypatch.setenv(name, value.replace("%d", str(tmp_path)).replace("%i", "9000"))

    settings = load_settings("database_url")

    assert ("amqp" in credentials) == bool(settings.amqp_url)


@pytest.mark.parametrize("role", LOGIN_OF)
def test_the_name_of_an_instance_is_its_port_and_no_two_have_one_by_default(role: str) -> None:
    setting = "WAXSEAL_INGRESS_PORT" if role == INGRESS else "WAXSEAL_METRICS_PORT"
    (port,) = values(template(role), "DefaultInstance")

    assert f"{setting}=%i" in values(template(role), "Environment")
    assert f"waxseal-{role}@{port}" in PAGE
    assert [role] == [other for other in LOGIN_OF if [port] == values(template(other), "DefaultInstance")]


def test_a_process_has_more_time_to_stop_than_a_lease_lasts_and_its_children_are_not_told() -> None:
    assert int(*values(SHARED, "TimeoutStopSec")) > Settings.model_fields["lease"].default
    assert ["mixed"] == values(SHARED, "KillMode")


def test_systemd_takes_the_accounts() -> None:
    run(FOLDER, "systemd-sysusers", "--dry-run", str(FOLDER / "sysusers.d" / "waxseal.conf"))


def test_every_account_of_a_unit_is_made_and_can_read_no_password_of_another() -> None:
    accounts = set(re.findall(r"^u (\S+) ", (FOLDER / "sysusers.d" / "waxseal.conf").read_text(), re.MULTILINE))
    folders = (FOLDER / "tmpfiles.d" / "waxseal.conf").read_text()

    assert accounts == {user for path in UNITS.glob("*.service") for user in values(path, "User")}
    assert "\nd /etc/waxseal/credentials 0700 root root " in folders
    (place,) = values(SHARED, "ReadWritePaths")
    assert f"\nd {place} 2750 root waxseal " in folders
