"""What a GPU-hour earns, by pool and by priority. Pure."""

from __future__ import annotations

from collections.abc import Mapping

from gridpivot.vocabulary import AiPriority

# Assumed, to be set from contracts: with 1.1 kW at the wall per GPU these are some 900 to 2,300 USD/MWh, ten to
# forty times what mining earns.
DEFAULT_USD_PER_GPU_HOUR: Mapping[AiPriority, float] = {
    AiPriority.GUARANTEED: 2.50,
    AiPriority.STANDARD: 1.80,
    AiPriority.SPOT: 1.00,
}


def usd_per_gpu_hour(
    pool: str,
    priority: AiPriority,
    by_pool: Mapping[str, float],
    by_priority: Mapping[AiPriority, float],
) -> float:
    """Income of one GPU at full throughput [USD/GPU-h]: the pool's own, else its priority's, else the default."""
    if pool in by_pool:
        return by_pool[pool]
    return by_priority.get(priority, DEFAULT_USD_PER_GPU_HOUR[priority])
