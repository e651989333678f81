"""How long deferrable work has waited: a roll-up tells how much waits, never since when. Pure.

The oldest is taken to be done first. What is there at the first look has waited for half of its time, as nobody knows.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from controller.dispatch.terms import WorkDue

TOGETHER_S = 900.0  # what came within a quarter of an hour is one piece
FIRST_SHARE = 0.5
DEFER_S = 86_400.0  # how long work may wait of which nobody says: what an agent's settings say by themselves


@dataclass(frozen=True, slots=True)
class Piece:
    """Work [GPU-h at full throughput] that came together [Unix s]."""

    came_unix_s: float
    gpu_h: float


def waited(
    pieces: Sequence[Piece] | None, waits_gpu_h: float | None, at_unix_s: float, defer_s: float
) -> tuple[Piece, ...] | None:
    """Pieces after one more look, oldest first; `pieces` None = never looked. Unknown work (None) changes nothing."""
    if waits_gpu_h is None or not math.isfinite(waits_gpu_h) or waits_gpu_h < 0.0:
        return None if pieces is None else tuple(pieces)
    if pieces is None:
        return (Piece(at_unix_s - FIRST_SHARE * defer_s, waits_gpu_h),) if waits_gpu_h > 0.0 else ()
    kept = list(pieces)
    done = sum(p.gpu_h for p in kept) - waits_gpu_h
    while kept and done >= kept[0].gpu_h:
        done -= kept.pop(0).gpu_h
    if kept and done > 0.0:
        kept[0] = replace(kept[0], gpu_h=kept[0].gpu_h - done)
    elif done < 0.0:
        if kept and at_unix_s - kept[-1].came_unix_s < TOGETHER_S:
            kept[-1] = replace(kept[-1], gpu_h=kept[-1].gpu_h - done)
        else:
            kept.append(Piece(at_unix_s, -done))
    return tuple(kept)


def due(pieces: Sequence[Piece], defer_s: float, at_unix_s: float, speed: float = 1.0) -> tuple[WorkDue, ...]:
    """When each piece is due [real s from now]; late ones at 0 or before."""
    return tuple(WorkDue((p.came_unix_s + defer_s - at_unix_s) / speed, p.gpu_h) for p in pieces)
