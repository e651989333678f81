"""Circuits above the machines (PDU, container, feeder) and what each bears, laid out by row. Pure."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from agent.backends import SiteInventory

F64 = npt.NDArray[np.float64]
EVERY_OTHER = "*"


@dataclass(frozen=True, slots=True)
class CircuitLimit:
    """What one circuit of a level (feeder, container, pdu) bears; name "*" stands for all that are not named."""

    level: str
    name: str
    limit_w: float = float("inf")  # all that hangs on it
    rise_w: float = float("inf")  # waking at once
    rise_devices: int = 0  # waking at once; 0 = no limit by count


@dataclass(frozen=True, slots=True)
class Level:
    """One level: row i hangs on circuit of_row[i], -1 = none known; limits by circuit."""

    of_row: npt.NDArray[np.int64]
    limit_w: F64
    rise_w: F64
    rise_devices: F64


def levels_of(inventory: SiteInventory, limits: tuple[CircuitLimit, ...]) -> tuple[Level, ...]:
    """Levels that have limits; a limit on a circuit that nothing hangs on is left out."""
    levels = []
    for grouping in inventory.groupings:
        mine = {limit.name: limit for limit in limits if limit.level == grouping.level}
        if not mine or not grouping.names:
            continue
        rest = mine.get(EVERY_OTHER, CircuitLimit(grouping.level, EVERY_OTHER))
        given = [mine.get(name, rest) for name in grouping.names]
        levels.append(
            Level(
                grouping.index.astype(np.int64),
                np.array([limit.limit_w for limit in given]),
                np.array([limit.rise_w for limit in given]),
                np.array([limit.rise_devices or np.inf for limit in given], dtype=np.float64),
            )
        )
    return tuple(levels)


def achievable_w(levels: tuple[Level, ...], of_row: npt.NDArray[np.integer], top_w: F64, classes: int) -> F64:
    """Most that circuits let each class draw, all classes at once [W] -> (classes,); inf where nothing limits it.

    `of_row` is the class of each row, `top_w` what the row draws in its highest mode. A circuit that cannot bear all
    that hangs on it is shared in proportion, so that what is promised of one class is not promised of another.
    """
    whole = np.bincount(of_row, weights=top_w, minlength=classes)
    least = np.full(classes, np.inf)
    for level in levels:
        known = level.of_row >= 0
        hung_w = np.bincount(level.of_row[known], weights=top_w[known], minlength=len(level.limit_w))
        share = np.minimum(1.0, np.divide(level.limit_w, hung_w, out=np.ones(len(hung_w)), where=hung_w > 0))
        allowed = top_w.copy()
        allowed[known] *= share[level.of_row[known]]
        total = np.bincount(of_row, weights=allowed, minlength=classes)
        least = np.minimum(least, np.where(total < whole * (1.0 - 1e-9), total, np.inf))
    return least
