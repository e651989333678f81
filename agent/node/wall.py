"""A node's power at the wall as it reports it: its GPUs as they are now, and the host's share as last measured.

The figure comes from the BMC of `[bmc]`, else from what `host_power.py` finds; it is as old as its source, GPUs are not.
"""

from __future__ import annotations

from collections.abc import Sequence

from agent.bmc.reader import BmcReader
from agent.bmc.share import HostShare
from agent.gpu.reading import GpuReading
from agent.node.host_power import FRESH_S, host_power
from agent.settings import GpuSettings
from gridpivot.clock import Clock


class HostWall:
    """This host. `bmc` None: by its own means, if it has any."""

    def __init__(self, settings: GpuSettings, bmc: BmcReader | None, clock: Clock) -> None:
        self._settings, self.bmc, self._clock = settings, bmc, clock
        self._share = HostShare()

    def told(self, readings: Sequence[GpuReading]) -> tuple[float, str] | None:
        """Watts at the wall now and their source; None when nothing measures them. Blocks on the disk."""
        now_s = self._clock.now().monotonic_s
        watts = gpus_w(readings)
        self._share.gpus(watts, now_s)
        source, stale_s = self._measure(now_s)
        share_w = self._share.share_w(now_s, stale_s)
        if watts is None or share_w is None or watts + share_w <= 0.0:
            return None
        return watts + share_w, source

    def _measure(self, now_s: float) -> tuple[str, float]:
        """Take the newest figure; where it is from, and for how long it counts [s]."""
        if self.bmc is not None:
            sample = self.bmc.fresh(now_s)
            if sample is not None:
                self._share.take(sample.power_w, sample.read_at_s)
            return "bmc", self.bmc.settings.stale_s
        found = host_power(self._settings)
        if found is None:
            return "", FRESH_S
        self._share.take(found.power_w, now_s - found.age_s)
        return found.source, FRESH_S


def gpus_w(readings: Sequence[GpuReading]) -> float | None:
    """What all GPUs of a host draw [W]; None when one of them does not tell, since the rest would count as host."""
    watts = [reading.power_w for reading in readings]
    known = [w for w in watts if w is not None]
    return sum(known) if known and len(known) == len(watts) and not any(r.lost for r in readings) else None
