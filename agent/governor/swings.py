"""How far a pool's demand swings up and back within seconds: the reserve that its limits keep above it. Pure.

A rise that stays is followed by limits, seconds later; a rise that is gone before anything could be shed for it can only
be covered by reserve. So a swing is the smaller of the way up and the way back, and the reserve is its 99.9th percentile
over the last hour.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

QUANTILE = 0.999
HOUR = 3600  # samples, one a second
ENOUGH = 900  # samples before what was seen replaces the assumption
# Of the pool's highest power. Less than 3 % at the wall leaves boards within 2 % of their limit, where they count as held
# back (agent/gpu/accounting.py): limits would be raised for nothing, and miners shed for that.
LEAST_RATIO, MOST_RATIO = 0.03, 0.10
EVERY = 30  # samples between two looks at the whole hour


@dataclass(slots=True)
class Swings:
    """One pool's. `window_s` is detection plus shed time: two seconds to see it, five to shed, the meter's lag."""

    window_s: float = 10.0
    steady_w: float | None = None  # mean over the last window
    _recent: deque[tuple[float, float]] = field(default_factory=deque)
    _seen: npt.NDArray[np.float32] = field(default_factory=lambda: np.zeros(HOUR, np.float32))
    _count: int = 0
    _reserve_w: float | None = None

    def take(self, demand_w: float, now_s: float) -> None:
        """Demand at this second [W]."""
        recent = self._recent
        if recent and now_s - recent[-1][0] < 0.9:
            return
        recent.append((now_s, demand_w))
        late = [w for at_s, w in recent if at_s > now_s - self.window_s]
        self.steady_w = sum(late) / len(late)
        began_s = recent[0][0]
        if now_s - began_s < 2.0 * self.window_s:
            return
        before_w = recent[0][1]
        top_w = max(w for at_s, w in recent if at_s - began_s <= self.window_s)
        self._seen[self._count % HOUR] = max(0.0, min(top_w - before_w, top_w - demand_w))
        self._count += 1
        recent.popleft()
        if self._count >= ENOUGH and self._count % EVERY == 0:
            self._reserve_w = float(np.quantile(self._seen[: min(self._count, HOUR)], QUANTILE))

    def reserve_w(self, max_w: float, assumed_ratio: float) -> float:
        """Reserve above demand [W]: what was seen, or the assumption until enough was."""
        if self._reserve_w is None:
            return assumed_ratio * max_w
        return min(MOST_RATIO * max_w, max(LEAST_RATIO * max_w, self._reserve_w))
