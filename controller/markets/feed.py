"""Price feeds: what a region's power cost, interval by interval, as far as the present allows to know.

All times are data time, seconds since the Unix epoch, UTC. A feed never answers from an interval that has not
started: `quote` and `seen` look back only.
"""

from __future__ import annotations

import csv
import gzip
import io
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from controller.markets.bounds import HIGH_USD_PER_MWH, LOW_USD_PER_MWH, check_price, check_series
from gridpivot.errors import BadPrice, SettingsError

Floats = NDArray[np.float64]
MAX_BYTES = 512 * 1024 * 1024  # a small .gz can unpack to anything
MEMORY_S = 14 * 86_400.0  # how far back the hour-of-day means reach


@dataclass(frozen=True, slots=True)
class Quote:
    """One price [USD/MWh] and the start of its interval [Unix s]."""

    usd_per_mwh: float
    since_unix_s: float


class PriceFeed(Protocol):
    """What a market feed can do; one more market is one more class with these three."""

    @property
    def name(self) -> str:
        """Where its prices come from, for a person."""
        ...

    def quote(self, unix_s: float) -> Quote | None:
        """The newest price known at `unix_s`; None before the first."""
        ...

    def usual(self, unix_s: float) -> Floats | None:
        """Mean price [USD/MWh] by hour of the day (UTC) of what had been seen by `unix_s` -> (24,), or None."""
        ...


@dataclass(frozen=True, slots=True)
class FixedFeed:
    """One price for ever, from the settings."""

    usd_per_mwh: float
    name: str = "fixed"

    def quote(self, unix_s: float) -> Quote | None:
        """Always the same, always fresh."""
        return Quote(self.usd_per_mwh, unix_s)

    def usual(self, unix_s: float) -> Floats | None:
        """Flat."""
        return np.full(24, self.usd_per_mwh)


class CsvFeed:
    """A CSV of `interval_start_utc,price_usd_per_mwh` (also .gz), read whole; about 20 bytes a row in memory."""

    def __init__(
        self,
        path: Path,
        offset_usd_per_mwh: float = 0.0,
        low: float = LOW_USD_PER_MWH,
        high: float = HIGH_USD_PER_MWH,
    ) -> None:
        self.name = path.name
        self.refused = 0  # rows whose price cannot be; the price before them stays
        starts: list[float] = []
        prices: list[float] = []
        for line, start, raw in _rows(path):
            try:
                price = check_price(raw, f"{path}:{line}", None, low, high)
            except BadPrice:
                self.refused += 1
                continue
            if starts and start == starts[-1]:
                if price != prices[-1]:
                    raise SettingsError(f"{path}:{line}: the interval stands twice with two prices; keep one")
                continue
            if starts and start < starts[-1]:
                raise SettingsError(f"{path}:{line}: intervals must ascend in UTC; sort the file")
            starts.append(start)
            prices.append(price)
        if not starts:
            raise SettingsError(f"{path}: holds no usable price; expected interval_start_utc,price_usd_per_mwh")
        try:
            check_series(prices, str(path))
        except BadPrice as error:
            raise SettingsError(f"{error}; convert them to USD per MWh") from error
        self.starts_unix_s: Floats = np.array(starts)
        self.usd_per_mwh: Floats = np.array(prices) + offset_usd_per_mwh

    def quote(self, unix_s: float) -> Quote | None:
        """The interval that started last; past the file's end its last one, ageing."""
        at = int(np.searchsorted(self.starts_unix_s, unix_s, side="right")) - 1
        if at < 0:
            return None
        return Quote(float(self.usd_per_mwh[at]), float(self.starts_unix_s[at]))

    def usual(self, unix_s: float) -> Floats | None:
        """Hour-of-day means over the fortnight before `unix_s`; hours not seen in it take the mean of all that were."""
        first = int(np.searchsorted(self.starts_unix_s, unix_s - MEMORY_S, side="left"))
        last = int(np.searchsorted(self.starts_unix_s, unix_s, side="right"))
        if last <= first:
            return None
        hours = (self.starts_unix_s[first:last] // 3600 % 24).astype(int)
        count = np.bincount(hours, minlength=24)
        total = np.bincount(hours, self.usd_per_mwh[first:last], 24)
        mean = float(self.usd_per_mwh[first:last].mean())
        return np.where(count > 0, total / np.maximum(count, 1), mean)


def _rows(path: Path) -> Iterator[tuple[int, float, float]]:
    """(line, interval start [Unix s], price) of each row; raises SettingsError with the line of what cannot be read."""
    try:
        raw = path.read_bytes()
        if path.suffix == ".gz":
            with gzip.open(io.BytesIO(raw)) as unpacked:
                raw = unpacked.read(MAX_BYTES + 1)
    except (OSError, EOFError) as error:
        raise SettingsError(f"{path}: cannot be read: {error}; give a CSV file, plain or .gz") from error
    if len(raw) > MAX_BYTES:
        raise SettingsError(f"{path}: unpacks to over {MAX_BYTES >> 20} MiB; give a shorter file")
    reader = csv.reader(io.StringIO(raw.decode("utf-8-sig", errors="replace")))
    header = [cell.strip() for cell in next(reader, [])]
    try:
        start_at, price_at = header.index("interval_start_utc"), header.index("price_usd_per_mwh")
    except ValueError:
        raise SettingsError(
            f"{path}:1: columns are {', '.join(header) or 'missing'}; expected interval_start_utc,price_usd_per_mwh"
        ) from None
    for line, row in enumerate(reader, start=2):
        if not row:
            continue
        if len(row) <= max(start_at, price_at):
            raise SettingsError(f"{path}:{line}: too few columns; the row looks cut off")
        yield line, utc_seconds(row[start_at], f"{path}:{line}"), _number(row[price_at])


def utc_seconds(text: str, where: str) -> float:
    """Unix seconds of an ISO 8601 time in UTC; raises SettingsError for local or ambiguous times.

    Exchanges publish wrong offsets and doubled hours on the days when clocks change, so nothing but UTC is taken.
    """
    try:
        moment = datetime.fromisoformat(text.strip())
    except ValueError:
        raise SettingsError(f"{where}: {text!r} is not a time; expected 2024-08-20T23:30Z") from None
    if moment.tzinfo is None:
        raise SettingsError(f"{where}: {text!r} has no zone and is ambiguous when clocks change; write UTC (Z)")
    if moment.utcoffset() != timedelta(0):
        raise SettingsError(f"{where}: {text!r} is not UTC; convert it, offsets around clock changes cannot be trusted")
    return moment.timestamp()


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return float("nan")
