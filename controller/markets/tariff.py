"""What a MWh costs at the meter: fixed, by the hour, or the market's price with what is added to it. Pure.

Windows are read on the tariff's own clock, whatever the site's or the controller's is; money comes in the tariff's
currency and leaves in USD. Instants are data time [Unix s]; steps are counted in real seconds from now, like prices.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from zoneinfo import ZoneInfo

from controller.dispatch.inputs import PriceStep
from controller.markets.tariff_settings import TariffSettings, Weekday, WindowSettings
from controller.markets.zones import zone

QUARTER_S = 900.0  # every zone's offset and every window's edge is a multiple of it
WEEKDAYS = tuple(Weekday)


def inside(window: WindowSettings, local: datetime) -> bool:
    """Whether a moment of the local clock lies in the window; one that ends before it begins runs over midnight."""
    hour = local.hour + local.minute / 60.0
    if window.until_hour > window.from_hour:
        open_now = window.from_hour <= hour < window.until_hour
    else:
        open_now = hour >= window.from_hour or hour < window.until_hour
    today = not window.days or WEEKDAYS[local.weekday()] in window.days
    return open_now and today and (not window.months or local.month in window.months)


@dataclass(frozen=True, slots=True)
class Tariff:
    """A tariff ready to be asked. `steps` wants market prices only where `follows_market`."""

    name: str
    settings: TariffSettings
    zone: ZoneInfo = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "zone", zone(self.settings.time_zone))

    @property
    def follows_market(self) -> bool:
        """Whether the price of energy is the market's."""
        return self.settings.per_mwh is None

    def usd_per_mwh(self, market_usd_per_mwh: float | None, unix_s: float) -> float | None:
        """Price of a MWh at one moment [USD/MWh]; None while it hangs on a market price that is unknown."""
        return self._priced(market_usd_per_mwh, self._rate(unix_s))

    def steps(
        self, energy_steps: Sequence[PriceStep], now_unix_s: float, horizon_s: float, speed: float = 1.0
    ) -> tuple[PriceStep, ...]:
        """Price ahead [USD/MWh, real s from now] over `horizon_s` of data time.

        `energy_steps` are the market's, in USD/MWh; without them a tariff that follows the market has no price: ().
        """
        starts = [step.starts_in_s for step in energy_steps]
        if self.follows_market and not starts:
            return ()
        rates = dict(self._changes(now_unix_s, horizon_s, speed))
        edges = sorted({0.0, *rates, *(s for s in starts if s > 0 and self.follows_market)})
        merged: list[PriceStep] = []
        rate = rates[0.0]
        for edge in edges:
            rate = rates.get(edge, rate)
            market = energy_steps[max(0, bisect_right(starts, edge) - 1)].usd_per_mwh if starts else None
            price = self._priced(market, rate)
            if price is not None and (not merged or merged[-1].usd_per_mwh != price):
                merged.append(PriceStep(edge, price))
        return tuple(merged)

    def risk_steps(self, now_unix_s: float, horizon_s: float, speed: float = 1.0) -> tuple[PriceStep, ...]:
        """What coincident peaks are reckoned to cost on top [USD/MWh]; () where the tariff knows no such risk."""
        risks = self.settings.risk
        if not risks:
            return ()
        merged: list[PriceStep] = []
        for starts_in_s, local in self._quarters(now_unix_s, horizon_s, speed):
            price = sum(risk.per_mwh for risk in risks if inside(risk, local)) * self.settings.usd_per_currency
            if not merged or merged[-1].usd_per_mwh != price:
                merged.append(PriceStep(starts_in_s, price))
        return tuple(merged)

    def _priced(self, market_usd_per_mwh: float | None, rate: float | None) -> float | None:
        s = self.settings
        if rate is None:
            if market_usd_per_mwh is None:
                return None
            energy = market_usd_per_mwh * s.market_multiplier
        else:
            energy = rate * s.usd_per_currency
        return energy * (1.0 + s.loss_ratio) + s.adder_per_mwh * s.usd_per_currency

    def _rate(self, unix_s: float) -> float | None:
        """The tariff's own price of energy at a moment [currency/MWh]; None = the market's."""
        return self._rate_at(datetime.fromtimestamp(unix_s, self.zone))

    def _rate_at(self, local: datetime) -> float | None:
        for window in self.settings.windows:
            if inside(window, local):
                return window.per_mwh
        return self.settings.per_mwh

    def _changes(self, now_unix_s: float, horizon_s: float, speed: float) -> Iterator[tuple[float, float | None]]:
        if not self.settings.windows:
            yield 0.0, self.settings.per_mwh
            return
        before: list[float | None] = []
        for starts_in_s, local in self._quarters(now_unix_s, horizon_s, speed):
            rate = self._rate_at(local)
            if not before or before[-1] != rate:
                before.append(rate)
                yield starts_in_s, rate

    def _quarters(self, now_unix_s: float, horizon_s: float, speed: float) -> Iterator[tuple[float, datetime]]:
        """Now and every quarter hour ahead: real seconds from now, and the local clock then."""
        yield 0.0, datetime.fromtimestamp(now_unix_s, self.zone)
        at = (now_unix_s // QUARTER_S + 1) * QUARTER_S
        while at < now_unix_s + horizon_s:
            yield (at - now_unix_s) / speed, datetime.fromtimestamp(at, self.zone)
            at += QUARTER_S
