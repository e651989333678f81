"""Settings of tariffs: what a site's contract says of energy, transport, demand and coincident peaks."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Self

from pydantic import AfterValidator, Field, model_validator

from controller.markets.zones import zone
from gridpivot.errors import SettingsError
from gridpivot.settings import Section


class Weekday(StrEnum):
    """Days as tariffs name them, Monday first."""

    MON = "mon"
    TUE = "tue"
    WED = "wed"
    THU = "thu"
    FRI = "fri"
    SAT = "sat"
    SUN = "sun"


def _zone_name(name: str) -> str:
    try:
        zone(name)
    except SettingsError as error:
        raise ValueError(str(error)) from None
    return name


ZoneName = Annotated[str, AfterValidator(_zone_name)]
Hour = Annotated[float, Field(ge=0, le=24, multiple_of=0.25)]
Month = Annotated[int, Field(ge=1, le=12)]
# Beyond any tariff in any currency per MWh: 500,000 pesos or rupiah pass, a slip to per GWh in dollars does not matter.
PerMwh = Annotated[float, Field(ge=-50_000_000, le=50_000_000)]


class WindowSettings(Section):
    """Hours of the tariff's own clock, on some days of some months; `until_hour` up to `from_hour` = over midnight."""

    from_hour: Hour = 0.0
    until_hour: Hour = 24.0
    days: tuple[Weekday, ...] = ()  # none = every day
    months: tuple[Month, ...] = ()  # none = all year


class PricedWindow(WindowSettings):
    """A window and what a MWh costs in it [currency/MWh]."""

    per_mwh: PerMwh


class DemandSettings(Section):
    """A charge on the month's highest 15-min demand [currency per kW and month].

    `reckoned_peak_mw` is the peak that is paid anyway (a ratchet, a minimum): below it a new peak costs nothing. With
    `on_peak` only demand in that window counts.
    """

    per_kw_month: float = Field(ge=0, le=10_000_000)
    reckoned_peak_mw: float = Field(default=0.0, ge=0, le=10_000)
    on_peak: WindowSettings | None = None


class TariffSettings(Section):
    """One tariff. Energy is the market's price times `market_multiplier`, unless `per_mwh` gives one of its own.

    `windows` name other prices by hour, the first that is open counts; losses and adders come on top of either.
    `usd_per_currency` turns the tariff's money into USD; market prices are USD already.
    """

    time_zone: ZoneName = "UTC"
    currency: str = Field(default="USD", pattern=r"^[A-Z]{3}$")
    usd_per_currency: float = Field(default=1.0, ge=1e-6, le=10.0)  # rial to dinar
    per_mwh: PerMwh | None = None
    windows: tuple[PricedWindow, ...] = ()
    market_multiplier: float = Field(default=1.0, ge=0, le=10)
    adder_per_mwh: PerMwh = 0.0
    loss_ratio: float = Field(default=0.0, ge=0, le=0.5)
    demand: DemandSettings | None = None
    risk: tuple[PricedWindow, ...] = ()

    @model_validator(mode="after")
    def _rate_is_told(self) -> Self:
        if self.currency != "USD" and self.usd_per_currency == 1.0:
            raise ValueError(f"give usd_per_currency: what one {self.currency} is worth in USD")
        if self.currency == "USD" and self.usd_per_currency != 1.0:
            raise ValueError("usd_per_currency is not 1 and currency is USD; name the tariff's currency")
        return self

    @model_validator(mode="after")
    def _unit(self) -> Self:
        own = [w.per_mwh for w in self.windows] + ([self.per_mwh] if self.per_mwh is not None else [])
        slips = [rate for rate in own if 0.0 < abs(rate) * self.usd_per_currency < 1.0]
        if slips:
            raise ValueError(
                f"{slips[0]:g} {self.currency}/MWh is under 1 USD/MWh: give the price per MWh, not per kWh"
            )
        high = [rate for rate in own if abs(rate) * self.usd_per_currency > 20_000.0]
        if high:
            raise ValueError(f"{high[0]:g} {self.currency}/MWh is over 20,000 USD/MWh; check the unit and the rate")
        return self
