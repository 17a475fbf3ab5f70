"""What a serving program says on stderr: one line a record, in either form, and nobody's values."""

import io
import json
import logging
import subprocess
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path

import click
import pytest
from click.testing import CliRunner
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from federated import logs
from federated.logs import LogForm, log_format_option
from privacy.errors import RefusalCode, RefusalError

SECRET = "SECRET-ROW-VALUE"
OURS = logging.getLogger("clients.holder.node")
THEIRS = logging.getLogger("somebody.else")


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Iterator[Callable[[], list[str]]]:
    """The lines on stderr since it was asked last; logging is as it was afterwards."""

    def lines() -> list[str]:
        text = capsys.readouterr().err
        assert text == "" or text.endswith("\n")
        # Split at whatever any reader may take for the end of a line, and not at newlines alone.
        return text[:-1].splitlines() if text else []

    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    for place in (sys, threading):
        monkeypatch.setattr(place, "excepthook", place.excepthook)
    monkeypatch.setattr(sys, "unraisablehook", sys.unraisablehook)
    root.handlers = []  # setup closes the handlers that it replaces; those of the test run must outlive it
    yield lines
    root.handlers = handlers
    root.setLevel(level)
    logging.captureWarnings(False)
    logging.getLogger("flwr").filters.clear()


def test_a_line_of_json_says_when_how_grave_where_and_what(said: Callable[[], list[str]]) -> None:
    logs.setup(LogForm.JSON)
    OURS.warning("%s refuses (%s)", "aster-bank", "budget", extra={"round": 3, "run": "first", "left": float("nan")})
    (line,) = said()
    told = json.loads(line)
    assert list(told) == ["time", "level", "where", "text", "fields"]
    assert told["level"] == "WARNING"
    assert told["where"] == "clients.holder.node"
    assert told["text"] == "aster-bank refuses (budget)"
    assert told["fields"] == {"round": 3, "run": "first", "left": "nan"}
    assert told["time"].endswith("Z")
    offset = datetime.fromisoformat(told["time"]).utcoffset()
    assert offset is not None
    assert not offset
    assert len(told["time"]) == len("2026-01-01T00:00:00.000Z")


def test_a_line_for_people_says_when_how_grave_and_what(said: Callable[[], list[str]]) -> None:
    logs.setup(LogForm.HUMAN)
    OURS.info("round begins", extra={"round": 3})
    (line,) = said()
    time, level, rest = line.split(" ", 2)
    assert datetime.fromisoformat(time).tzinfo is not None
    assert (level, rest) == ("INFO", "round begins round=3")


@pytest.mark.parametrize("form", list(LogForm))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)
@given(text=st.text(), field=st.text())
def test_no_text_makes_a_second_line_or_moves_the_cursor(
    form: LogForm, text: str, field: str, said: Callable[[], list[str]]
) -> None:
    logs.setup(form)
    forged = f"{text}\n2026-01-01T00:00:00.000Z INFO forged\r\x1b[2K\x85\u2028\u202e"
    OURS.info("%s", forged, extra={"holder": field + forged})
    OURS.info(forged)
    lines = said()
    assert len(lines) == 2
    assert all(line.isprintable() for line in lines)
    if form is LogForm.JSON:
        assert [json.loads(line)["text"] for line in lines] == [forged, forged]


@pytest.mark.parametrize("form", list(LogForm))
def test_exceptions_of_others_are_told_by_kind_and_place_only(form: LogForm, said: Callable[[], list[str]]) -> None:
    logs.setup(form)
    try:
        raise ValueError(SECRET)
    except ValueError as error:
        OURS.exception("it failed")
        OURS.error("it failed: %s", error)
        OURS.error("it failed: %(why)s", {"why": error})
        OURS.error(error)
        OURS.error("it failed", extra={"why": error, "key": SECRET.encode()}, stack_info=True)
        THEIRS.error("%s: %s on port %d", "GET /" + SECRET, error, 443)
        logging.getLogger("asyncio").error(f"Task exception was never retrieved\n{error!r}", exc_info=error)
    lines = said()
    assert len(lines) == 7
    assert not any(SECRET in line or "Traceback" in line for line in lines)
    assert all("ValueError" in line for line in lines)
    assert "test_logs.py:" in lines[0]
    assert "on port 443" in lines[5]


def test_our_own_refusals_are_told_in_full(said: Callable[[], list[str]]) -> None:
    logs.setup(LogForm.HUMAN)
    refusal = RefusalError("The plan asks for too much. Plan less.", RefusalCode.BUDGET)
    OURS.warning("no answer: %s", refusal)
    OURS.warning("no answer", exc_info=refusal)
    assert [line.split(" WARNING ")[1] for line in said()] == ["no answer: The plan asks for too much. Plan less."] * 2


def test_a_record_that_cannot_be_put_together_is_told_without_its_arguments(said: Callable[[], list[str]]) -> None:
    logs.setup(LogForm.HUMAN)
    OURS.info("%d people", SECRET)
    (line,) = said()
    assert "could not be put together (TypeError)" in line
    assert SECRET not in line


def test_a_reader_that_went_away_is_nobodys_fault(
    said: Callable[[], list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch, io.StringIO() as gone:
        patch.setattr(sys, "stderr", gone)
        logs.setup(LogForm.HUMAN)
    OURS.info("nobody reads this")  # logging's own answer would be a traceback
    assert said() == []


def test_others_are_heard_from_a_warning_on_and_we_from_the_level_that_was_asked_for(
    said: Callable[[], list[str]],
) -> None:
    logs.setup(LogForm.HUMAN, level=logging.INFO)
    for number, logger in enumerate((OURS, THEIRS)):
        logger.debug("%d debug", number)
        logger.info("%d info", number)
        logger.warning("%d warning", number)
    assert [line.split(" ", 2)[2] for line in said()] == ["0 info", "0 warning", "1 warning"]


def test_flower_and_warnings_come_out_on_the_same_lines(
    said: Callable[[], list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch, io.StringIO() as earlier:
        patch.setattr(sys, "stderr", earlier)
        logs.setup(LogForm.JSON)
    logs.setup(LogForm.JSON)  # the later one holds
    flower = logging.getLogger("flwr")
    own = logging.StreamHandler(sys.stderr)  # as Flower has it
    flower.addHandler(own)
    try:
        flower.error("bad message\nfrom %s", SECRET)
        with warnings.catch_warnings():
            warnings.simplefilter("always")
            warnings.warn(SECRET, stacklevel=1)
    finally:
        flower.removeHandler(own)
    lines = said()
    assert [json.loads(line)["where"] for line in lines] == ["flwr", "py.warnings"]
    assert not any(SECRET in line for line in lines)


def test_long_texts_are_cut(said: Callable[[], list[str]]) -> None:
    logs.setup(LogForm.JSON)
    OURS.info("a" * 100_000, extra={"name_": "b" * 100_000})
    (line,) = said()
    assert len(line) < 2 * logs.MOST_CHARACTERS + 200


_PROGRAM = """
import sys, threading
from federated import logs
logs.setup(logs.LogForm({form!r}))
def fail():
    raise ValueError("SECRET-ROW-VALUE")
thread = threading.Thread(target=fail)
thread.start()
thread.join()
class Odd:
    def __del__(self):
        fail()
odd = Odd()
del odd
fail()
"""


@pytest.mark.parametrize("form", ["human", "json"])
def test_what_ends_a_thread_or_the_program_is_one_line(form: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", _PROGRAM.format(form=form)],
        capture_output=True, text=True, check=False, cwd=Path(__file__).parents[2],
    )  # fmt: skip
    assert done.returncode == 1
    lines = done.stderr.splitlines()
    assert len(lines) == 3, done.stderr
    assert SECRET not in done.stderr
    assert all("ValueError at <string>:6" in line for line in lines)
    for line in lines if form == "json" else []:
        assert json.loads(line)["where"] == "federated.logs"


def test_the_option_hands_on_a_form() -> None:
    @click.command()
    @log_format_option
    def serve(log_form: LogForm) -> None:
        assert isinstance(log_form, LogForm)
        click.echo(log_form.name)

    assert CliRunner().invoke(serve, []).output == "HUMAN\n"
    assert CliRunner().invoke(serve, ["--log-format", "json"]).output == "JSON\n"
    assert CliRunner().invoke(serve, ["--log-format", "xml"]).exit_code == 2
