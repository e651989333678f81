"""Watts against modes and presets: what a firmware's watt setting means in the class's terms, and back. Pure.

Families with presets or watt targets aim at the class's curve [W by mode], always at or below: a machine that was
told to stay under a figure must not be set above it because the next preset was nearer.
"""

from __future__ import annotations

from collections.abc import Mapping

from gridpivot.vocabulary import Mode

_HASHING = (Mode.LOW, Mode.NORMAL, Mode.TURBO)
_SLACK = 1.01  # a preset a hair above its mode is that mode


def at_or_below(watts_by_name: Mapping[str, float], limit_w: float) -> str | None:
    """Name of the highest preset that does not exceed `limit_w` [W]; None when all do."""
    fitting = {name: watts for name, watts in watts_by_name.items() if watts <= limit_w}
    return max(fitting, key=lambda name: fitting[name], default=None)


def mode_of_watts(set_w: float | None, mode_power_w: Mapping[Mode, float]) -> Mode:
    """Hashing mode that a setting of `set_w` [W] stands for: the lowest that covers it, the highest above them all.

    Unknown without a setting or without the class's curve.
    """
    curve = sorted((watts, mode) for mode, watts in mode_power_w.items() if mode in _HASHING)
    if set_w is None or not curve:
        return Mode.UNKNOWN
    return next((mode for watts, mode in curve if set_w <= watts * _SLACK), curve[-1][1])
