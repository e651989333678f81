"""Small worlds for settlements: a plant or two, random prices, one scenario; seeded by the test."""

from __future__ import annotations

from dataclasses import replace
from zoneinfo import ZoneInfo

import numpy as np
import pytest

from controller.dispatch.terms import Contract, FeederState
from controller.markets.feed import FileFeed
from controller.markets.forecast import Published
from controller.markets.series import PriceSeries
from controller.settlement.plant import Demand, EventRule, Plant, PlantClass, PlantPool, SoldRule
from controller.settlement.scenario import lay_out_scenario
from gridpivot.curves import gpu_pool, miner_class
from gridpivot.vocabulary import AiPriority

MONDAY = 1_717_372_800.0  # 2024-06-03T00:00Z
TEXAS = ZoneInfo("America/Chicago")


class World:
    """Makes plants and scenarios; every figure has a plain default."""

    monday = MONDAY
    zone = TEXAS

    @staticmethod
    def mine(name="s19-xp", model="Antminer S19 XP", machines=1000, wake_s=240.0, shed_s=30.0, feeder=""):
        return PlantClass(miner_class(name, "test", model, shed_s=shed_s, wake_s=wake_s), machines, feeder)

    @staticmethod
    def pool(name="serve", priority=AiPriority.GUARANTEED, gpus=1000, usd=1.5, demand=None, **terms):
        made = gpu_pool(name, priority, gpus)
        return PlantPool(made, usd, demand or Demand(0.8 * made.max_w), **terms)

    def plant(self, name="mesa", classes=None, pools=(), ceiling_mw=10.0, **terms):
        classes = (self.mine(),) if classes is None else classes
        return Plant(name, "", TEXAS, ceiling_mw * 1e6, 0.05, 1e5, 0.01, tuple(classes), tuple(pools), **terms)

    def coupled(self, **terms):
        """Two classes and three pools under a ceiling that is too small, a feeder, and a call every evening."""
        classes = (self.mine(feeder="east"), self.mine("s19j", "Antminer S19j Pro", 800, feeder="east"))
        swing = Demand(0.9e6, swing_ratio=0.3, seed=3)
        pools = (
            self.pool(),
            self.pool("train", AiPriority.STANDARD, 800, 0.4, swing, shed_s=60.0),
            self.pool("spot", AiPriority.SPOT, 800, 0.09, replace(swing, seed=4), shed_s=30.0),
        )
        evening = EventRule("evening", 3.5e6, 7200.0, None, tuple(range(1, 13)), tuple(range(7)), 17.0, 19.0)
        terms = {"feeders": (FeederState("east", 5e6),), "events": (evening,), "ceiling_mw": 6.0} | terms
        return self.plant("coupled", classes, pools, **terms)

    def obliged(self):
        """A plant with every obligation that a fleet file can hold."""
        sold = SoldRule("ecrs", 1e6, 600.0, 8.0, 5_000.0, 6.0, 20.0)
        return self.coupled(contract=Contract(4e6, 35.0, True, 2.0), demand_charge_usd_per_kw=4.0, sold=(sold,))

    @staticmethod
    def series(prices, begins=MONDAY, width_s=900.0, name="test"):
        prices = np.asarray(prices, dtype=float)
        return PriceSeries(name, begins + width_s * np.arange(len(prices)), prices, width_s)

    @staticmethod
    def prices(seed, count):
        """Prices that wander, spike and go below nothing."""
        rng = np.random.default_rng(seed)
        wander = 40.0 + np.cumsum(rng.normal(0.0, 6.0, count))
        spikes = np.where(rng.random(count) < 0.03, rng.exponential(800.0, count), 0.0)
        return np.clip(wander, -20.0, 120.0) + spikes

    def scenario(self, plants, prices, day_ahead=None, hashprice=60.0, begins=MONDAY, width_s=900.0, lead=0):
        """The window begins `lead` intervals after the prices."""
        published = {}
        if day_ahead is not None:
            hourly = self.series(day_ahead, begins, 3600.0, "day-ahead")
            published[""] = Published(FileFeed(hourly), 0.0, 14.0, TEXAS)
        first, last = begins + lead * width_s, begins + len(prices) * width_s
        series = {"": self.series(prices, begins, width_s)}
        return lay_out_scenario(tuple(plants), series, published, hashprice, first, last)


@pytest.fixture(scope="session")
def world():
    return World()
