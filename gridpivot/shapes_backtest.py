"""The JSON document that `gridpivot backtest` prints. A room of its own beside `shapes`; the same rules hold."""

from __future__ import annotations

from datetime import datetime

from gridpivot.shapes import Document, Figures


class AccountFigures(Figures):
    """What one policy earned, at one site or at all of them. Income is positive, cost negative."""

    margin_usd: float
    mining_usd: float
    ai_usd: float
    power_usd: float
    demand_charge_usd: float
    wear_usd: float
    availability_usd: float
    penalty_usd: float
    energy_mwh: float
    mining_mwh: float
    ai_mwh: float
    wakes: float
    guaranteed_unserved_mwh: float
    dr_shortfall_mwh: float
    ceiling_excess_mwh: float
    feeder_excess_mwh: float
    sold_shortfall_mwh: float


class SiteAccountFigures(AccountFigures):
    """One site under one policy."""

    site: str


class PolicyFigures(AccountFigures):
    """One policy over the whole fleet; regret is null where perfect foresight was not asked for or earns nothing."""

    policy: str
    regret_ratio: float | None
    wall_s: float
    sites: list[SiteAccountFigures]


class BacktestShape(Document):
    """`gridpivot backtest`: policies settled on the same past prices, demand and events."""

    fleet: str
    begins_at: datetime
    ends_at: datetime
    interval_s: float
    intervals: int
    prices: list[str]
    day_ahead: list[str]
    hashprice: str
    calls: int
    notes: list[str]
    policies: list[PolicyFigures]
