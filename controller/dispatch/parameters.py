"""What dispatch is told besides the state of the fleet: costs, penalties and the shape of its horizon.

Penalties stand in an order that says who gives way to whom: economics, then the fleet's hashrate floor, ramps,
guaranteed AI, and last of all a ceiling. All of them lie above the largest price that `markets.bounds` lets through.
"""

from __future__ import annotations

from pydantic import Field

from gridpivot.settings import Section

# 5 min for the first hour, 15 min to 8 h, then hourly to 48 h: 80 periods, counted from now [s].
PERIOD_S: tuple[float, ...] = (300.0,) * 12 + (900.0,) * 28 + (3600.0,) * 40


class Parameters(Section):
    """Costs and penalties of the dispatch model. Not measured: chosen so that each does its one job."""

    wear_usd_per_wake: float = Field(default=0.01, ge=0)  # thermal cycle of one machine, per wake-up
    move_usd_per_mw: float = Field(default=0.02, ge=0)  # 0.24 USD/MWh over the first 5 min: less stirs nothing
    assumed_price_usd_per_mwh: float = Field(default=50.0, ge=0)  # where no price has been heard at all
    ceiling_penalty_usd_per_mwh: float = Field(default=200_000.0, gt=0)
    guaranteed_penalty_usd_per_mwh: float = Field(default=50_000.0, gt=0)
    ramp_penalty_usd_per_mwh: float = Field(default=30_000.0, gt=0)
    floor_penalty_usd_per_ph_h: float = Field(default=500.0, gt=0)  # about 25,000 USD/MWh at 20 J/TH
    left_over_ratio: float = Field(default=0.9, ge=0, le=1)  # worth of AI work left at the horizon's end, of its income
    spill_usd_per_mwh: float = Field(default=1.0, ge=0)  # of a supply's minimum that nobody takes: breaks ties only
    fallback_overhead_factor: float = Field(default=1.1, ge=1)  # worst overhead over the present ratio
