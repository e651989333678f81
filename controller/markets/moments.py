"""Times as files write them, turned into UTC: offsets, local clocks, the doubled hour and the missing one. Pure.

A local clock is followed by the order of the rows: of an hour that stands twice in autumn the first pass is the
earlier one; rows in the hour that spring skips are left out and told. Exchanges publish wrong offsets around those
days: then, and only if the zone is known, the local clock is followed in place of the offsets.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

import numpy as np
from numpy.typing import NDArray

from controller.markets.table_file import Cell
from gridpivot.errors import SettingsError

Floats = NDArray[np.float64]
Where = Callable[..., str]  # where(row) or where(first, last): file:line
DAY_S = 86_400
YEARS = range(1970, 2200)  # clocks outside have no table

_CLOCK = r"(?:[ T]+(\d{1,2}):(\d{2})(?::(\d{2})(?:\.\d*)?)?\s*([AaPp][Mm])?)?\s*(Z|\+00:00)?"
_YEAR_FIRST = re.compile(r"(\d{4})[/.-](\d{1,2})[/.-](\d{1,2})" + _CLOCK)
_YEAR_LAST = re.compile(r"(\d{1,2})([/.-])(\d{1,2})\2(\d{4})" + _CLOCK)


@dataclass(frozen=True, slots=True)
class Moments:
    """Unix seconds of each row (NaN = left out), what was repaired, and whether rows may be put in order of time."""

    unix_s: Floats
    told: tuple[str, ...] = ()
    interleaved: bool = False


def looks_like_time(cell: Cell) -> bool:
    """Whether a cell can be read as a date with or without a clock time. Numbers alone are not taken for times."""
    if isinstance(cell, datetime | date):
        return True
    if not isinstance(cell, str) or cell.strip().replace(".", "", 1).lstrip("-").isdecimal():
        return False
    text = _plain(cell)
    try:
        datetime.fromisoformat(text)
    except ValueError:
        return _YEAR_FIRST.fullmatch(text) is not None or _YEAR_LAST.fullmatch(text) is not None
    return True


def unix_seconds(cells: Sequence[Cell], where: Where, zone: ZoneInfo | None) -> Moments:
    """Interval starts [Unix s] of a column; raises SettingsError with the line of what cannot be read.

    Times with an offset or Z need no zone; a local clock does. Digits alone are Unix seconds or milliseconds.
    """
    read = _read(cells, where)
    if not read:
        return Moments(np.empty(0))
    aware = [moment.tzinfo is not None for moment in read]
    if not all(aware):
        if any(aware):
            odd = aware.index(not aware[0])
            raise SettingsError(f"{where(odd)}: times with and without offset are mixed; write all of them in UTC (Z)")
        if zone is None:
            raise SettingsError(
                f"{where(0)}: {str(cells[0]).strip()!r} has no zone and is ambiguous when clocks change; "
                "write UTC (Z), or give time_zone (such as America/Chicago)"
            )
        return follow_clock(read, where, zone)
    unix_s = np.array([moment.timestamp() for moment in read])
    back = np.flatnonzero(np.diff(unix_s) <= 0)
    if not len(back) or all(moment.utcoffset() == timedelta(0) for moment in read):
        return Moments(unix_s)
    # Repeated rows also stand still; only where the clock itself gives an order are the offsets what is wrong.
    if zone is None:
        at = int(back[0]) + 1
        if unix_s[at] == unix_s[at - 1] and read[at].replace(tzinfo=None) == read[at - 1].replace(tzinfo=None):
            return Moments(unix_s)
        raise SettingsError(
            f"{where(at)}: time runs back from {cells[at - 1]} to {cells[at]}; offsets around clock changes are "
            "often wrong: give time_zone (such as America/Chicago) and the local clock is followed, or sort the file"
        )
    followed = follow_clock([moment.replace(tzinfo=None) for moment in read], where, zone)
    kept = followed.unix_s[~np.isnan(followed.unix_s)]
    if np.any(np.diff(kept) < 0):
        return Moments(unix_s)
    wrong = np.flatnonzero(followed.unix_s != unix_s)
    if not len(wrong):
        return Moments(unix_s)
    line = (
        f"{where(int(wrong[0]), int(wrong[-1]))}: {len(wrong)} offsets contradict the clock of {zone.key}; "
        "the local clock was followed, the first pass of a doubled hour first"
    )
    return Moments(followed.unix_s, (line, *followed.told), followed.interleaved)


def newest_first(cells: Sequence[Cell]) -> bool:
    """Whether a column of at least three times begins with the newest; False for what cannot be read."""
    try:
        read = [moment.replace(tzinfo=None) for moment in _read((*cells[:3], *cells[-1:]), lambda *_: "")]
    except SettingsError:
        return False
    return len(cells) >= 3 and read[0] > read[1] > read[2] and read[0] > read[-1]


def follow_clock(local: Sequence[datetime], where: Where, zone: ZoneInfo) -> Moments:
    """Unix seconds of naive local times in the order of their rows."""
    local_s = np.array(local, dtype="datetime64[s]").astype(np.int64)
    days, of_day = np.unique(local_s // DAY_S, return_inverse=True)
    offsets = np.array([_steady_offset_s(int(day), zone) for day in days])[of_day]
    unix_s = local_s - offsets
    told: list[str] = []
    seen: dict[datetime, int] = {}
    skipped: list[int] = []
    second: set[date] = set()
    doubled: dict[date, int] = {}
    interleaved, last_fold = False, 0
    for row in np.flatnonzero(np.isnan(offsets)).tolist():
        early = local[row].replace(tzinfo=zone, fold=0).timestamp()
        late = local[row].replace(tzinfo=zone, fold=1).timestamp()
        if early > late:
            skipped.append(row)
            continue
        unix_s[row] = early
        if early < late:
            pass_ = seen[local[row]] = seen.get(local[row], -1) + 1
            day = local[row].date()
            doubled.setdefault(day, row)
            if pass_:
                second.add(day)
                unix_s[row] = late
            interleaved |= pass_ == 0 and last_fold > 0
            last_fold = pass_
        else:
            last_fold = 0
    for first, last in runs(skipped):
        told.append(
            f"{where(first, last)}: {local[first]:%Y-%m-%d %H:%M} does not exist in {zone.key}, where clocks go forward "
            f"then; {last - first + 1} rows left out: check the time zone if that looks wrong"
        )
    for day, row in doubled.items():
        if day not in second:
            told.append(
                f"{where(row)}: the hour that clocks repeat on {day} in {zone.key} stands once; taken as its first pass"
            )
    if interleaved:
        told.append(f"{where(0)}: rows of a doubled hour stand interleaved; put in order of time")
    return Moments(unix_s, tuple(told), interleaved)


def runs(rows: Sequence[int]) -> list[tuple[int, int]]:
    """Consecutive rows as (first, last) pairs."""
    found: list[tuple[int, int]] = []
    for row in rows:
        if found and row == found[-1][1] + 1:
            found[-1] = (found[-1][0], row)
        else:
            found.append((row, row))
    return found


def utc_seconds(text: str, where: str) -> float:
    """Unix seconds of one time with offset or Z; raises SettingsError for a local one."""
    return float(unix_seconds((text,), lambda *_: where, None).unix_s[0])


def _steady_offset_s(day: int, zone: ZoneInfo) -> float:
    """Offset [s] of a local day far from any change of clocks; NaN near one."""
    noon = datetime(1970, 1, 1, 12) + timedelta(days=day)  # noqa: DTZ001 - a local clock is what is asked about
    found = {zone.utcoffset(noon + timedelta(days=away)) for away in (-1, 0, 1)}
    offset = found.pop()
    return float("nan") if found or offset is None else offset.total_seconds()


def _read(cells: Sequence[Cell], where: Where) -> list[datetime]:
    read: list[datetime] = []
    day_first: bool | None = None
    for row, cell in enumerate(cells):
        if isinstance(cell, datetime) and cell.year in YEARS:
            read.append(cell)
            continue
        text = _plain(cell)
        moment = _unix(cell, text)
        if moment is None:
            try:
                moment = datetime.fromisoformat(text)
            except ValueError:
                if day_first is None and (found := _YEAR_LAST.fullmatch(text)):
                    day_first = found[2] == "." or _day_first(cells, where, row)
                moment = _loose(text, bool(day_first))
        if moment is None or moment.year not in YEARS:
            raise SettingsError(f"{where(row)}: {str(cell).strip()!r} is not a time; expected 2024-08-20T23:30Z")
        read.append(moment)
    return read


def _plain(cell: Cell) -> str:
    text = str(cell).strip() if cell is not None else ""
    return text[:-3].rstrip() + "+00:00" if text.endswith(("UTC", "GMT")) else text


def _unix(cell: Cell, text: str) -> datetime | None:
    number = float(cell) if isinstance(cell, int | float) else float(text) if text.isdecimal() else 0.0
    if not 1e8 <= number < 1e14 or (isinstance(cell, str) and len(text) not in (9, 10, 13)):
        return None
    return datetime.fromtimestamp(number / 1000 if number > 1e11 else number, UTC)


def _day_first(cells: Sequence[Cell], where: Where, row: int) -> bool:
    """Whether 3/4/2024 is in April, from the whole column; raises SettingsError when nothing tells."""
    for cell in cells:
        found = _YEAR_LAST.fullmatch(_plain(cell))
        if found and int(found[1]) > 12:
            return True
        if found and int(found[3]) > 12:
            return False
    raise SettingsError(f"{where(row)}: {cells[row]!r} may be day or month first; write years first: 2024-08-20 23:30")


def _loose(text: str, day_first: bool) -> datetime | None:
    """A time that is not ISO 8601 but clear: 2012/1/9 0:00, 20.08.2024 23:30, 8/20/2024 11:30 PM, 24:00."""
    if found := _YEAR_FIRST.fullmatch(text):
        year, month, day, *clock = found.groups()
    elif found := _YEAR_LAST.fullmatch(text):
        first, _, second, year, *clock = found.groups()
        day, month = (first, second) if day_first else (second, first)
    else:
        return None
    hour, minute, second_ = (int(part or 0) for part in clock[:3])
    half = (clock[3] or "").lower()
    if half:
        hour = hour % 12 + (12 if half == "pm" else 0)
    try:
        utc = UTC if clock[4] else None
        moment = datetime(int(year), int(month), int(day), hour % 24, minute, second_, tzinfo=utc)
    except ValueError:
        return None
    return moment + timedelta(days=1) if hour == 24 and minute == 0 else moment if hour < 24 else None
