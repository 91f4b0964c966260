import io
import json
import logging
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import structlog

from ops.runtime.log import configure
from ops.runtime.redact import is_secret_name, redact, redact_text

Lines = Callable[[], list[dict[str, Any]]]


def fail(whom: str, hidden: str = "") -> None:
    raise ConnectionError(f"cannot reach {whom}")


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:], root.level = handlers, level
    logging.captureWarnings(capture=False)
    structlog.reset_defaults()


@pytest.fixture
def lines(capsys: pytest.CaptureFixture[str]) -> Lines:
    configure("json", "info", "ingest")
    return lambda: [json.loads(line) for line in capsys.readouterr().err.splitlines()]


def test_a_line_is_one_json_object_with_time_level_process_and_fields(lines: Lines) -> None:
    structlog.get_logger().info("batch_appended", events=812)

    (line,) = lines()
    assert line["timestamp"].endswith("Z")
    assert (line["event"], line["level"], line["process"], line["events"]) == ("batch_appended", "info", "ingest", 812)


def test_lines_below_the_level_are_left_out(lines: Lines) -> None:
    structlog.get_logger().debug("head_locked")
    logging.getLogger("alembic").debug("noise")

    assert [] == lines()


def test_an_unknown_level_is_refused_with_the_choices() -> None:
    with pytest.raises(ValueError, match="unknown log level 'loud': use debug, info"):
        configure("json", "loud", "ingest")


def test_what_the_standard_library_logs_comes_out_in_the_same_form(lines: Lines) -> None:
    logging.getLogger("alembic.runtime").info("upgraded to %s", "head")

    (line,) = lines()
    assert ("upgraded to head", "alembic.runtime", "ingest") == (line["event"], line["logger"], line["process"])


@pytest.mark.parametrize("name", ["pika.heartbeat", "sqlalchemy.engine", "aiohttp.access"])
def test_chatty_libraries_speak_from_warning_up(lines: Lines, name: str) -> None:
    logging.getLogger(name).info("chatter")
    logging.getLogger(name).warning("trouble")

    assert ["trouble"] == [line["event"] for line in lines()]


def test_handlers_that_a_library_brought_are_replaced(capsys: pytest.CaptureFixture[str]) -> None:
    logging.getLogger("dramatiq").addHandler(logging.StreamHandler(sys.stderr))
    configure("json", "info", "ingress")
    logging.getLogger("dramatiq").info("started")

    assert 1 == len(capsys.readouterr().err.splitlines())


def test_warnings_are_logged(lines: Lines) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        logging.captureWarnings(capture=True)
        warnings.warn("old way", stacklevel=1)

    assert "py.warnings" == lines()[0]["logger"]


def test_bound_ids_are_on_our_lines_and_on_those_of_libraries(lines: Lines) -> None:
    with structlog.contextvars.bound_contextvars(event_id="e1"):
        structlog.get_logger().info("event_admitted")
        logging.getLogger("dramatiq").info("fetched")
    structlog.get_logger().info("batch_appended")

    assert ["e1", "e1", None] == [line.get("event_id") for line in lines()]


def test_an_exception_is_one_line_with_its_traceback_and_no_secret(lines: Lines) -> None:
    url = "amqp://waxseal:tulip@broker:5672/"
    try:
        fail(url)
    except ConnectionError:
        structlog.get_logger().exception("broker_lost")

    (line,) = lines()
    assert "ConnectionError: cannot reach amqp://waxseal:***@broker:5672/" in line["exception"]
    assert "tulip" not in json.dumps(line)


def test_threads_log_whole_lines(lines: Lines) -> None:
    log = structlog.get_logger()

    def chatter() -> None:
        for _ in range(50):
            log.info("delivery_settled", filler="x" * 500)

    threads = [threading.Thread(target=chatter) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert 200 == len(lines())


def test_a_cached_logger_follows_when_stderr_is_replaced(lines: Lines, monkeypatch: pytest.MonkeyPatch) -> None:
    log = structlog.get_logger()
    log.info("first_written")
    monkeypatch.setattr(sys, "stderr", later := io.StringIO())
    log.info("second_written")

    assert "second_written" == json.loads(later.getvalue())["event"]


@pytest.mark.parametrize("broken", [None, "closed"])
def test_a_reader_of_the_logs_that_went_away_stops_nothing(
    lines: Lines, monkeypatch: pytest.MonkeyPatch, broken: str | None
) -> None:
    stream = io.StringIO() if broken else None
    if stream:
        stream.close()
    monkeypatch.setattr(sys, "stderr", stream)

    structlog.get_logger().info("delivery_settled")
    logging.getLogger("pika").error("lost")


@pytest.mark.parametrize("value", [2**80, "\ud800", float("nan"), {1: {2, 3}}, object(), b"\xff", [[[[[[[1]]]]]]]])
def test_nothing_that_is_logged_can_break_the_line(lines: Lines, value: object) -> None:
    structlog.get_logger().info("odd_value_seen", value=value)

    assert ["odd_value_seen"] == [line["event"] for line in lines()]


def test_auto_is_for_people_on_a_terminal_and_json_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    for stream, first in ((Terminal(), "\x1b"), (io.StringIO(), "{")):
        monkeypatch.setattr(sys, "stderr", stream)
        configure("auto", "info", "relay")
        structlog.get_logger().info("delivery_claimed")

        assert first == stream.getvalue()[0]


def test_the_console_form_into_a_file_has_no_colours_and_no_local_variables(capsys: pytest.CaptureFixture[str]) -> None:
    configure("console", "info", "relay")
    try:
        fail("a broker", hidden="tulip")
    except ConnectionError:
        structlog.get_logger().exception("delivery_failed")

    shown = capsys.readouterr().err
    assert "ConnectionError: cannot reach a broker" in shown
    assert [False, False] == ["\x1b" in shown, "hidden = " in shown]


@pytest.mark.parametrize(
    "name", ["secret", "SHOP_SECRET", "secrets", "X-Api-Key", "keys", "password", "Authorization", "webhook-signature"]
)
def test_a_value_is_hidden_under_the_name_of_a_secret(name: str) -> None:
    assert {name: "***"} == redact(None, "info", {name: ["a", {"b": "c"}]})


@pytest.mark.parametrize("name", ["routing_key", "public_key", "key_id", "monkey", "tokenizer", "source", ""])
def test_a_value_is_shown_under_a_harmless_name(name: str) -> None:
    assert not is_secret_name(name)


def test_whether_there_is_a_secret_may_be_said() -> None:
    event = {"token": None, "has_secret": True}

    assert event == redact(None, "info", event)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("postgresql+psycopg://wax:tulip@db:5432/x", "postgresql+psycopg://wax:***@db:5432/x"),
        ("amqp://wax:tu/l@ip@mq", "amqp://wax:***@mq"),
        ("https://tulip@example.test/hook", "https://***@example.test/hook"),
        ("http://h:80/p?to=a@b&token=tulip&x=1", "http://h:80/p?to=a@b&token=***&x=1"),
        ("host=db password='tu lip' user=wax", "host=db password=*** user=wax"),
        ('{"password": "tulip", "user": "wax"}', '{"password": ***, "user": "wax"}'),
        ("Authorization: Bearer tulip.tulip", "Authorization: Bearer ***"),
        ("whsec_dHVsaXA=", "whsec_***"),
        ("wxs_7Hq2LmPz_0TulipTulip_4S2Uji, and more", "wxs_7Hq2LmPz_***, and more"),
        ("v1," + "A" * 43 + "=", "v1,***"),
        ("key " + "A-_" * 14 + "A=", "key ***"),
        ("gAAAAA" + "B" * 94 + "==", "***"),
        ("nothing to hide: 3 of 4 at http://h:80/p", "nothing to hide: 3 of 4 at http://h:80/p"),
        ("sha256 " + "ab" * 32, "sha256 " + "ab" * 32),
    ],
)
def test_a_secret_is_known_by_its_looks(text: str, shown: str) -> None:
    assert shown == redact_text(text)


def test_nested_values_are_covered() -> None:
    event = {"endpoint": {"url": "http://a:b@c/", "auth": [{"secret": "tulip"}, ("whsec_x",)]}}

    assert {"endpoint": {"url": "http://a:***@c/", "auth": [{"secret": "***"}, ["whsec_***"]]}} == redact(None, "info", event)


def test_long_wide_and_deep_values_are_bounded() -> None:
    deep: dict[str, Any] = {}
    for _ in range(1000):
        deep = {"in": deep}
    event = {"long": "x" * 100_000, "wide": list(range(100_000)), "deep": deep, "many": dict.fromkeys(range(1000), 1)}

    assert len(json.dumps(redact(None, "info", event))) < 20_000


def test_a_cut_does_not_uncover_half_a_secret() -> None:
    text = "x" * 5_990 + " postgresql://wax:" + "tulip" * 20 + "@db " + "y" * 10_000

    assert "tulip" not in redact_text(text)


def test_bytes_are_never_shown() -> None:
    assert {"body": "<5 bytes>"} == redact(None, "info", {"body": b"tulip"})


def test_a_value_that_cannot_be_shown_is_named_by_its_type() -> None:
    class Shy:
        def __str__(self) -> str:
            raise RuntimeError

    assert {"value": "<unprintable Shy>"} == redact(None, "info", {"value": Shy()})
