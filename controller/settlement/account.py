"""What a policy earned at a site, line by line, and how far that is from the best that could have been. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, fields


@dataclass(frozen=True, slots=True)
class Account:
    """One site, or all, over one window under one policy. Income is positive, cost negative; margin is their sum."""

    policy: str
    site: str
    mining_usd: float = 0.0  # hashes really done: a woken machine earns nothing until it hashes
    ai_usd: float = 0.0
    power_usd: float = 0.0  # import at the real-time price, a contract's block and what of it was sold back
    demand_charge_usd: float = 0.0
    wear_usd: float = 0.0
    availability_usd: float = 0.0  # paid for sold capacity
    penalty_usd: float = 0.0  # guaranteed AI unserved, ceilings and feeders passed, sold capacity missing
    energy_mwh: float = 0.0
    mining_mwh: float = 0.0
    ai_mwh: float = 0.0
    wakes: float = 0.0
    guaranteed_unserved_mwh: float = 0.0
    dr_shortfall_mwh: float = 0.0  # import above an event's ceiling
    ceiling_excess_mwh: float = 0.0  # import above the site's own ceiling, no event on
    feeder_excess_mwh: float = 0.0
    sold_shortfall_mwh: float = 0.0

    @property
    def margin_usd(self) -> float:
        """Income less all cost."""
        cost = self.power_usd + self.demand_charge_usd + self.wear_usd + self.penalty_usd
        return self.mining_usd + self.ai_usd + self.availability_usd + cost


def total(accounts: Iterable[Account], site: str = "") -> Account:
    """Accounts of one policy added up."""
    every = list(accounts)
    figures = {
        f.name: sum(getattr(a, f.name) for a in every) for f in fields(Account) if f.name not in ("policy", "site")
    }
    return Account(every[0].policy, site, **figures)


def regret_ratio(best_usd: float, margin_usd: float) -> float | None:
    """Share of the best margin that was missed; None where the best earns nothing."""
    return (best_usd - margin_usd) / best_usd if best_usd > 0 else None
