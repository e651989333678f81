"""Durations as people type them: 90s, 30m, 1.5h, 2d, 1h30m. Pure."""

from __future__ import annotations

import re

from gridpivot.errors import SettingsError

UNIT_S = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0}
_PART = re.compile(r"(\d+(?:\.\d+)?)([smhd])")


def seconds(text: str, option: str = "", *, least_s: float = 0.0, most_s: float = float("inf")) -> float:
    """A duration [s]: 90s, 30m, 1.5h, 2d, or several such as 1h30m; raises SettingsError, which names the `option`."""
    said = f"{option} {text}".strip()
    parts = _PART.findall(text.strip())
    if not parts or "".join(n + u for n, u in parts) != text.strip():
        raise SettingsError(f"{said!r} is not a duration: write it as 90s, 30m, 2h or 1h30m")
    total_s = sum(float(number) * UNIT_S[unit] for number, unit in parts)
    if not least_s <= total_s <= most_s:
        most = f" and at most {spoken(most_s)}" if most_s < float("inf") else ""
        raise SettingsError(f"{said!r}: at least {spoken(least_s)}{most} is wanted")
    return total_s


def spoken(duration_s: float) -> str:
    """A duration in its largest whole unit: 90 s, 30 m, 2 d."""
    for unit in ("d", "h", "m"):
        if duration_s >= UNIT_S[unit] and duration_s % UNIT_S[unit] == 0:
            return f"{duration_s / UNIT_S[unit]:.0f}{unit}"
    return f"{duration_s:g}s"
