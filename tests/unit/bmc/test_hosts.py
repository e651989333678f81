"""Hosts behind exporters: the sum of their BMCs counts while all of them tell, else the settings' figure."""

from __future__ import annotations

import pytest

from agent.bmc.reader import BmcSample
from agent.gpu.dcgm import Scraped, parse
from agent.gpu.scraped import ScrapedPools
from agent.settings import GpuPoolSettings
from gridpivot.clock import Instant

pytestmark = pytest.mark.unit

PAGE = """# TYPE DCGM_FI_DEV_POWER_USAGE gauge
DCGM_FI_DEV_POWER_USAGE{gpu="0",UUID="GPU-a",Hostname="gpu1"} 600
DCGM_FI_DEV_POWER_USAGE{gpu="1",UUID="GPU-b",Hostname="gpu1"} 400
"""
ASKED = {"url": "https://bmc.example", "username": "u", "password_file": "/run/secret"}


class HandClock:
    def __init__(self) -> None:
        self.s = 1000.0

    def now(self) -> Instant:
        return Instant(self.s, 1_800_000_000.0 + self.s)


class Lent:
    """One pool of two GPUs behind an exporter, and two BMCs."""

    def __init__(self) -> None:
        self.clock = HandClock()
        own = {
            "name": "lent",
            "host_w_per_gpu": 400.0,
            "dcgm": {"urls": ["http://gpu1:9400/metrics"], "gpus_expected": 2},
            "bmcs": [{"node": name, **ASKED} for name in ("gpu1", "switch1")],
        }
        self.pools = ScrapedPools([GpuPoolSettings.model_validate(own)], self.clock)

    def scrape(self, page: str = PAGE) -> None:
        found: Scraped = parse(page)
        self.pools._pages["http://gpu1:9400/metrics"] = (self.clock.s, found)

    def says(self, *watts: float) -> None:
        for reader, figure in zip(self.pools.bmcs, watts, strict=False):
            reader._sample = BmcSample(figure, True, self.clock.s)

    @property
    def reading(self):
        (found,) = self.pools.read(self.clock.now())
        return found


def test_all_bmcs_together_are_the_pools_power() -> None:
    lent = Lent()
    lent.scrape()
    assert (lent.reading.power_w, lent.reading.by_hosts) == (1800.0, False)
    lent.says(2100.0, 100.0)
    assert (lent.reading.power_w, lent.reading.by_hosts) == (2200.0, True)
    assert lent.reading.limit_w == 1200.0 + 2 * 700.0, (
        "what hosts draw beyond the settings is in what the pool may draw"
    )


def test_a_sum_that_lacks_a_host_is_none() -> None:
    lent = Lent()
    lent.scrape()
    lent.says(2100.0)
    assert (lent.reading.power_w, lent.reading.by_hosts) == (1800.0, False)
    lent.says(2100.0, 100.0)
    assert lent.reading.power_w == 2200.0
    lent.clock.s += 41.0
    lent.scrape()
    assert (lent.reading.power_w, lent.reading.by_hosts) == (1800.0, False), "both are silent for too long"


def test_gpus_that_are_not_seen_are_charged_beside_what_hosts_tell() -> None:
    lent = Lent()
    lent.scrape(PAGE.splitlines()[1] + "\n")
    lent.says(2100.0, 100.0)
    assert (lent.reading.power_w, lent.reading.by_hosts) == (800.0 + 600.0 + 700.0, False)
