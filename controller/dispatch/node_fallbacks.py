"""A pool's fallback as limits of its nodes: all at the same place between their least and their most. Pure."""

from __future__ import annotations

from gridpivot.curves import AiPool


def node_fallbacks_w(pool: AiPool, fallback_w: float) -> tuple[tuple[str, float], ...]:
    """Wall power that each node falls back to [W], by name; together `fallback_w`, as far as their ranges allow it."""
    least_w, most_w = sum(n.min_w for n in pool.nodes), sum(n.max_w for n in pool.nodes)
    share = 1.0 if most_w <= least_w else min(1.0, max(0.0, (fallback_w - least_w) / (most_w - least_w)))
    return tuple((n.name, n.min_w + share * (n.max_w - n.min_w)) for n in pool.nodes)
