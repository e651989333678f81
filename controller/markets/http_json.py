"""A feed behind a URL: fetch with a deadline and a size limit, find the rows by the settings' mapping.

`rows_of` is pure. `fetch` does the one request; whatever goes wrong is one FeedFailed with the URL and what to do.
Redirects are not followed: a secret header must not travel to another host.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
from collections.abc import Mapping
from typing import Any

import httpx

from controller.markets.bounds import PER_MWH
from controller.markets.moments import unix_seconds
from controller.markets.settings import HttpFeedSettings
from controller.markets.zones import zone
from gridpivot.errors import FeedFailed, SettingsError
from gridpivot.link.credentials import read_secret

Rows = list[tuple[float, float]]
_POSITION = re.compile(r"-?[0-9]{1,9}")


def header(settings: HttpFeedSettings, environ: Mapping[str, str] | None = None) -> dict[str, str]:
    """The secret header, if any; raises SettingsError when its source is missing. Reads a file."""
    if settings.header_name is None:
        return {}
    if settings.header_file is not None:
        value = read_secret(settings.header_file).decode("ascii", errors="replace").strip()
    else:
        name = settings.header_env or ""
        value = (os.environ if environ is None else environ).get(name, "").strip()
        if not value:
            raise SettingsError(f"{settings.title}: environment variable {name} is not set; set it, or use header_file")
    return {settings.header_name: value}


async def fetch(client: httpx.AsyncClient, settings: HttpFeedSettings, headers: Mapping[str, str]) -> bytes:
    """The answer's body; raises FeedFailed after the deadline, past the size limit, or for any status but 200."""
    try:
        async with asyncio.timeout(settings.deadline_s), client.stream("GET", settings.url, headers=headers) as answer:
            if answer.status_code != 200:
                raise FeedFailed(f"{settings.title}: answered {answer.status_code}; check the URL and its credentials")
            body = bytearray()
            async for piece in answer.aiter_bytes():
                body += piece
                if len(body) > settings.max_bytes:
                    raise FeedFailed(f"{settings.title}: answer is over {settings.max_bytes} bytes; ask for less of it")
            return bytes(body)
    except TimeoutError as error:
        raise FeedFailed(f"{settings.title}: no answer within {settings.deadline_s:g} s; raise deadline_s") from error
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        why = str(error) or type(error).__name__
        raise FeedFailed(f"{settings.title}: {why}; check the URL and the network") from error


def rows_of(body: bytes, settings: HttpFeedSettings) -> Rows:
    """(Unix s, figure) of every row that has both; raises FeedFailed when the mapping finds none.

    Prices come out in USD/MWh by `price_unit`. Rows without a figure are left out: a market that has not cleared yet
    publishes them empty.
    """
    try:
        found = _walk(json.loads(body), settings.rows)
    except (ValueError, RecursionError) as error:
        raise FeedFailed(f"{settings.title}: not JSON: {error}; check the URL") from error
    except LookupError as error:
        raise FeedFailed(
            f"{settings.title}: no {error} on the way to the rows {settings.rows!r}; correct rows"
        ) from error
    rows = found if isinstance(found, list) and not _is_row(found, settings) else [found]
    times: list[Any] = []
    figures: list[float] = []
    for row in rows:
        try:
            time, figure = _walk(row, settings.time_field), float(_walk(row, settings.value_field))
        except (LookupError, TypeError, ValueError):
            continue
        times.append(time)
        figures.append(figure * PER_MWH[settings.price_unit])
    if not times:
        raise FeedFailed(
            f"{settings.title}: none of {len(rows)} rows has {settings.time_field!r} and a number as "
            f"{settings.value_field!r}; correct rows, time_field and value_field"
        )
    local = zone(settings.time_zone) if settings.time_zone is not None else None
    try:
        moments = unix_seconds(times, lambda *at: f"{settings.title}: row {at[0] + 1}", local)
    except SettingsError as error:
        raise FeedFailed(str(error)) from error
    return [(at, figure) for at, figure in zip(moments.unix_s.tolist(), figures, strict=True) if at == at]


def _walk(value: Any, way: str | None) -> Any:
    """What stands at the end of a dotted way; raises LookupError naming the part that is not there."""
    for part in way.split(".") if way else ():
        if isinstance(value, list) and _POSITION.fullmatch(part) and -len(value) <= int(part) < len(value):
            value = value[int(part)]
        elif isinstance(value, dict) and part in value:
            value = value[part]
        else:
            raise LookupError(part)
    return value


def _is_row(found: list[Any], settings: HttpFeedSettings) -> bool:
    """Whether a list is itself one row, its fields told by position."""
    return (
        _POSITION.fullmatch(settings.time_field) is not None and bool(found) and not isinstance(found[0], list | dict)
    )
