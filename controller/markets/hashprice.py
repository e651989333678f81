"""Hashprice: from the settings, or day by day from a file of the network's past."""

from __future__ import annotations

import csv
from bisect import bisect_right
from pathlib import Path

from controller.markets.bounds import check_hashprice
from controller.markets.moments import utc_seconds
from gridpivot.errors import BadPrice, SettingsError
from gridpivot.value import hashprice_usd_per_ph_day

DAY_S = 86_400.0


class DailyHashprice:
    """A CSV with `date` and `hashprice_usd_ph_day`, or the columns it follows from.

    Those are `price_usd`, `difficulty`, `subsidy_btc` and, where fees are known by day, `fees_btc_per_block`;
    otherwise each block is reckoned with the fees given here.

    A day's figure is known when the day is over, so the figure in force is the one of the last full day.
    """

    def __init__(self, path: Path, fees_btc_per_block: float = 0.0) -> None:
        self.name = path.name
        self.refused = 0
        self._known_from: list[float] = []
        self._usd_per_ph_day: list[float] = []
        try:
            text = path.read_text(encoding="utf-8-sig")
        except (OSError, UnicodeDecodeError) as error:
            raise SettingsError(f"{path}: cannot be read: {error}; give a daily CSV file") from error
        reader = csv.DictReader(text.splitlines())
        if "date" not in (reader.fieldnames or ()):
            raise SettingsError(f"{path}:1: no column 'date'; expected date,hashprice_usd_ph_day")
        for line, row in enumerate(reader, start=2):
            known = utc_seconds(f"{row['date']}T00:00:00+00:00", f"{path}:{line}") + DAY_S
            try:
                figure = check_hashprice(_figure(row, fees_btc_per_block), f"{path}:{line}")
            except (BadPrice, KeyError, TypeError, ValueError, ZeroDivisionError):
                self.refused += 1
                continue
            if self._known_from and known <= self._known_from[-1]:
                raise SettingsError(f"{path}:{line}: days must ascend, each once; sort the file")
            self._known_from.append(known)
            self._usd_per_ph_day.append(figure)
        if not self._known_from:
            raise SettingsError(f"{path}: holds no usable hashprice; expected date,hashprice_usd_ph_day")

    def at(self, unix_s: float) -> tuple[float, float] | None:
        """Hashprice [USD/PH/day] in force and since when it was known [Unix s]; None before the first full day."""
        at = bisect_right(self._known_from, unix_s) - 1
        return (self._usd_per_ph_day[at], self._known_from[at]) if at >= 0 else None


def _figure(row: dict[str, str], fees_btc_per_block: float) -> float:
    if row.get("hashprice_usd_ph_day"):
        return float(row["hashprice_usd_ph_day"])
    fees = float(row.get("fees_btc_per_block") or fees_btc_per_block)
    return hashprice_usd_per_ph_day(float(row["price_usd"]), float(row["difficulty"]), float(row["subsidy_btc"]), fees)
