"""The coverage of the packages: `pytest --measure`. Measured by SlipCover, which costs no time on lines that were seen often.

It changes what it measures while that is loaded. So it begins when this module is imported, which conftest does before it
imports the packages. Forks go on measuring, and each process writes what it saw to a file of its own. Other processes that a
test starts are measured if they have the `variables`: see `traced` in conftest.
"""

import ast
import atexit
import json
import marshal
import os
import shutil
import sys
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from io import StringIO
from pathlib import Path
from types import ModuleType
from typing import Any, Final, NoReturn

import pytest
import slipcover
from slipcover.branch import preinstrument
from slipcover.importer import SlipcoverLoader, SlipcoverMetaPathFinder

FOLDER: Final = "MEASURED"  # variable: where processes write what they saw
LEAST: Final = 90.0  # percent of lines and branches
#: How often a line that was seen may run until all that were seen are measured no more. That takes a tenth of a second of CPU,
#: as it goes through all functions that are loaded, and measuring a line once more takes 25 ns.
OFTEN: Final = 100_000
PACKAGES: Final = [str(Path(__file__).parents[1] / name) for name in ("schemas", "pipeline", "ops", "workers")]


class _Loader(SlipcoverLoader):
    """Keeps what a module was compiled to for the processes that a test starts: that takes most of their start else."""

    def __init__(self, sci: Any, orig_loader: Any, origin: str, folder: Path) -> None:
        super().__init__(sci, orig_loader, origin)
        self._folder = folder

    def exec_module(self, module: ModuleType) -> None:
        kept = self._folder / f"{module.__name__}.kept"
        self.sci.register_module(module)
        if kept.exists():
            kept_code = marshal.loads(kept.read_bytes())
            code = self.sci.instrument(kept_code, kept_code)  # as a part: which lines there are is known where it was kept
            if sys.version_info < (3, 12):  # newer ones call back, and change no code
                self.sci.instrumented[code.co_filename].add(code)
        else:
            code = compile(preinstrument(ast.parse(self.origin.read_bytes())), str(self.origin), "exec")
            with suppress(FileNotFoundError):  # the run is over
                part = kept.with_suffix(f".{os.getpid()}")
                part.write_bytes(marshal.dumps(code))
                part.rename(kept)
            code = self.sci.instrument(code)
        exec(code, module.__dict__)


class _Finder(SlipcoverMetaPathFinder):
    def __init__(self, sci: Any, folder: Path) -> None:
        super().__init__(sci, slipcover.FileMatcher(sources=PACKAGES))
        self._folder = folder

    def find_spec(self, fullname: str, path: Any, target: Any = None) -> Any:
        spec = super().find_spec(fullname, path, target)
        if spec is not None and isinstance(spec.loader, SlipcoverLoader):
            spec.loader = _Loader(self.sci, spec.loader.orig_loader, spec.origin, self._folder)
        return spec


class Measuring:
    """What this process saw of the packages, and where it is written."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._seen = slipcover.Slipcover(branch=True, d_miss_threshold=OFTEN)
        sys.meta_path.insert(0, _Finder(self._seen, folder))

    def write(self) -> None:
        """Writes it to a file of this process's own, whole or not at all: for each module the lines and branches."""
        path = self.folder / f"{os.getpid()}.json"
        # Other threads may go on meanwhile, so each mapping is copied at once.
        seen = [(file, [*lines]) for each in (self._seen.all_seen, self._seen.newly_seen) for file, lines in [*each.items()]]
        path.with_suffix(".part").write_text(json.dumps(seen))
        path.with_suffix(".part").rename(path)

    def merged(self) -> Any:
        """What all processes saw, with the modules that none has loaded."""
        for path in self.folder.glob("*.json"):
            for file, seen in json.loads(path.read_text()):
                self._seen.all_seen[file].update(tuple(each) if isinstance(each, list) else each for each in seen)
        self._seen.source = PACKAGES
        return self._seen.get_coverage()


MEASURING: Measuring | None = None


def begin(folder: Path) -> None:
    """Measures this process and its forks from now on, until they end."""
    global MEASURING  # noqa: PLW0603 - a process is measured once
    MEASURING = Measuring(folder)
    leave = os._exit
    number = os.getpid()

    def write_and_leave(status: int) -> NoReturn:  # forks of `multiprocessing` end by it
        write()
        leave(status)

    os._exit = write_and_leave  # type: ignore[assignment]
    atexit.register(lambda: os.getpid() == number and write())


def write() -> None:
    """Writes what this process saw, if it is measured."""
    if MEASURING is not None and MEASURING.folder.is_dir():
        MEASURING.write()


def variables() -> Mapping[str, str]:
    """The variables by which other processes are measured too; none if this one is not."""
    if MEASURING is None:
        return {}
    path = os.environ.get("PYTHONPATH")
    return {
        FOLDER: str(MEASURING.folder),
        "PYTHONPATH": os.pathsep.join((str(Path(__file__).parent / "site"), *([path] if path else []))),
    }


def report(terminal: pytest.TerminalReporter) -> bool:
    """Shows which lines of which files were not seen; gives whether enough were."""
    assert MEASURING is not None
    whole, text = MEASURING.merged(), StringIO()
    shutil.rmtree(MEASURING.folder)
    slipcover.print_coverage(whole, outfile=text, missing_width=80, skip_covered=True)
    seen: float = whole["summary"]["percent_covered"]
    terminal.section("coverage")
    terminal.write(f"{text.getvalue()}\n{seen:.2f} % of lines and branches were seen; at least {LEAST:g} % are required\n")
    return seen >= LEAST


if "--measure" in sys.argv:
    begin(Path(tempfile.mkdtemp(prefix="waxseal-measured-")))
