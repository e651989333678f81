"""Hosts of a pool behind exporters, all of them asked over their BMCs: what they draw beside their GPUs, together."""

from __future__ import annotations

from collections.abc import Sequence

from agent.bmc.reader import BmcReader
from agent.bmc.share import HostShare


class PoolHosts:
    """All hosts of one pool: a sum that lacks one is none."""

    def __init__(self, readers: Sequence[BmcReader]) -> None:
        self.readers = tuple(readers)
        self._share = HostShare()
        self._stale_s = max((reader.settings.stale_s for reader in readers), default=0.0)

    def share_w(self, gpus_w: float | None, now_s: float) -> float | None:
        """The hosts' own share now [W], beside what all their GPUs draw [W]; None while a BMC of them is silent."""
        self._share.gpus(gpus_w, now_s)
        samples = [reader.fresh(now_s) for reader in self.readers]
        fresh = [sample for sample in samples if sample is not None]
        if not fresh or len(fresh) < len(samples):
            return None
        self._share.take(sum(sample.power_w for sample in fresh), min(sample.read_at_s for sample in fresh))
        return self._share.share_w(now_s, self._stale_s)
