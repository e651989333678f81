"""What a host draws beyond its GPUs: a wall figure that is seconds old, set beside what the GPUs drew when it was taken. Pure.

A BMC is asked every ten seconds and averages on its own; GPUs step within one. Used as it stands its figure would hide a
step, or count it twice. So the difference is kept, GPUs are added as they are now, and a figure taken while GPUs moved
cannot do much: the median of five minutes counts. A share that rises (fans) counts at once when GPUs stood still.
"""

from __future__ import annotations

import statistics
from collections import deque

MEAN_S = 10.0  # GPUs count with their mean over so long before the figure was taken
GPUS_KEPT_S = 90.0  # a script may write its figure once a minute
SAMPLES_S = 300.0
STILL_RATIO, STILL_W = 0.05, 50.0  # GPUs that moved less than either in that time stood still


class HostShare:
    """One host, or any load that is modelled in one way and measured in another."""

    def __init__(self) -> None:
        self._gpus: deque[tuple[float, float]] = deque()
        self._samples: deque[tuple[float, float, bool]] = deque()  # taken at, share, whether GPUs stood still

    def gpus(self, watts: float | None, now_s: float) -> None:
        """What GPUs draw now [W]; None = not known, and a figure of this time will teach nothing."""
        if watts is None:
            self._gpus.clear()
            return
        self._gpus.append((now_s, watts))
        while self._gpus[0][0] < now_s - GPUS_KEPT_S:
            self._gpus.popleft()

    def take(self, wall_w: float, taken_at_s: float) -> None:
        """One figure at the wall [W]. The same figure again, or one that no GPU reading stands beside, teaches nothing."""
        if self._samples and taken_at_s <= self._samples[-1][0]:
            return
        beside = [watts for at_s, watts in self._gpus if taken_at_s - MEAN_S <= at_s <= taken_at_s + MEAN_S / 5.0]
        if not beside:
            return
        spread_w = max(beside) - min(beside)
        still = spread_w <= max(STILL_W, STILL_RATIO * max(beside))
        self._samples.append((taken_at_s, wall_w - statistics.fmean(beside), still))
        while self._samples[0][0] < taken_at_s - SAMPLES_S:
            self._samples.popleft()

    def share_w(self, now_s: float, stale_s: float) -> float | None:
        """The share now [W]; None when the newest figure is older than `stale_s`."""
        if not self._samples or now_s - self._samples[-1][0] > stale_s:
            return None
        middle_w = statistics.median(share for _, share, _ in self._samples)
        newest_w = next((share for _, share, still in reversed(self._samples) if still), middle_w)
        return max(middle_w, newest_w)
