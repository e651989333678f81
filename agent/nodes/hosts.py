"""The hosts' own share of a pool's power, beside their GPUs: as the settings have it, or as measured where that is more. Pure.

For power a measured share counts as it is. For limits it is never less than the settings' figure: CPUs and fans follow the
GPUs, so that an idle host's share says nothing about what the host draws under the limits that it would be given. And a
share that was measured counts for an hour after its peak, and for a day after the measuring ended: a BMC that falls
silent is restarted or updated within the day, and until then what it showed last is the best that is known. After that
the settings' figure stands again, as a person gave it.
"""

from __future__ import annotations

import numpy as np

from gridpivot.link.gpu_columns import Floats

PEAK_S = 3600.0
SILENT_S = 86_400.0
STEP_RATIO = 0.02  # of the settings' figure: a peak that moved by less need not reach every GPU


class HostShares:
    """By node. Unknown is NaN."""

    def __init__(self, nodes: int) -> None:
        self._peak_w: Floats = np.full(nodes, np.nan)
        self._peak_at_s: Floats = np.full(nodes, -np.inf)
        self._told_at_s: Floats = np.full(nodes, -np.inf)

    def take(self, node: int, share_w: float, settings_w: float, now_s: float) -> bool:
        """A measured share [W]; True when limits have to be shared out anew."""
        peak_w = float(self._peak_w[node])
        counted = now_s - self._told_at_s[node] <= SILENT_S and peak_w > settings_w
        before_w = peak_w if counted else settings_w
        if not peak_w > share_w or now_s - self._peak_at_s[node] > PEAK_S:
            self._peak_w[node], self._peak_at_s[node] = share_w, now_s
        self._told_at_s[node] = now_s
        after_w = max(settings_w, float(self._peak_w[node]))
        return abs(after_w - before_w) > STEP_RATIO * settings_w

    def most_w(self, settings_w: Floats, now_s: float) -> Floats:
        """What each host may draw beside its GPUs [W]; `settings_w`: by the settings."""
        counts = now_s - self._told_at_s <= SILENT_S
        return np.where(counts, np.fmax(settings_w, self._peak_w), settings_w)
