"""The month's highest 15-min demand, from the meter's energy counter, and the charge that hangs on it. Pure.

Utilities bill the mean power of clock quarters, not of any fifteen minutes, so energy is cut at the quarter's edges
between the two readings around each. A month begins at midnight on the tariff's own clock. A counter that went back
or leapt (a changed meter) and a silence longer than two minutes end the open quarter without counting it: an unknown demand is
no demand, and the utility's own bill decides in the end. Instants are data time [Unix s].
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime
from zoneinfo import ZoneInfo

from controller.dispatch.terms import DemandCharge
from controller.markets.tariff import QUARTER_S, Tariff, inside

SILENCE_S = 120.0
MOST_W = 5e9  # no site draws more: a counter that rises faster was changed


@dataclass(frozen=True, slots=True)
class EnergyReading:
    """The site meter's import counter [J] at a moment [Unix s]."""

    at_unix_s: float
    energy_j: int


@dataclass(frozen=True, slots=True)
class Billing:
    """What is known of one site's month: its beginning, its peak [W], and the quarter that is open.

    `quarter_energy_j` is the counter at the open quarter's beginning; None while the quarter was not seen to begin.
    """

    period_start_unix_s: float
    peak_w: float = 0.0
    last: EnergyReading | None = None
    quarter_energy_j: float | None = None


def month_of(unix_s: float, zone: ZoneInfo) -> tuple[float, float]:
    """Beginning and end of the local month around a moment [Unix s]."""
    local = datetime.fromtimestamp(unix_s, zone)
    first = datetime(local.year, local.month, 1, tzinfo=zone)
    after = datetime(local.year + local.month // 12, local.month % 12 + 1, 1, tzinfo=zone)
    return first.timestamp(), after.timestamp()


def metered(before: Billing | None, reading: EnergyReading, tariff: Tariff) -> Billing:
    """The site's month after one more reading; readings that are not newer than the last change nothing."""
    now_s, energy_j = reading.at_unix_s, reading.energy_j
    if before is not None and before.last is not None and now_s <= before.last.at_unix_s:
        return before
    start_s, _ = month_of(now_s, tariff.zone)
    known = before if before is not None else Billing(start_s)
    last = known.last
    opened = known.quarter_energy_j
    if last is None or now_s - last.at_unix_s > SILENCE_S or _changed(last, reading):
        seen = energy_j if now_s % QUARTER_S == 0 else None
        return _in_month(replace(known, last=reading, quarter_energy_j=seen), start_s)
    edge_s = now_s // QUARTER_S * QUARTER_S
    if edge_s > last.at_unix_s:
        share = (edge_s - last.at_unix_s) / (now_s - last.at_unix_s)
        at_edge_j = last.energy_j + (energy_j - last.energy_j) * share
        quarter_s = edge_s - QUARTER_S
        if opened is not None and _counts(quarter_s, tariff):
            known = _in_month(known, month_of(quarter_s, tariff.zone)[0])
            known = replace(known, peak_w=max(known.peak_w, (at_edge_j - opened) / QUARTER_S))
        opened = at_edge_j
    return _in_month(replace(known, last=reading, quarter_energy_j=opened), start_s)


def demand_charge(
    billing: Billing | None, tariff: Tariff, now_unix_s: float, speed: float = 1.0
) -> DemandCharge | None:
    """The charge as dispatch wants it; None for a tariff without one. A peak of another month is none."""
    terms = tariff.settings.demand
    if terms is None:
        return None
    start_s, end_s = month_of(now_unix_s, tariff.zone)
    peak_w = billing.peak_w if billing is not None and billing.period_start_unix_s == start_s else 0.0
    usd_per_kw = terms.per_kw_month * tariff.settings.usd_per_currency
    return DemandCharge(usd_per_kw, max(peak_w, terms.reckoned_peak_mw * 1e6), (end_s - now_unix_s) / speed)


def _changed(last: EnergyReading, reading: EnergyReading) -> bool:
    risen_j = reading.energy_j - last.energy_j
    return not 0 <= risen_j <= MOST_W * (reading.at_unix_s - last.at_unix_s)


def _counts(quarter_unix_s: float, tariff: Tariff) -> bool:
    terms = tariff.settings.demand
    if terms is None or terms.on_peak is None:
        return True
    return inside(terms.on_peak, datetime.fromtimestamp(quarter_unix_s, tariff.zone))


def _in_month(billing: Billing, start_s: float) -> Billing:
    """The same in this month: a peak of the month before is forgotten."""
    if billing.period_start_unix_s == start_s:
        return billing
    return replace(billing, period_start_unix_s=start_s, peak_w=0.0)
