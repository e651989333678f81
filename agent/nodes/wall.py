"""What nodes draw at the wall, and which of them are off: their own figures, their BMCs', else the settings' share. Pure.

A host's figure counts while it makes sense beside its GPUs. A node that does not report draws what its BMC reads, if that
makes sense, and may draw what its limits allow. It counts as off only while a fresh reading says both: power state off, and
watts that no running host gets down to. The moment either is gone it may draw its most: limits do not outlive a power cycle.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from agent.bmc.reader import BmcReader, BmcSample
from agent.bmc.share import HostShare
from agent.gpu.accounting import IDLE_W
from agent.nodes.hosts import HostShares
from agent.nodes.table import Node, NodeTable
from gridpivot.link.gpu_columns import Bools, Floats

LEAST_RATIO = 0.9  # a host's own figure below this share of its GPUs' sum is not believed
OFF_RATIO, OFF_LEAST_W = 0.25, 200.0  # of the host's share by the settings: a host that draws less is not running


@dataclass(slots=True)
class _Asked:
    """A node whose BMC this agent asks itself."""

    reader: BmcReader
    share: HostShare


class NodeWall:
    """Beside the table: one row a node."""

    def __init__(self, table: NodeTable, host_w_per_gpu: Sequence[float], bmcs: Sequence[BmcReader]) -> None:
        """`host_w_per_gpu`: of the settings, by node."""
        self._table, self._per_gpu_w = table, np.array(host_w_per_gpu, np.float64)
        by_name = {node.name: node.index for node in table.nodes}
        self._asked = {by_name[reader.name]: _Asked(reader, HostShare()) for reader in bmcs}
        self.shares = HostShares(len(table.nodes))
        self.coming: set[int] = set()  # off; the governor is asked for room
        self.waking: set[int] = set()  # off; charged as if they ran, before they are switched on

    def settings_w(self) -> Floats:
        """The hosts' own share by the settings [W]; a GPU that falls off the bus takes no fan with it."""
        return np.array([node.gpu_count for node in self._table.nodes]) * self._per_gpu_w

    def hosts_w(self, now_s: float) -> Floats:
        """What the hosts may draw beside their GPUs [W]: for limits."""
        return self.shares.most_w(self.settings_w(), now_s)

    def reader(self, node: Node) -> BmcReader | None:
        """Its BMC, where this agent asks it."""
        asked = self._asked.get(node.index)
        return None if asked is None else asked.reader

    @property
    def readers(self) -> list[BmcReader]:
        """All of them."""
        return [asked.reader for asked in self._asked.values()]

    def off_most_w(self, node: Node) -> float:
        """More than this, and a host is running, whatever its power state says [W]."""
        return max(OFF_LEAST_W, OFF_RATIO * node.gpu_count * float(self._per_gpu_w[node.index]))

    def silent_w(self, now_s: float) -> Floats:
        """What nodes draw that do not report, by their BMCs [W]; NaN where none tells, or what it tells makes no sense."""
        watts: Floats = np.full(len(self._table.nodes), np.nan)
        for index in self._asked:
            node = self._table.nodes[index]
            sample = self._unconnected(node, now_s)
            if sample is not None and (sample.on is False or sample.power_w > self.off_most_w(node)):
                watts[index] = sample.power_w
        return watts

    def off(self, now_s: float) -> Bools:
        """Nodes that are off, without those that are charged already because they are to be switched on."""
        found: Bools = np.zeros(len(self._table.nodes), bool)
        for index in self._asked:
            found[index] = index not in self.waking and self.is_off(self._table.nodes[index], now_s)
        return found

    def is_off(self, node: Node, now_s: float) -> bool:
        """Whether power state and watts of a fresh reading say so, and no session is up."""
        sample = self._unconnected(node, now_s)
        return sample is not None and sample.on is False and sample.power_w <= self.off_most_w(node)

    def _unconnected(self, node: Node, now_s: float) -> BmcSample | None:
        return None if node.connected else self._asked[node.index].reader.fresh(now_s)

    def take(self, node: Node, now_s: float) -> bool:
        """After a report: what the host draws beside its GPUs; True when limits have to be shared out anew."""
        table, i = self._table, node.index
        watts = table.power_w[i][table.told[i]]
        known = bool(len(watts)) and not np.isnan(watts).any() and not table.lost[i].any()
        gpus_w = float(watts.sum()) if known else None
        share_w = None
        if node.host_power_w is not None:
            share_w = None if gpus_w is None else node.host_power_w - gpus_w
        elif (asked := self._asked.get(i)) is not None:
            share_w = self._by_bmc(asked, gpus_w, now_s)
        if share_w is None or gpus_w is None or share_w + gpus_w < LEAST_RATIO * gpus_w:
            return False
        return self.shares.take(i, share_w, float(node.gpu_count * self._per_gpu_w[i]), now_s)

    def _by_bmc(self, asked: _Asked, gpus_w: float | None, now_s: float) -> float | None:
        asked.share.gpus(gpus_w, now_s)
        sample = asked.reader.fresh(now_s)
        if sample is not None:
            asked.share.take(sample.power_w, sample.read_at_s)
        return asked.share.share_w(now_s, asked.reader.settings.stale_s)

    def node_w(self, draw_w: Floats, known_w: Floats, fresh: Bools, now_s: float) -> tuple[Floats, Bools]:
        """Power by node [W], and where it was measured: `draw_w` is what GPUs are charged, `known_w` what they told."""
        own_w = np.array([self._own_w(node, known_w[node.index], now_s) for node in self._table.nodes])
        measured = fresh & (own_w >= LEAST_RATIO * known_w) & (own_w > 0.0)
        silent_w = self.silent_w(now_s)
        told = ~fresh & ~np.isnan(silent_w)
        modelled_w = draw_w + self.hosts_w(now_s)
        return np.where(told, silent_w, np.where(measured, own_w, modelled_w)), measured | told

    def _own_w(self, node: Node, known_w: float, now_s: float) -> float:
        if node.host_power_w is not None:
            return node.host_power_w
        asked, i = self._asked.get(node.index), node.index
        if asked is None or self._table.lost[i].any():
            return np.nan
        share_w = asked.share.share_w(now_s, asked.reader.settings.stale_s)
        return np.nan if share_w is None else known_w + share_w

    def comes_w(self, node: Node, now_s: float) -> float:
        """What a node that is off may draw more once it is on, before its limits are set [W]."""
        table, i = self._table, node.index
        most_w = float(table.max_w[i][table.used[i]].sum()) + float(self.hosts_w(now_s)[i])
        standby_w = float(self.silent_w(now_s)[i])
        return most_w - (0.0 if np.isnan(standby_w) else standby_w)

    def allowed_w(self, allowed_w: Floats, off: Bools) -> Floats:
        """What GPUs may draw [W], with those of nodes that are off at what they draw idle: a boot takes no more."""
        return np.where(off[:, None], np.minimum(allowed_w, IDLE_W), allowed_w)
