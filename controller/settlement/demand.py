"""What AI pools were asked for, interval by interval, and what of it could have been foreseen. Pure.

A level shaped by the local hour with a slow swing from a seed, or a trace that repeats: the same fleet file gives the
same demand for the same time, wherever a window begins.
"""

from __future__ import annotations

from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import numpy as np

from controller.settlement.plant import Demand, Floats

SWING_FADE_S = 3 * 3600.0
EPOCH_UNIX_S = 1_577_836_800.0  # 2020-01-01: swings are counted from here, so that windows agree where they overlap
CHUNK_S = 7 * 86_400.0  # a swing begins anew with every week since then, so that no window needs all of the past
DAYS_BACK = 7
FORGET_S = 2 * 3600.0  # how fast today's distance to the usual demand fades (the swing above forgets within 3 h)


def demand_w(demand: Demand, starts_unix_s: Floats, width_s: float, zone: ZoneInfo) -> Floats:
    """Demand [W at the wall] of each interval -> (n,)."""
    if demand.trace:
        times, watts = np.array(demand.trace).T
        at = np.searchsorted(times, (starts_unix_s - EPOCH_UNIX_S) % demand.trace_span_s, side="right") - 1
        return np.asarray(watts[at])
    level = np.full(len(starts_unix_s), demand.level_w)
    if demand.by_hour:
        level *= np.array(demand.by_hour)[local_hours(starts_unix_s, zone).astype(int)]
    if demand.swing_ratio:
        level *= np.maximum(0.0, 1.0 + demand.swing_ratio * _swing(demand.seed, starts_unix_s, width_s))
    return level


def local_hours(starts_unix_s: Floats, zone: ZoneInfo) -> Floats:
    """Hour of the local day of each moment, minutes as a fraction -> (n,)."""
    return _local(starts_unix_s, zone)[0]


def local_days(starts_unix_s: Floats, zone: ZoneInfo) -> tuple[Floats, Floats]:
    """Local month (1-12, plus 100 times the year) and weekday (Monday 0) of each moment -> (n,) both."""
    _, months, weekdays = _local(starts_unix_s, zone)
    return months, weekdays


def _local(starts_unix_s: Floats, zone: ZoneInfo) -> tuple[Floats, Floats, Floats]:
    """Local hour, year and month, weekday; offsets change on whole hours only, so one look an hour is enough."""
    hours, back = np.unique(starts_unix_s // 3600, return_inverse=True)
    local = [datetime.fromtimestamp(h * 3600, UTC).astimezone(zone) for h in hours.tolist()]
    first = np.array([t.hour + t.minute / 60 for t in local])
    into = (starts_unix_s % 3600) / 3600
    months = np.array([t.year * 100.0 + t.month for t in local])
    return (first[back] + into) % 24, months[back], np.array([float(t.weekday()) for t in local])[back]


def _swing(seed: int, starts_unix_s: Floats, width_s: float) -> Floats:
    """A swing of standard deviation 1 around 0 that forgets itself within `SWING_FADE_S` -> (n,)."""
    keep = float(np.exp(-width_s / SWING_FADE_S))
    step = np.sqrt(1.0 - keep**2)
    per_chunk = int(CHUNK_S // width_s)
    slot = ((starts_unix_s - EPOCH_UNIX_S) // width_s).astype(int)
    chunk = slot // per_chunk
    result = np.empty(len(slot))
    for one in np.unique(chunk).tolist():
        made = np.random.default_rng([seed, max(0, one)]).standard_normal(per_chunk)
        level = 0.0
        for at in range(per_chunk):
            level = keep * level + step * made[at]
            made[at] = level
        inside = chunk == one
        result[inside] = made[slot[inside] - one * per_chunk]
    return result


def demand_ahead_w(past_w: Floats, now_w: float, width_s: float, ahead: int) -> Floats:
    """Forecast [W] for now and `ahead - 1` intervals after it, from demand up to now -> (ahead,).

    The mean of the same time of the last days, to which today's distance fades; without a day of past, now persists.
    """
    per_day = round(86_400 / width_s)
    days = min(DAYS_BACK, len(past_w) // per_day)
    if days == 0:
        return np.full(ahead, now_w)
    usual = past_w[-days * per_day :].reshape(days, per_day).mean(axis=0)
    base = np.resize(usual, ahead)
    fade = np.exp(-np.arange(ahead) * width_s / FORGET_S)
    return np.asarray(np.maximum(0.0, base + (now_w - base[0]) * fade))
