"""What the site's own control answers of AI pools: the same figures that the controller gets, without a link."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from agent.ai.reports import add_levers
from agent.ai.runner import AiDesk
from agent.backends import PoolReading
from agent.local_control import Asker, Handler
from agent.uplink.reports import pool_rollups
from gridpivot.ai_figures import pool_figures
from gridpivot.curves import AiPool


def ai_handlers(
    declared: Sequence[AiPool], readings: Callable[[], Sequence[PoolReading]], ai: AiDesk | None
) -> dict[str, Handler]:
    """The request `ai`; a site without pools answers with none."""

    async def tell(_request: Mapping[str, Any], _asker: Asker) -> dict[str, Any]:
        now = readings()
        rollups = pool_rollups(declared, now) if len(now) == len(declared) else []
        for rollup in rollups:
            if ai is not None:
                add_levers(rollup, ai)
        return {"pools": [pool_figures(rollup).model_dump(mode="json") for rollup in rollups]}

    return {"ai": tell}
