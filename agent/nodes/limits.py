"""What a node is told to hold, as a message. Pure."""

from __future__ import annotations

import numpy as np

from agent.nodes.table import Node, NodeTable
from gridpivot.v1 import node_pb2 as pb


def node_limits(table: NodeTable, node: Node, echo_monotonic_ms: int, lease_s: float) -> pb.NodeLimits:
    """All that a node is to hold, as a message; the echo, in the node's own clock, renews its lease."""
    i, gpus = node.index, []
    for row in range(len(node.boards)):
        limit_w, fallback_w = table.asked_w[i, row], table.fallback_asked_w[i, row]
        if np.isnan(limit_w) and np.isnan(fallback_w):
            continue
        limit = None if np.isnan(limit_w) else limit_w
        gpus.append(pb.GpuLimit(row=row, limit_w=limit, fallback_w=None if np.isnan(fallback_w) else fallback_w))
    lease_ms = round(1000 * lease_s)
    return pb.NodeLimits(
        sequence=node.asked_sequence, echo_monotonic_ms=echo_monotonic_ms, lease_ms=lease_ms, gpus=gpus
    )
