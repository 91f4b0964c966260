"""Runs test files side by side in processes that are forked once everything is collected: `pytest --testers N`.

Collecting takes a fifth of the CPU of all tests, so it is done once, not in every process. Each process takes the next
file when it has finished one, keeps its session's fixtures, and sends its reports to the process that forked it, which reports
them as usual.
"""

import multiprocessing
import os
import pickle
import signal
import struct
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import groupby
from multiprocessing.connection import Connection, wait
from typing import Any, Final

import pytest

from ops.servers.process_tree import die_with_parent

NUMBER: Final = "TESTER"  # variable with a process's number, from 0
_PLACE: Final = struct.Struct("<H")  # of a file in the order of all
_LONGEST: Final = 120.0  # seconds that a process may take to end what its session's fixtures started
_FORK: Final = multiprocessing.get_context("fork")

Tell = Callable[..., None]
Report = pytest.TestReport | pytest.CollectReport


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--testers", type=int, default=0, help="number of processes that run test files side by side")


@pytest.hookimpl(tryfirst=True)
def pytest_runtestloop(session: pytest.Session) -> bool | None:
    """Runs all tests in processes of their own, if that is wanted. Raises what ends a session early."""
    count = session.config.getoption("--testers")
    if not count or session.config.option.collectonly or session.testsfailed:
        return None
    files = [list(items) for _, items in groupby(session.items, key=lambda item: item.path)]
    queue, stop = _queue(len(files)), _FORK.Event()
    session.config.pluginmanager.getplugin("terminalreporter").showfspath = False  # files alternate
    basetemp = session.config._tmp_path_factory.getbasetemp()  # type: ignore[attr-defined]
    testers = []
    for number in range(count):
        ours, theirs = _FORK.Pipe(duplex=False)
        basetemp.joinpath(f"tester{number}").mkdir(mode=0o700)
        readers = [*(tester.pipe for tester in testers), ours]
        work = _Work(session, files, queue, theirs, readers, stop.is_set, number)
        process = _FORK.Process(target=work.run, name=f"tester {number}")
        process.start()
        theirs.close()
        testers.append(_Tester(process, ours))
    os.close(queue)
    try:
        _gather(session, files, testers, stop.set)
    finally:
        stop.set()
        for tester in testers:
            tester.process.join(_LONGEST)
            tester.process.kill()
    if session.shouldfail:
        raise session.Failed(session.shouldfail)
    return True


def _queue(count: int) -> int:
    """A pipe that holds the places of all files: whoever reads first has the next one."""
    reading, writing = os.pipe()
    os.write(writing, b"".join(map(_PLACE.pack, range(count))))
    os.close(writing)
    return reading


@dataclass
class _Work:
    """What one process does."""

    session: pytest.Session
    files: list[list[pytest.Item]]
    queue: int
    pipe: Connection
    readers: Sequence[Connection]
    stopped: Callable[[], bool]
    number: int

    def run(self) -> None:
        die_with_parent(signal.SIGINT)
        for pipe in self.readers:  # else what is told waits for us when the process that reads it has ended
            pipe.close()
        config = self.session.config
        os.environ[NUMBER] = str(self.number)
        factory = config._tmp_path_factory  # type: ignore[attr-defined]
        factory._basetemp = factory.getbasetemp() / f"tester{self.number}"
        _capture_anew(config)
        config.pluginmanager.unregister(name="terminalreporter")
        config.pluginmanager.register(_Sender(self.tell, config))
        # Whatever ends the tests, Ctrl-C too, what the session's fixtures started is ended.
        for step in (self._run_files, lambda: self.session._setupstate.teardown_exact(None)):
            try:
                step()
            except BaseException as error:  # noqa: BLE001 - told to the process that forked this one
                self.tell("broken", f"{type(error).__name__}: {error}")
        self.tell("done")

    def tell(self, *message: object) -> None:
        with suppress(BrokenPipeError):  # of a process that was killed: SIGINT is on its way
            self.pipe.send_bytes(pickle.dumps(message))

    def _run_files(self) -> None:
        for place in self._places():
            self.tell("file", place)
            items = self.files[place]
            # After a file only its session's fixtures stay, of which its node is the last.
            for item, following in zip(items, [*items[1:], self.session], strict=True):
                if self.stopped():
                    return
                self.tell("begin", item.nodeid)
                item.config.hook.pytest_runtest_protocol(item=item, nextitem=following)

    def _places(self) -> Iterator[int]:
        while len(found := os.read(self.queue, _PLACE.size)) == _PLACE.size:
            yield _PLACE.unpack(found)[0]


class _Sender:
    """Sends what is to be reported."""

    def __init__(self, tell: Tell, config: pytest.Config) -> None:
        self._tell = tell
        self._config = config

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self._tell("report", self._config.hook.pytest_report_to_serializable(config=self._config, report=report))

    def pytest_runtest_logfinish(self, nodeid: str, location: tuple[str, int | None, str]) -> None:
        self._tell("finish", nodeid, location)

    def pytest_warning_recorded(self, warning_message: warnings.WarningMessage, when: str, nodeid: str, location: Any) -> None:
        seen = warning_message
        text = f"{seen.category.__name__}: {seen.message}"
        self._tell("warning", text, seen.filename, seen.lineno, when, nodeid, location)


@dataclass
class _Tester:
    """One process, as the one that forked it sees it."""

    process: Any
    pipe: Connection
    file: list[pytest.Item] = field(default_factory=list)
    running: str | None = None
    finished: set[str] = field(default_factory=set)
    done: bool = False


def _gather(session: pytest.Session, files: list[list[pytest.Item]], testers: list[_Tester], stop: Callable[[], None]) -> None:
    """Reports what the testers send until all have ended."""
    open_ = {tester.pipe: tester for tester in testers}
    while open_:
        ready = wait([*open_], timeout=1.0)
        for pipe in ready or list(open_):
            tester = open_[pipe]  # type: ignore[index]
            try:
                if not ready and (tester.process.is_alive() or tester.pipe.poll()):
                    continue
                _take(session, files, tester, pickle.loads(tester.pipe.recv_bytes()))
            except (EOFError, OSError):
                _lost(session, tester)
            if tester.done:
                open_.pop(tester.pipe)
        if session.shouldfail or session.shouldstop:
            stop()


def _take(session: pytest.Session, files: list[list[pytest.Item]], tester: _Tester, message: tuple[Any, ...]) -> None:
    hook = session.config.hook
    match message:
        case "file", place:
            tester.file = files[place]
        case "begin", nodeid:
            tester.running = nodeid
        case "report", sent:
            report = hook.pytest_report_from_serializable(config=session.config, data=sent)
            hook.pytest_runtest_logreport(report=report)
        case "finish", nodeid, location:
            tester.finished.add(nodeid)
            tester.running = None
            hook.pytest_runtest_logfinish(nodeid=nodeid, location=location)
        case "warning", text, filename, line, when, nodeid, location:
            told = warnings.WarningMessage(UserWarning(text), UserWarning, filename, line)
            hook.pytest_warning_recorded.call_historic(
                kwargs={"warning_message": told, "when": when, "nodeid": nodeid, "location": location}
            )
        case "broken", why:
            _fail(session, (tester.file or session.items)[-1], f"after its last test: {why}")
        case ("done",):
            tester.done = True


def _lost(session: pytest.Session, tester: _Tester) -> None:
    """Reports as failed what a process that died had before it."""
    tester.process.join()
    tester.done = True
    for item in tester.file:
        if item.nodeid not in tester.finished:
            doing = "in this test" if item.nodeid == tester.running else "before this test"
            _fail(session, item, f"its process ended {doing}, with exit code {tester.process.exitcode}")


def _fail(session: pytest.Session, item: pytest.Item, why: str) -> None:
    report = pytest.TestReport(item.nodeid, item.location, {}, "failed", why, "call")
    session.config.hook.pytest_runtest_logreport(report=report)


def _capture_anew(config: pytest.Config) -> None:
    """The files that captured output goes to would be shared, with their position."""
    capturing = config.pluginmanager.getplugin("capturemanager")
    capturing.stop_global_capturing()
    capturing.start_global_capturing()
    capturing.suspend_global_capture()
