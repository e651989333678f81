"""A node off or on by a person's word, over the local control: refused at once for all that is known to stand against it."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import structlog

from agent.ai.workload import WorkloadRefused
from agent.governor.local_orders import LONGEST_S, MOST_TEXT
from agent.local_control import Asker, Handler
from agent.nodes.table import Node
from agent.off.desk import OffDesk
from agent.off.empty import work_against
from agent.off.order import OffOrder, OffState
from agent.off.telling import shown
from gridpivot.errors import Refused
from gridpivot.vocabulary import EventKind

log = structlog.get_logger("agent.off")
ANSWER_S = 6.0  # the local control hangs up after ten
LEAST_S = 60.0


@dataclass(frozen=True, slots=True)
class OffByHand:
    """What may be asked of the desk."""

    desk: OffDesk

    @property
    def handlers(self) -> dict[str, Handler]:
        """What the socket may be asked."""
        return {"node_off": self._off, "node_on": self._on, "node_orders": self._list}

    async def _off(self, request: Mapping[str, Any], asker: Asker) -> dict[str, Any]:
        for_s = request.get("for_s")
        if for_s is not None and not (isinstance(for_s, int | float) and LEAST_S <= for_s <= LONGEST_S):
            raise Refused("a node is off for a minute to seven days, or until it is switched on")
        order = await self.off(str(request.get("node")), for_s, asker.name, str(request.get("reason") or ""))
        return {"order": shown(order), "durable": self.desk.durable}

    async def _on(self, request: Mapping[str, Any], asker: Asker) -> dict[str, Any]:
        order = await self.on(str(request.get("node")), asker.name, str(request.get("reason") or ""))
        return {"order": shown(order), "durable": self.desk.durable}

    async def _list(self, request: Mapping[str, Any], asker: Asker) -> dict[str, Any]:
        return {"orders": [shown(order) for order in self.desk.orders.values()], "endings": dict(self.desk.endings)}

    async def off(self, name: str, for_s: float | None, by: str, why: str) -> OffOrder:
        """A new order, once nothing is known to stand against it; raises Refused."""
        desk, node = self.desk, self._node(name)
        why_not = self._against(node) or await self._work_against(name)
        if not why_not and name in desk.orders:
            why_not = "it has an order already"  # given while we asked
        if why_not:
            raise Refused(f"{name} stays on: {why_not}")
        now = desk.clock.now()
        order = OffOrder(
            f"off-{secrets.token_hex(4)}", name, desk.pool_of(name), by[:MOST_TEXT], why[:MOST_TEXT], now.unix_s
        )
        order.began_s, order.on_within_s = now.monotonic_s, desk.bmcs[name].on_within_s
        if for_s is not None:
            order.ends_unix_s, order.ends_s = now.unix_s + for_s, now.monotonic_s + for_s
        desk.orders[name] = order
        desk.endings.pop(name, None)
        until = "until it is switched on" if for_s is None else f"for {for_s:.0f} s"
        told = f"{by} ordered node {name} off {until}" + (f": {why}" if why else "")
        log.warning("node off", node=name, order_id=order.order_id, by=by)
        desk.say(EventKind.LOCAL_ORDER, told, actor=by, order_id=order.order_id)
        await desk.keep()
        return order

    async def on(self, name: str, by: str, why: str) -> OffOrder:
        """Bring a node back: one that an order holds, or one that somebody else switched off; raises Refused."""
        desk, node = self.desk, self._node(name)
        order = desk.orders.get(name)
        if order is None:
            if not desk.ai.acts or not desk.seen(node, None).off:
                raise Refused(f"{name} is not off by an order, and its BMC does not say that it is off")
            now = desk.clock.now()
            order = OffOrder(
                f"on-{secrets.token_hex(4)}", name, desk.pool_of(name), by[:MOST_TEXT], why[:MOST_TEXT], now.unix_s
            )
            order.state, order.on_within_s = OffState.OFF, desk.bmcs[name].on_within_s
            desk.orders[name] = order
        order.on_wanted = True
        told = f"{by} ordered node {name} on" + (f": {why}" if why else "")
        desk.say(EventKind.LOCAL_RELEASE, told, actor=by, order_id=order.order_id)
        await desk.keep()
        return order

    def _node(self, name: str) -> Node:
        if name not in self.desk.pools.by_name:
            raise Refused(f"no [[gpu.pools]] of nodes names {name!r}; see gridpivot-agent node list")
        if name not in self.desk.bmcs:
            raise Refused(
                f"{name} has no BMC in settings ([[gpu.pools.bmcs]]), so nobody could prove or end its being off"
            )
        return self.desk.pools.by_name[name]

    def _against(self, node: Node) -> str:
        """What stands against it that is known without asking."""
        desk = self.desk
        if not desk.ai.acts:
            return "this site only watches (governor.stage); it sends no command"
        if node.name in desk.orders:
            return f"it has an order already ({desk.orders[node.name].state})"
        reader = desk.reader_of(node)
        sample = reader.fresh(desk.clock.now().monotonic_s)
        if sample is None:
            return f"its BMC tells nothing now ({reader.detail or 'not asked yet'})"
        if sample.on is False:
            return "its BMC says that it is off"
        return desk.boards_against(node)

    async def _work_against(self, name: str) -> str:
        workload = self.desk.workload_of(name)
        if workload is None:
            return "its pool has no workload manager, so nobody can say that nothing runs there"
        try:
            async with asyncio.timeout(ANSWER_S):
                work = await workload.observe(self.desk.clock.now().monotonic_s)
        except (WorkloadRefused, TimeoutError) as error:
            return f"its workload manager does not answer: {error or f'nothing in {ANSWER_S:.0f} s'}"
        return work_against(work, name)
