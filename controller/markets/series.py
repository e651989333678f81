"""Prices over time from any file that has a time and a price column: read, checked, repaired or refused.

What can be repaired without guessing is, and each repair is told in one line; everything else is refused with file,
line and remedy, so that no plan or backtest stands on a misread column. Blocking: for threads and command lines.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from controller.markets.bounds import HIGH_USD_PER_MWH, LOW_USD_PER_MWH, PriceUnit, check_unit
from controller.markets.moments import looks_like_time, newest_first, runs, unix_seconds
from controller.markets.table_file import Cell, Table, read_table
from controller.markets.zones import zone
from gridpivot.errors import BadPrice, SettingsError

Floats = NDArray[np.float64]
HOUR_S = 3600.0
NOTHING = {"", "nan", "na", "n/a", "null", "none", "-", "--"}


@dataclass(frozen=True, slots=True)
class Gap:
    """A time without any interval [Unix s]."""

    from_unix_s: float
    until_unix_s: float


@dataclass(frozen=True, slots=True, eq=False)
class PriceSeries:
    """Prices by interval: `starts_unix_s` ascend, `usd_per_mwh` belongs to each; (n,) both.

    `width_s` is the usual interval; `repaired` says in one line each what was left out or put right, and where;
    `skipped` counts rows whose price was none. Prices stay in the file's own currency.
    """

    name: str
    starts_unix_s: Floats
    usd_per_mwh: Floats
    width_s: float
    gaps: tuple[Gap, ...] = ()
    repaired: tuple[str, ...] = ()
    skipped: int = 0


def read_prices(
    path: Path,
    *,
    time_column: str | None = None,
    price_column: str | None = None,
    time_zone: str | None = None,
    price_unit: PriceUnit | None = None,
    low: float = LOW_USD_PER_MWH,
    high: float = HIGH_USD_PER_MWH,
) -> PriceSeries:
    """Prices [USD/MWh] of a CSV (plain or .gz) or Parquet file; raises SettingsError, one line with file:line.

    Columns that are not named are guessed, and refused with the names of all when more than one could be meant.
    `time_zone` (IANA) is for times without offset. `price_unit` None takes USD/MWh and refuses what looks like
    another unit; a unit that is given is believed and converted.
    """
    table = read_table(path)
    if not table.lines:
        raise SettingsError(f"{path}:1: holds no usable price; expected interval_start_utc,price_usd_per_mwh")
    time_name = _column(table, time_column, "time_column") or _guess_time(table)
    price_name = _column(table, price_column, "price_column") or _guess_price(table, time_name)
    try:
        local = zone(time_zone) if time_zone is not None else None
    except SettingsError as error:
        raise SettingsError(f"{path}:1: time_zone {error}") from None
    turned = newest_first(table.column(time_name))
    if turned:
        table = table.reversed()
    prices, told = _numbers(table, price_name)
    if turned:
        told.insert(0, f"{path}:1: rows stand newest first; read from the last one up")
    moments = unix_seconds(table.column(time_name), table.where, local)
    told += moments.told
    numbers = prices[~np.isnan(prices)]
    try:
        prices = prices * check_unit(numbers, _span_s(moments.unix_s), price_name, price_unit)
    except BadPrice as error:
        raise SettingsError(f"{path}:1: {error}") from error
    outside = np.flatnonzero((prices < low) | (prices > high)).tolist()
    told += [
        f"{table.where(first, last)}: price {prices[first]:g} USD/MWh is outside {low:g} to {high:g}; left out: "
        "check its unit"
        for first, last in runs(outside)
    ]
    prices[outside] = np.nan
    skipped = int(np.isnan(prices).sum())
    rows = np.flatnonzero(~np.isnan(prices) & ~np.isnan(moments.unix_s))
    if 2 * len(outside) > len(prices) or not len(rows):
        raise SettingsError(f"{path}:1: holds no usable price, or most are outside {low:g} to {high:g}; check the unit")
    if moments.interleaved:
        rows = rows[np.argsort(moments.unix_s[rows], kind="stable")]
    rows, twice = _once(table, rows, moments.unix_s, prices)
    starts, kept = moments.unix_s[rows], prices[rows]
    width_s = usual_width_s(np.unique(moments.unix_s[~np.isnan(moments.unix_s)]))  # rows without a price count too
    if re.search(r"end", time_name, re.I) and not re.search(r"start|begin", time_name, re.I):
        starts = starts - width_s
        told.append(f"{path}:1: column {time_name!r} gives ends of intervals; moved back by {width_s:g} s to starts")
    gaps = find_gaps(starts, width_s)
    told += twice
    for gap in gaps:
        before = int(rows[np.searchsorted(starts, gap.from_unix_s) - 1])
        told.append(f"{table.where(before)}: no interval from {_utc(gap.from_unix_s)} to {_utc(gap.until_unix_s)}")
    return PriceSeries(path.name, starts, kept, width_s, gaps, tuple(told), skipped)


def usual_width_s(starts_unix_s: Floats) -> float:
    """The most frequent distance between starts [s]; an hour for a single one."""
    if len(starts_unix_s) < 2:
        return HOUR_S
    widths, counts = np.unique(np.diff(starts_unix_s), return_counts=True)
    return float(widths[int(np.argmax(counts))])


def find_gaps(starts_unix_s: Floats, width_s: float) -> tuple[Gap, ...]:
    """Where nothing stands for longer than the usual interval; hours in a row beside quarter hours are no gap."""
    steps = np.diff(starts_unix_s)
    hourly = steps == HOUR_S
    in_row = hourly & (np.append(hourly[1:], False) | np.insert(hourly[:-1], 0, False)) if len(steps) else hourly
    found = np.flatnonzero((steps > 1.5 * width_s) & ~in_row)
    return tuple(Gap(float(starts_unix_s[at]) + width_s, float(starts_unix_s[at + 1])) for at in found)


def _column(table: Table, name: str | None, option: str) -> str | None:
    if name is not None and name not in table.names:
        raise SettingsError(f"{table.path}:1: no column {name!r}; {option} can be one of: {', '.join(table.names)}")
    return name


def _guess_time(table: Table) -> str:
    """The column of interval starts; raises SettingsError when none or several could be."""
    times = [n for n in table.names if looks_like_time(_first(table.column(n)))]
    ranks = (r"start|begin", r"utc", r"^(date|time|datetime|timestamp)$", r"^(?!.*end)")
    for pattern in ranks:
        found = [n for n in times if re.search(pattern, n, re.I)]
        if len(found) > 1:
            found = [n for n in found if re.search("utc", n, re.I)] or found
        if len(found) == 1:
            return found[0]
        if found:
            break
    if len(times) == 1:
        return times[0]
    trouble = "more than one column could be the time" if times else "no column looks like a time"
    shown = str(_first(table.column(table.names[0])))
    hint = f" (the first holds {shown!r})" if not times else ""
    raise SettingsError(
        f"{table.path}:1: {trouble}{hint}; columns are {', '.join(table.names)}; give time_column"
        " (or a file with interval_start_utc,price_usd_per_mwh)"
    )


def _guess_price(table: Table, time_name: str) -> str:
    """The column of prices; raises SettingsError when none or several could be."""
    others = [n for n in table.names if n != time_name and not looks_like_time(_first(table.column(n)))]
    numeric = [n for n in others if _number(_first(table.column(n)), table.decimal_comma) is not None]
    named = [n for n in others if re.search(r"price|lmp|spp|usd|eur|mwh", n, re.I)]
    for found in (named, numeric):
        if len(found) == 1:
            return found[0]
        if found:
            break
    trouble = "more than one column could be the price" if named or numeric else "no column looks like a price"
    raise SettingsError(
        f"{table.path}:1: {trouble}; columns are {', '.join(table.names)}; give price_column"
        " (or a file with interval_start_utc,price_usd_per_mwh)"
    )


def _first(cells: Sequence[Cell]) -> Cell:
    """The first cell that holds something."""
    return next((c for c in cells if c is not None and str(c).strip().lower() not in NOTHING), None)


def _number(cell: Cell, decimal_comma: bool) -> float | None:
    """A price cell as a number; None for one that is none."""
    if not isinstance(cell, str):
        return float(cell) if isinstance(cell, int | float) else None
    text = cell.strip().strip("$€£ ").replace("\N{MINUS SIGN}", "-")
    if "," in text:
        thousands = re.fullmatch(r"[-+]?\d{1,3}(,\d{3})+(\.\d+)?", text)
        if "." in text and text.rindex(".") < text.index(","):
            text = text.replace(".", "").replace(",", ".")
        else:
            text = text.replace(",", "" if thousands and not (decimal_comma and "." not in text) else ".")
    try:
        return float(text)
    except ValueError:
        return None


def _numbers(table: Table, name: str) -> tuple[Floats, list[str]]:
    """Prices with NaN where there is none, and what to tell of those; raises SettingsError for a column of words."""
    cells = table.column(name)
    try:
        prices = np.array(cells, dtype=np.float64)
    except (TypeError, ValueError):
        read = [_number(cell, table.decimal_comma) for cell in cells]
        prices = np.array([np.nan if number is None else number for number in read])
    prices[~np.isfinite(prices)] = np.nan
    missing = np.flatnonzero(np.isnan(prices)).tolist()
    if len(missing) == len(cells) or 2 * len(missing) > len(cells) > 10:
        raise SettingsError(
            f"{table.where(missing[0])}: column {name!r} holds no usable price in {len(missing)} of {len(cells)} rows;"
            " give price_column or repair the file"
        )
    told = [
        f"{table.where(first, last)}: no number as price in {last - first + 1} rows; left as a gap"
        for first, last in runs(missing)
    ]
    return prices, told


def _once(table: Table, rows: NDArray[np.intp], unix_s: Floats, prices: Floats) -> tuple[NDArray[np.intp], list[str]]:
    """Rows without repetitions, and what to tell of those; raises SettingsError for a contradiction or a disorder."""
    steps = np.diff(unix_s[rows])
    if np.any(steps < 0):
        at = int(rows[int(np.argmax(steps < 0)) + 1])
        raise SettingsError(f"{table.where(at)}: intervals must ascend in time; sort the file")
    repeated = np.flatnonzero(steps == 0) + 1
    told = []
    for at in repeated.tolist():
        row, before = int(rows[at]), int(rows[at - 1])
        if prices[row] != prices[before]:
            raise SettingsError(
                f"{table.where(row)}: the interval {_utc(float(unix_s[row]))} stands twice with two prices "
                f"({prices[before]:g} in line {table.lines[before]}, {prices[row]:g} here); keep one, and one location in a file"
            )
        told.append(f"{table.where(row)}: repeats line {table.lines[before]} at the same price; counted once")
    return np.delete(rows, repeated), told


def _span_s(unix_s: Floats) -> float:
    known = unix_s[~np.isnan(unix_s)]
    return float(known.max() - known.min()) if len(known) else 0.0


def _utc(unix_s: float) -> str:
    return f"{datetime.fromtimestamp(unix_s, UTC):%Y-%m-%dT%H:%MZ}"
