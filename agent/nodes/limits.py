"""What a node is told to hold, as a message, and how its clock locks stand. Pure."""

from __future__ import annotations

import numpy as np

from agent.backends import ClockState
from agent.nodes.table import Node, NodeTable
from gridpivot.link.gpu_columns import Bools, Ints
from gridpivot.v1 import node_pb2 as pb


def node_limits(table: NodeTable, node: Node, echo_monotonic_ms: int, lease_s: float) -> pb.NodeLimits:
    """All that a node is to hold, as a message; the echo, in the node's own clock, renews its lease."""
    i, gpus = node.index, []
    for row in range(len(node.boards)):
        limit_w, fallback_w = table.asked_w[i, row], table.fallback_asked_w[i, row]
        mhz = table.clock_asked_mhz[i, row]
        if np.isnan(limit_w) and np.isnan(fallback_w) and np.isnan(mhz):
            continue
        gpu = pb.GpuLimit(row=row)
        if not np.isnan(limit_w):
            gpu.limit_w = limit_w
        if not np.isnan(fallback_w):
            gpu.fallback_w = fallback_w
        if not np.isnan(mhz):
            gpu.clock_max_mhz = int(mhz)
        gpus.append(gpu)
    lease_ms = round(1000 * lease_s)
    return pb.NodeLimits(
        sequence=node.asked_sequence, echo_monotonic_ms=echo_monotonic_ms, lease_ms=lease_ms, gpus=gpus
    )


def node_clocks(table: NodeTable, rows: Ints, fresh: Bools) -> ClockState:
    """How clock locks stand on the nodes in `rows`; what is not fresh tells nothing."""
    hertz = np.where(table.works & fresh[:, None], table.sm_clock_hz, np.nan)[rows]
    highest_hz = None if np.isnan(hertz).all() else float(np.nanmax(hertz))
    bad = [(key, word) for key, word in table.clock_refused.items() if key[0] in rows]
    if not bad:
        return ClockState(highest_hz)
    (node, row), word = bad[0]
    said = f"{len(bad)} GPUs, first {table.nodes[node].name} GPU {row}"
    return ClockState(highest_hz, word, said)
