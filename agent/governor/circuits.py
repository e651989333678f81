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
