"""Logs: structlog and the standard library's loggers in one shape, UTC, secrets blanked.

`configure("json")` for services, `configure("console")` for people. Modules take `log = get_logger(__name__)`.
"""

from __future__ import annotations

import logging
import re
import sys
from typing import Any, Literal, TextIO

import structlog

_SECRET = re.compile(r"password|passwd|token|secret|private|authorization|credential", re.IGNORECASE)
BLANK = "(hidden)"

get_logger = structlog.get_logger


def hide_secrets(_logger: Any, _method: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
    """Blank every value whose key names a secret, nested mappings included."""
    for key, value in event.items():
        if _SECRET.search(key):
            event[key] = BLANK
        elif isinstance(value, dict):
            event[key] = hide_secrets(None, "", dict(value))
    return event


def configure(
    style: Literal["json", "console"] = "json", level: str = "info", stream: TextIO | None = None, **bound: str
) -> None:
    """Set up logging of this process. `bound` (such as site="falcon-1") goes with every line.

    Raises ValueError for an unknown level.
    """
    number = logging.getLevelNamesMapping().get(level.upper())
    if number is None:
        raise ValueError(f"unknown log level {level!r}; one of debug, info, warning, error")
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        hide_secrets,
    ]
    out = stream if stream is not None else sys.stderr
    last: list[structlog.typing.Processor] = [structlog.stdlib.ProcessorFormatter.remove_processors_meta]
    if style == "json":
        last += [structlog.processors.format_exc_info, structlog.processors.JSONRenderer(default=str)]
    else:
        last.append(structlog.dev.ConsoleRenderer(colors=out.isatty()))
    handler = logging.StreamHandler(out)
    handler.setFormatter(structlog.stdlib.ProcessorFormatter(foreign_pre_chain=shared, processors=last))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(number)
    # aiosqlite logs every statement, alembic every migration step, httpx every request: debug, not news.
    for chatty in ("aiosqlite", "alembic", "asyncio", "httpx"):
        logging.getLogger(chatty).setLevel(max(number, logging.WARNING))
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *shared,
            structlog.stdlib.PositionalArgumentsFormatter(),
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=False,
    )
    structlog.contextvars.clear_contextvars()
    structlog.contextvars.bind_contextvars(**bound)
