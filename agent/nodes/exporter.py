"""Per-node series of the site's agent. GPUs have their own series on their node: 512 of them twice would help nobody."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

if TYPE_CHECKING:
    from agent.backends import Pools
    from agent.nodes.pools import NodePools


def node_metrics(pools: Pools) -> Iterator[Metric]:
    """Families of every node of the settings; without nodes they have no samples."""
    found: NodePools | None = getattr(pools, "node_pools", None)
    up = GaugeMetricFamily("gridpivot_node_connected", "1 while a node's session is up", labels=["node"])
    power = GaugeMetricFamily("gridpivot_node_power_watts", "GPUs of a node as last told", labels=["node"])
    host = GaugeMetricFamily(
        "gridpivot_node_host_power_watts", "A node at the wall, where something measures it", labels=["node", "source"]
    )
    may = GaugeMetricFamily("gridpivot_node_limit_watts", "What GPUs of a node may draw", labels=["node"])
    present = GaugeMetricFamily("gridpivot_node_gpus_present", "GPUs of a node that answer", labels=["node"])
    expected = GaugeMetricFamily("gridpivot_node_gpus_expected", "GPUs of a node that are charged", labels=["node"])
    if found is not None:
        table, now_s = found.table, found.now_s()
        allowed_w = found.allowed_w(now_s, found.wall.off(now_s)).sum(axis=1)
        fresh = found.fresh(now_s)
        answer = (table.told & ~table.lost).sum(axis=1)
        for node in table.nodes:
            i = node.index
            up.add_metric([node.name], float(node.connected))
            may.add_metric([node.name], float(allowed_w[i]))
            expected.add_metric([node.name], node.gpu_count)
            present.add_metric([node.name], float(answer[i]) if fresh[i] else 0.0)
            if fresh[i] and not np.isnan(table.power_w[i]).all():
                power.add_metric([node.name], float(np.nansum(table.power_w[i])))
            if fresh[i] and node.host_power_w is not None:
                host.add_metric([node.name, node.host_power_source], node.host_power_w)
    yield from (up, power, host, may, present, expected)
    counters = {} if found is None else found.node_counters
    for name, label, help_text in (
        ("reports", "outcome", "Reports of nodes"),
        ("sessions", "word", "Sessions of nodes begun, refused, ended"),
        ("limits", "outcome", "Limits as nodes read them back, by change of outcome"),
    ):
        family = CounterMetricFamily(f"gridpivot_node_{name}", help_text, labels=[label])
        for word, count in counters.get(name, {}).items():
            family.add_metric([word], count)
        yield family
