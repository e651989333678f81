"""How much a pool's work gets done per second: an instant query to a Prometheus, named in the settings.

Any unit will do (tokens, steps, samples per second) as long as it stays the same: curves are ratios. What is not one finite
positive number has its word and teaches nothing.
"""

from __future__ import annotations

import asyncio
import json
import math
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from pydantic import Field

from gridpivot.settings import Section

if TYPE_CHECKING:
    import httpx  # an agent without such a query does not pay for it

MOST_BYTES = 1024 * 1024
LEAP = 20.0  # over the last figure or under it, for the same work: another unit, not another pace


class ThroughputOutcome(StrEnum):
    """What a query brought. Closed."""

    OK = "ok"
    EMPTY = "empty"  # no series: nothing runs, or the query is wrong
    SEVERAL = "several"  # more than one series: sum them in the query
    NOT_A_NUMBER = "not_a_number"
    NOT_POSITIVE = "not_positive"
    LEAP = "leap"  # so far from the last figure that the unit must have changed
    REFUSED = "refused"  # an answer that is an error
    SLOW = "slow"
    UNREACHABLE = "unreachable"
    GARBLED = "garbled"


class ThroughputSettings(Section):
    """Where to ask."""

    prometheus_url: str = Field(pattern=r"^https?://[^\s]{1,500}$")
    query: str = Field(min_length=1, max_length=2000)
    every_s: float = Field(default=15.0, ge=5, le=600)
    deadline_s: float = Field(default=5.0, gt=0, le=60)


def figure_of(body: bytes) -> tuple[ThroughputOutcome, float | None]:
    """The one number of an instant query's answer (Prometheus HTTP API: data.result of a vector, or a scalar)."""
    try:
        answer = json.loads(body)
        data = answer["data"]
        kind, result = data["resultType"], data["result"]
        values = [result[1]] if kind == "scalar" else [one["value"][1] for one in result]
    except (ValueError, KeyError, TypeError, IndexError, RecursionError):
        return ThroughputOutcome.GARBLED, None
    if not values:
        return ThroughputOutcome.EMPTY, None
    if len(values) > 1:
        return ThroughputOutcome.SEVERAL, None
    return _number(values[0])


def _number(value: Any) -> tuple[ThroughputOutcome, float | None]:
    try:
        figure = float(value)
    except (TypeError, ValueError):
        return ThroughputOutcome.GARBLED, None
    if not math.isfinite(figure):
        return ThroughputOutcome.NOT_A_NUMBER, None
    if figure <= 0.0:
        return ThroughputOutcome.NOT_POSITIVE, None
    return ThroughputOutcome.OK, figure


def _near(figure: float, last: float) -> bool:
    return 1.0 / LEAP <= figure / last <= LEAP


class Throughput:
    """One pool's query. `outcomes` counts by word."""

    def __init__(self, settings: ThroughputSettings) -> None:
        self.settings = settings
        self.outcomes: dict[ThroughputOutcome, int] = {}
        self._last: tuple[str, float] | None = None

    async def read(self, client: httpx.AsyncClient, work: str) -> tuple[ThroughputOutcome, float | None]:
        """Ask once; `work` names the jobs that run, within which the unit cannot change."""
        outcome, figure = await self._ask(client)
        same = figure is not None and self._last is not None and self._last[0] == work
        if same and figure is not None and self._last is not None and not _near(figure, self._last[1]):
            outcome, figure = ThroughputOutcome.LEAP, None
        if figure is not None:
            self._last = (work, figure)
        self.outcomes[outcome] = self.outcomes.get(outcome, 0) + 1
        return outcome, figure

    async def _ask(self, client: httpx.AsyncClient) -> tuple[ThroughputOutcome, float | None]:
        import httpx

        url = f"{self.settings.prometheus_url.rstrip('/')}/api/v1/query"
        try:
            async with asyncio.timeout(self.settings.deadline_s):
                async with client.stream("GET", url, params={"query": self.settings.query}) as answer:
                    body = bytearray()
                    async for piece in answer.aiter_bytes():
                        body += piece
                        if len(body) > MOST_BYTES:
                            return ThroughputOutcome.GARBLED, None
                    if answer.status_code != 200:
                        return ThroughputOutcome.REFUSED, None
            return figure_of(bytes(body))
        except TimeoutError:
            return ThroughputOutcome.SLOW, None
        except (httpx.HTTPError, httpx.InvalidURL):
            return ThroughputOutcome.UNREACHABLE, None
