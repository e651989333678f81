"""Nodes as the local control tells of them: what `gridpivot-agent node list` shows."""

from __future__ import annotations

import numpy as np

from agent.nodes.pools import NodePools


def told(pools: NodePools) -> dict[str, dict[str, object]]:
    """Every node: link, GPUs, power, what it may draw, fallback, wall power by its BMC [W]; None = not known."""
    table, now_s = pools.table, pools.now_s()
    fresh, allowed_w = pools.fresh(now_s), pools.allowed_w(now_s, pools.wall.off(now_s))
    found: dict[str, dict[str, object]] = {}
    for node in table.nodes:
        i, watts = node.index, table.power_w[node.index]
        tells = bool(fresh[i]) and not np.isnan(watts).all()
        fallback_w = table.fallback_in_force_w[i][table.used[i]].sum()
        reader = pools.wall.reader(node)
        sample = None if reader is None else reader.fresh(now_s)
        off = reader is not None and pools.wall.is_off(node, now_s)
        wall_w = node.host_power_w if fresh[i] and node.host_power_w is not None else None
        found[node.name] = {
            "link": "connected" if node.connected else "off" if off else "down",
            "gpus": node.gpu_count,
            "power_w": float(np.nansum(watts)) if tells else None,
            "limit_w": float(allowed_w[i][table.used[i]].sum()),
            "fallback_w": float(fallback_w) if np.isfinite(fallback_w) else None,
            "wall_w": wall_w if wall_w is not None or sample is None else sample.power_w,
        }
    return found
