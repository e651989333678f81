"""What a pool over nodes is declared as, to dispatch and to the governor: from boards that were seen, or as the settings have it. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from agent.gpu.accounting import IDLE_W
from agent.nodes.table import NodeTable
from agent.settings import GpuPoolSettings
from gridpivot.curves import AiPool, PoolNode, gpu_pool
from gridpivot.link.gpu_columns import Ints


def declare(own: GpuPoolSettings, table: NodeTable, rows: Ints) -> AiPool:
    """A pool of the nodes in `rows`, of which at least one GPU is known; GPUs of several kinds count with their mean range."""
    used = table.used[rows]
    max_w = float(table.max_w[rows][used].mean())
    min_w = min(float(table.min_w[rows][used].mean()), 0.99 * max_w)  # a curve needs two ends
    pool = gpu_pool(
        own.name,
        own.priority,
        int(used.sum()),
        gpu_max_w=max_w,
        gpu_min_w=min_w,
        gpu_idle_w=min(IDLE_W, min_w),
        host_w_per_gpu=own.host_w_per_gpu,
    )
    nodes = tuple(_declare_node(table, int(i), own.host_w_per_gpu) for i in rows if table.used[i].any())
    return replace(pool, nodes=nodes)


def _declare_node(table: NodeTable, index: int, host_w_per_gpu: float) -> PoolNode:
    node, used = table.nodes[index], table.used[index]
    gpus_w = (float(table.min_w[index][used].sum()), float(table.max_w[index][used].sum()))
    host_w = node.gpu_count * host_w_per_gpu
    return PoolNode(node.name, node.gpu_count, host_w + min(gpus_w), host_w + gpus_w[1])


def more_than_declared(declared: Sequence[AiPool], gpus: Mapping[str, int]) -> list[str]:
    """Pools that have more GPUs by now [by name] than they were declared with."""
    counts = {pool.name: pool.gpu_count for pool in declared}
    return [name for name, count in gpus.items() if count > counts.get(name, 0)]
