"""What the three command lines share: one-line errors, exit codes, JSON on standard output.

`run(app)` is each command's `main`: 0 ok, 1 failed, 2 usage or settings, 3 unreachable, 4 refused, 130 interrupted.
A traceback is shown only when GRIDPIVOT_DEBUG is set.
"""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Callable
from typing import Any, NoReturn

from pydantic import BaseModel

from gridpivot.errors import GridpivotError

DEBUG_VARIABLE = "GRIDPIVOT_DEBUG"
INTERRUPTED = 130


def print_json(shape: BaseModel) -> None:
    """One JSON document on standard output; NaN and infinity become null."""
    sys.stdout.write(shape.model_dump_json(indent=2) + "\n")


def complain(message: str) -> None:
    """One line per fault on standard error, each after `error: `."""
    for line in message.splitlines() or ["failed"]:
        sys.stderr.write(f"error: {line}\n")


def run(app: Callable[[], Any]) -> NoReturn:
    """Run a Typer app (or any callable) and end the process with its exit code."""
    sys.exit(exit_code(app))


def exit_code(app: Callable[[], Any]) -> int:
    """Run the app and say what the process should end with."""
    try:
        app()
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    except KeyboardInterrupt:
        code = INTERRUPTED
    except GridpivotError as error:
        _traceback()
        complain(str(error))
        code = error.exit_code
    except BrokenPipeError:
        code = 1
    except Exception as error:
        _traceback()
        complain(" ".join(f"{type(error).__name__}: {error}".split()))
        if not os.environ.get(DEBUG_VARIABLE):
            sys.stderr.write(f"run with {DEBUG_VARIABLE}=1 for a traceback\n")
        code = 1
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        # `gridpivot sites | head`: the reader has gone; without this the interpreter complains at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return code


def _traceback() -> None:
    if os.environ.get(DEBUG_VARIABLE):
        traceback.print_exc()
