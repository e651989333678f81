"""Errors are one line, exit codes mean something, tracebacks are asked for."""

import io
import json
import logging

import pytest

from gridpivot import console, observability
from gridpivot.errors import GridpivotError, Refused, SettingsError, Unreachable

pytestmark = pytest.mark.unit


def raising(error: BaseException):
    def app() -> None:
        raise error

    return app


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (GridpivotError("x"), 1),
        (SettingsError("x"), 2),
        (Unreachable("x"), 3),
        (Refused("x"), 4),
        (KeyboardInterrupt(), 130),
        (SystemExit(2), 2),
        (BrokenPipeError(), 1),
        (ValueError("x"), 1),
    ],
)
def test_exit_code_says_what_kind_of_failure_it_was(error: BaseException, code: int) -> None:
    assert console.exit_code(raising(error)) == code


def test_known_error_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    console.exit_code(raising(Unreachable("controller:7444 did not answer; is it running?")))
    assert capsys.readouterr().err == "error: controller:7444 did not answer; is it running?\n"


def test_unexpected_error_points_at_the_debug_switch(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    console.exit_code(raising(ValueError("two\nlines")))
    assert capsys.readouterr().err.splitlines() == [
        "error: ValueError: two lines",
        "run with GRIDPIVOT_DEBUG=1 for a traceback",
    ]
    monkeypatch.setenv("GRIDPIVOT_DEBUG", "1")
    console.exit_code(raising(ValueError("x")))
    assert "Traceback" in capsys.readouterr().err


def test_log_lines_are_json_in_utc_without_secrets() -> None:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    try:
        out = io.StringIO()
        observability.configure("json", stream=out, process="controller")
        observability.get_logger("x").info("started", token="hunter2", tls={"password": "p"}, port=7443)
        logging.getLogger("y").warning("from %s", "stdlib")
    finally:
        root.handlers[:], root.level = handlers, level
    first, second = [json.loads(line) for line in out.getvalue().splitlines()]
    assert "hunter2" not in out.getvalue()
    assert first["tls"] == {"password": observability.BLANK}
    assert first["port"] == 7443
    assert first["process"] == "controller"
    assert first["timestamp"].endswith("Z")
    assert second["event"] == "from stdlib"


def test_unknown_log_level_is_refused() -> None:
    with pytest.raises(ValueError, match="loud"):
        observability.configure("json", "loud")
