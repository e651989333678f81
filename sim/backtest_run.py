"""The backtest itself: files into a scenario, policies through it, accounts out. Blocking.

The command (`sim.backtest`) and the bench of regrets share it. What a policy may know is decided in
`controller.settlement.seen`, what it earned in `controller.settlement.settle`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from zoneinfo import ZoneInfo

import numpy as np

from controller.dispatch.parameters import Parameters
from controller.markets.feed import FileFeed
from controller.markets.forecast import Published
from controller.markets.hashprice import DailyHashprice
from controller.markets.series import PriceSeries, read_prices
from controller.settlement.account import Account, regret_ratio, total
from controller.settlement.fleet_file import read_fleet
from controller.settlement.plant import Plant
from controller.settlement.rehearse import foreseen, settled
from controller.settlement.rolling import Rolling
from controller.settlement.rules import MeritOrderRule, Static, Threshold
from controller.settlement.scenario import Scenario, lay_out_scenario
from controller.settlement.seen import Policy
from controller.settlement.settle import Settled
from gridpivot.errors import SettingsError
from gridpivot.vocabulary import Rung

FORESIGHT = "foresight"
CURRENT = "-current"  # any rule but static may be told the current interval's price
HASHPRICE_USD_PER_PH_DAY = 50.0  # without a file
DAY_S = 86_400.0
CLIPPED_EVERY_S, HOLD_EVERY_S = 6 * 3600.0, 24 * 3600.0

Told = Callable[[str, int, int], None]  # policy, done, of


@dataclass(frozen=True, slots=True)
class Files:
    """Where everything is. `prices` and `day_ahead` are FILE or REGION=FILE; files of one region follow each other."""

    fleet: Path
    prices: tuple[str, ...]
    day_ahead: tuple[str, ...] = ()
    hashprice: Path | None = None
    time_column: str | None = None
    price_column: str | None = None
    day_ahead_column: str | None = None
    time_zone: str | None = None
    publish_hour: float = 14.0  # tomorrow's day-ahead prices are out; ERCOT's by 13:30, Central


@dataclass(frozen=True, slots=True, eq=False)
class Outcome:
    """One policy: its accounts by site, and how long it took [s]."""

    policy: str
    sites: tuple[Settled, ...]
    wall_s: float

    @property
    def account(self) -> Account:
        """All sites together."""
        return total(s.account for s in self.sites)


@dataclass(frozen=True, slots=True, eq=False)
class Backtest:
    """Everything that came of it."""

    files: Files
    scenario: Scenario
    outcomes: tuple[Outcome, ...]
    notes: tuple[str, ...] = ()

    def regret(self, outcome: Outcome) -> float | None:
        """Share of perfect foresight's margin that a policy missed; None without foresight."""
        best = next((o for o in self.outcomes if o.policy == FORESIGHT), None)
        return None if best is None else regret_ratio(best.account.margin_usd, outcome.account.margin_usd)


def policy_of(name: str, width_s: float, parameters: Parameters) -> Policy:
    """A policy by its word; raises SettingsError for an unknown one."""
    rule, current = name.removesuffix(CURRENT), name.endswith(CURRENT)
    if name == "static":
        return Static()
    if rule == "threshold":
        return Threshold(name, current)
    if rule == "merit-order":
        return MeritOrderRule(name, current)
    if rule == "lp":
        return Rolling(name, width_s, parameters, knows_current=current)
    if rule == "clipped":
        return Rolling(name, width_s, parameters, knows_current=current, every_s=CLIPPED_EVERY_S)
    if rule == "hold":
        return Rolling(name, width_s, parameters, knows_current=current, every_s=HOLD_EVERY_S, between=Rung.HOLD)
    known = "static, threshold, merit-order, lp, clipped, hold (all but static also with -current), foresight"
    raise SettingsError(f"--policies {name}: unknown; one or more of {known}")


class Past:
    """A fleet and the markets it lives in, read once; `scenario` cuts windows out of them."""

    def __init__(self, files: Files) -> None:
        """Raises SettingsError, one line per fault."""
        self.files = files
        self.plants: tuple[Plant, ...] = read_fleet(files.fleet)
        self.prices = _by_region(files.prices, "--prices", files, files.price_column)
        self.published = {
            region: Published(FileFeed(series), 0.0, files.publish_hour, self._clock(region))
            for region, series in _by_region(files.day_ahead, "--day-ahead", files, files.day_ahead_column).items()
        }
        self.hashprice = DailyHashprice(files.hashprice) if files.hashprice is not None else None
        self.notes = [note for series in self.prices.values() for note in series.repaired]

    def _clock(self, region: str) -> ZoneInfo:
        """The clock of a region's market: its first site's."""
        return next((p.time_zone for p in self.plants if p.region == region), self.plants[0].time_zone)

    def scenario(self, from_unix_s: float | None, until_unix_s: float | None) -> Scenario:
        """The window; None = from the first, to the last interval that every price file has."""
        first = max(float(s.starts_unix_s[0]) for s in self.prices.values())
        last = min(float(s.starts_unix_s[-1]) + s.width_s for s in self.prices.values())
        begins = first if from_unix_s is None else from_unix_s
        ends = last if until_unix_s is None else until_unix_s
        return lay_out_scenario(self.plants, self.prices, self.published, self._hashprice(begins, ends), begins, ends)

    def _hashprice(self, begins: float, ends: float) -> Mapping[float, float] | float:
        """Figures by the time since when each was in force [Unix s]: the last full day's, as a controller knows it."""
        if self.hashprice is None:
            return HASHPRICE_USD_PER_PH_DAY
        figures = {}
        for at in np.arange(begins, ends + DAY_S, DAY_S).tolist():
            known = self.hashprice.at(at)
            if known is None:
                raise SettingsError(
                    f"--hashprice {self.files.hashprice}: begins after the window; give an earlier file or a later --from"
                )
            figures[known[1]] = known[0]
        return figures


def run(
    scenario: Scenario, names: Sequence[str], parameters: Parameters, told: Told = lambda *_: None
) -> tuple[Outcome, ...]:
    """Policies through one scenario, in the order given; unknown names are refused before any work is done."""
    policies = {n: None if n == FORESIGHT else policy_of(n, scenario.width_s, parameters) for n in names}
    outcomes = []
    for name, policy in policies.items():
        begun = time.perf_counter()

        def done(at: int, name: str = name) -> None:
            told(name, at, len(scenario.sites) if name == FORESIGHT else scenario.intervals)

        if policy is None:
            sites = foreseen(scenario, parameters, done)
        else:
            sites = settled(scenario, policy, parameters, done)
        outcomes.append(Outcome(name, tuple(sites), time.perf_counter() - begun))
    return tuple(outcomes)


def _by_region(words: Sequence[str], option: str, files: Files, column: str | None) -> dict[str, PriceSeries]:
    """Price files by region; several of one region are joined in time. Raises SettingsError."""
    series: dict[str, list[PriceSeries]] = {}
    for word in words:
        region, mark, name = word.partition("=")
        region, path = (region, Path(name)) if mark and not Path(word).exists() else ("", Path(word))
        if not path.is_file():
            raise SettingsError(f"{option} {path}: no such file; give a CSV or Parquet file of prices")
        read = read_prices(path, time_column=files.time_column, price_column=column, time_zone=files.time_zone)
        series.setdefault(region, []).append(read)
    return {region: _joined(parts, option) for region, parts in series.items()}


def _joined(parts: list[PriceSeries], option: str) -> PriceSeries:
    if len(parts) == 1:
        return parts[0]
    parts = sorted(parts, key=lambda p: float(p.starts_unix_s[0]))
    starts = np.concatenate([p.starts_unix_s for p in parts])
    if len({p.width_s for p in parts}) > 1 or bool(np.any(np.diff(starts) <= 0)):
        names = ", ".join(p.name for p in parts)
        raise SettingsError(
            f"{option} {names}: they overlap or differ in their interval; give files that follow each other, or "
            "REGION=FILE for markets of their own"
        )
    return replace(
        parts[0],
        name="+".join(p.name for p in parts),
        starts_unix_s=starts,
        usd_per_mwh=np.concatenate([p.usd_per_mwh for p in parts]),
        repaired=tuple(note for p in parts for note in p.repaired),
    )


def moment(text: str, option: str) -> float:
    """Unix seconds of 2024-07-01 or 2024-07-01T06:00Z, UTC unless it says otherwise; raises SettingsError."""
    try:
        read = datetime.fromisoformat(text)
    except ValueError:
        raise SettingsError(f"{option} {text}: expected something like 2024-07-01 or 2024-07-01T06:00Z") from None
    return (read if read.tzinfo else read.replace(tzinfo=UTC)).timestamp()
