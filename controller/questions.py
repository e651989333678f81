"""What operators ask that takes a solver: previews, the worth of notice, replays. Beside the live planner, never in it.

One question at a time, in a thread of its own: a second one waits, and dispatch goes on meanwhile.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from controller.dispatch.inputs import FleetState
from controller.dispatch.parameters import Parameters
from controller.dispatch.preview import Imagined, Preview, notice_usd, preview
from controller.dispatch.solve import Planner
from controller.replay import Replay, replay
from controller.store.ledger import DecisionRecord, Ledger
from gridpivot.errors import Infeasible, Refused

TIME_LIMIT_S = 30.0
Answer = TypeVar("Answer")


class Questions:
    """Answers with planners made for one question each; nothing that it does reaches the live one."""

    def __init__(self, ledger: Ledger, parameters: Parameters) -> None:
        self._ledger, self._parameters = ledger, parameters
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="questions")

    async def preview(self, event: Imagined) -> Preview:
        """What an event would do; raises Refused."""
        return await self._ask(lambda: preview(self._planner(), event))

    async def notice(self, fleet: FleetState, site: str) -> tuple[tuple[str, float], ...]:
        """What an hour more notice of each coming event at a site would be worth [USD]; raises Refused."""
        if not any(w.starts_in_s > 0 for s in fleet.sites if s.name == site for w in s.windows):
            return ()
        return await self._ask(lambda: notice_usd(self._planner(), fleet, site))

    async def replay(self, decision_id: str) -> tuple[DecisionRecord, Replay]:
        """A recorded decision taken again; raises Refused where there is none, or nothing that could be replayed."""
        record = await self._ledger.decision(decision_id)
        if record is None:
            raise Refused(f"no decision {decision_id!r}; gridpivot decisions lists them")
        plans = await self._ledger.plans_of(decision_id)
        return record, await self._ask(lambda: replay(record, plans))

    def _planner(self) -> Planner:
        return Planner(self._parameters, time_limit_s=TIME_LIMIT_S)

    async def _ask(self, work: Callable[[], Answer]) -> Answer:
        try:
            return await asyncio.get_running_loop().run_in_executor(self._thread, work)
        except Infeasible as error:
            raise Refused(str(error)) from error
