"""Keeps the book's live sources fed: one task per URL or operator, each at its own pace. The doing beside `book`.

A source that fails is said once until it works again and asked again at its pace; its last good prices stay and age.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from functools import partial

import httpx

from controller.markets import http_json, iso_prices
from controller.markets.book import MarketBook
from controller.markets.settings import HttpFeedSettings, IsoFeedSettings
from gridpivot.clock import Clock, Instant
from gridpivot.errors import FeedFailed, SettingsError
from gridpivot.observability import get_logger

Rows = Sequence[tuple[float, float]]
LONGEST_S = 120.0  # each source's own deadline, under this, is what counts
log = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Source:
    """One live source: what to ask, how often [s], and who takes what came."""

    title: str
    poll_s: float
    ask: Callable[[], Awaitable[Rows]]
    take: Callable[[Rows, Instant], tuple[str, ...]]


@dataclass(slots=True)
class FeedHealth:
    """How a source fares: polls that brought prices and polls that failed, and why it fails now ('' = it works)."""

    good: int = 0
    failed: int = 0
    trouble: str = ""


class MarketPoller:
    """Polls every live source named in the book's settings until cancelled; `health` tells how each fares."""

    def __init__(self, book: MarketBook, clock: Clock) -> None:
        self._book, self._clock = book, clock
        self.health: dict[str, FeedHealth] = {}

    async def run(self) -> None:
        """For ever; returns at once where nothing is live."""
        async with httpx.AsyncClient(timeout=LONGEST_S, follow_redirects=False) as client, asyncio.TaskGroup() as group:
            for source in self._sources(client):
                group.create_task(self._follow(source), name=f"prices of {source.title}")

    async def poll_once(self) -> None:
        """Ask every source once, side by side."""
        async with httpx.AsyncClient(timeout=LONGEST_S, follow_redirects=False) as client:
            await asyncio.gather(*(self._ask(source) for source in self._sources(client)))

    def _sources(self, client: httpx.AsyncClient) -> list[Source]:
        book, found = self._book, []
        for region in book.regions:
            settings = book.region_settings(region)
            if settings.http is not None:
                found.append(self._http(client, settings.http, partial(book.take_prices, region, settings.http.title)))
            if settings.iso is not None:
                found.append(self._iso(settings.iso, partial(book.take_prices, region, settings.iso.title)))
        if book.settings.hashprice_http is not None:
            found.append(self._http(client, book.settings.hashprice_http, book.take_hashprice))
        return found

    def _http(
        self, client: httpx.AsyncClient, settings: HttpFeedSettings, take: Callable[[Rows, Instant], tuple[str, ...]]
    ) -> Source:
        async def ask() -> Rows:
            secret = await asyncio.to_thread(http_json.header, settings)
            body = await http_json.fetch(client, settings, secret)
            return await asyncio.to_thread(http_json.rows_of, body, settings)

        return Source(settings.title, settings.poll_s, ask, take)

    def _iso(self, settings: IsoFeedSettings, take: Callable[[Rows, Instant], tuple[str, ...]]) -> Source:
        async def ask() -> Rows:
            now_unix_s = self._clock.now().unix_s
            try:
                async with asyncio.timeout(settings.deadline_s):
                    return await asyncio.to_thread(iso_prices.fetch, settings, now_unix_s)
            except TimeoutError as error:
                raise FeedFailed(
                    f"{settings.iso}: no answer within {settings.deadline_s:g} s; raise deadline_s"
                ) from error

        return Source(settings.title, settings.poll_s, ask, take)

    async def _follow(self, source: Source) -> None:
        while True:
            await self._ask(source)
            await asyncio.sleep(source.poll_s)

    async def _ask(self, source: Source) -> None:
        health = self.health.setdefault(source.title, FeedHealth())
        try:
            refused = source.take(await source.ask(), self._clock.now())
        except (FeedFailed, SettingsError) as error:
            health.failed += 1
            trouble = str(error)
        else:
            health.good += not refused
            health.failed += bool(refused)
            trouble = refused[0] if refused else ""
        if trouble != health.trouble:
            (log.warning if trouble else log.info)("market feed", source=source.title, trouble=trouble or "none")
        health.trouble = trouble
