"""AI pools whose GPUs are read through dcgm-exporters: implements `agent.backends.Pools`, and never sets a limit.

What an exporter does not tell is charged: a GPU that is expected and not seen draws its most, never nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import TYPE_CHECKING

import structlog

from agent.backends import PoolReading
from agent.bmc.hosts import PoolHosts
from agent.bmc.reader import BmcReader
from agent.gpu.dcgm import Scraped, ScrapeFailed, scrape
from agent.gpu.reading import GpuReading
from agent.settings import GpuPoolSettings
from gridpivot.clock import Clock, Instant
from gridpivot.curves import AiPool, gpu_pool

if TYPE_CHECKING:
    import httpx

log = structlog.get_logger("agent.gpu.dcgm")
BEAT_S = 2.0
STALE_S = 10.0
AT_ONCE = 16


def declared(own: GpuPoolSettings) -> AiPool:
    """The pool as dispatch sees it: it cannot be limited, so its least is its most but for a hair that a curve needs."""
    assert own.dcgm is not None
    return gpu_pool(
        own.name,
        own.priority,
        own.dcgm.gpus_expected,
        gpu_max_w=own.dcgm.gpu_max_w,
        gpu_min_w=0.99 * own.dcgm.gpu_max_w,
        gpu_idle_w=min(75.0, 0.5 * own.dcgm.gpu_max_w),
        host_w_per_gpu=own.host_w_per_gpu,
    )


class ScrapedPools:
    """Pools in the order of the settings. `run()` must be awaited by the service."""

    def __init__(self, settings: Sequence[GpuPoolSettings], clock: Clock) -> None:
        self._settings = [own for own in settings if own.dcgm is not None]
        self._hosts = {
            own.name: PoolHosts([BmcReader(one.node, one, clock) for one in own.bmcs])
            for own in self._settings
            if own.bmcs
        }
        self.declared = tuple(declared(own) for own in self._settings)
        self._clock = clock
        self._pages: dict[str, tuple[float, Scraped]] = {}
        self.troubles: dict[str, str] = {}

    # -- the Pools face ----------------------------------------------------------------------------------------------

    def read(self, now: Instant) -> Sequence[PoolReading]:
        """Newest reading per pool; power is None while no exporter of the pool answers."""
        return [self._account(own, now) for own in self._settings]

    def set_limit(self, pool: int, limit_w: float, now: Instant) -> None:
        """Nothing can be set through an exporter."""

    def _account(self, own: GpuPoolSettings, now: Instant) -> PoolReading:
        assert own.dcgm is not None
        fresh = [
            (at_s, page)
            for at_s, page in (self._pages.get(url, (-1e9, None)) for url in own.dcgm.urls)
            if page is not None and now.monotonic_s - at_s <= STALE_S
        ]
        draws = [r.power_w for _, page in fresh for r in page.readings if r.power_w is not None]
        host_w = own.host_w_per_gpu * own.dcgm.gpus_expected
        missing = max(0, own.dcgm.gpus_expected - len(draws))
        share_w = None
        if own.name in self._hosts:
            whole_w = sum(draws) if draws and not missing else None
            share_w = self._hosts[own.name].share_w(whole_w, now.monotonic_s)
        own_w = host_w if share_w is None else share_w
        power_w = own_w + sum(draws) + missing * own.dcgm.gpu_max_w if draws else None
        most_w = max(host_w, own_w) + max(own.dcgm.gpus_expected, len(draws)) * own.dcgm.gpu_max_w
        read_at_s = min((at_s for at_s, _ in fresh), default=now.monotonic_s)
        return PoolReading(power_w, most_w, power_w, len(draws), read_at_s, by_hosts=share_w is not None)

    @property
    def bmcs(self) -> list[BmcReader]:
        """Of all hosts of these pools; each `run()` must be awaited by the service."""
        return [reader for hosts in self._hosts.values() for reader in hosts.readers]

    @property
    def readings(self) -> list[GpuReading]:
        """Every GPU as last told."""
        return [reading for _, page in self._pages.values() for reading in page.readings]

    # -- scraping ----------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Ask every exporter at the beat, until cancelled."""
        import httpx

        async with httpx.AsyncClient(follow_redirects=False, trust_env=False) as client:
            while True:
                began_s = self._clock.now().monotonic_s
                await self.once(client)
                await asyncio.sleep(max(0.1, began_s + BEAT_S - self._clock.now().monotonic_s))

    async def once(self, client: httpx.AsyncClient) -> None:
        """Each exporter once, some at a time."""
        turn = asyncio.Semaphore(AT_ONCE)

        async def one(url: str, deadline_s: float) -> None:
            async with turn:
                at_s = self._clock.now().monotonic_s
                try:
                    self._pages[url] = (at_s, await scrape(client, url, deadline_s))
                    self._say(url, "")
                except ScrapeFailed as error:
                    self._say(url, str(error))

        wanted = {url: own.dcgm.deadline_s for own in self._settings if own.dcgm is not None for url in own.dcgm.urls}
        await asyncio.gather(*(one(url, deadline_s) for url, deadline_s in wanted.items()))

    def _say(self, url: str, trouble: str) -> None:
        if trouble != self.troubles.get(url, ""):
            (log.warning if trouble else log.info)("dcgm", url=url, detail=trouble or "answers again")
        self.troubles[url] = trouble
