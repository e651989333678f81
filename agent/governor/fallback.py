"""Wall power that each AI pool falls back to when nobody governs: the plan's, clipped to what the site bears now. Pure.

fallback limits + baselines + mining as last commanded + worst overhead <= ceiling. The plan was made for the ceiling and
the mining of its moment; the agent knows both now.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from agent.governor.state import Picture, Policy
from gridpivot.curves import AiPool
from gridpivot.vocabulary import AiPriority

RAISE_AFTER_S = 60.0
PRIORITIES = tuple(AiPriority)


def fallbacks_w(
    pools: Sequence[AiPool], planned_w: Sequence[float | None], picture: Picture, policy: Policy, ceiling_w: float
) -> list[float]:
    """Per pool [W at the wall]: the plan's fallback, or the lowest that the pool's limits allow where there is none.

    Where all of them do not fit under the ceiling, every pool keeps its lowest and the guaranteed get the rest first.
    """
    wanted = [p.min_w if w is None else min(p.max_w, max(p.min_w, w)) for p, w in zip(pools, planned_w, strict=True)]
    mining_w = picture.mining_w + picture.wake_in_flight_w
    overhead_w = policy.overhead_ratio * (picture.mining_w + picture.ai_w)
    other_w = max(0.0, picture.assumed_w - picture.mining_w - picture.ai_w - overhead_w)
    room_w = (ceiling_w - other_w) / (1.0 + policy.overhead_ratio) - mining_w
    if sum(wanted) <= room_w:
        return wanted
    given = [p.min_w for p in pools]
    left_w = room_w - sum(given)
    for index in sorted(range(len(pools)), key=lambda k: PRIORITIES.index(pools[k].priority)):
        more_w = min(max(0.0, left_w), wanted[index] - given[index])
        given[index] += more_w
        left_w -= more_w
    return given


@dataclass(slots=True)
class SlowRise:
    """A figure that falls at once and rises only to the least of the last minute, so that noise is not written down."""

    held: float | None = None
    _least: float = 0.0
    _since_s: float = 0.0

    def take(self, value: float, now_s: float) -> float:
        """The figure to use now."""
        if self.held is None or value <= self.held:
            self.held, self._least, self._since_s = value, float("inf"), now_s
            return value
        self._least = min(self._least, value)
        if now_s - self._since_s >= RAISE_AFTER_S:
            self.held, self._least, self._since_s = self._least, float("inf"), now_s
        return self.held
