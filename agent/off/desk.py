"""The hands of node-off orders: asks the workload manager, shuts down, looks at wall power, has room made, switches on.

Every order has one task at a time; every call in it has its own deadline. What an order holds in the workload manager ends
by itself and is renewed while the order stands. An order is on disk before a node is asked to shut down.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Coroutine, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
import structlog

from agent.ai.desk import Pull
from agent.ai.process import run_command
from agent.ai.runner import ORDER_S, AiDesk
from agent.ai.workload import Order, Workload, WorkloadRefused
from agent.bmc.outcomes import BmcOutcome, BmcTrouble
from agent.bmc.reader import BmcReader
from agent.bmc.settings import PoolBmcSettings
from agent.durable import replace_file
from agent.nodes.pools import NodePools
from agent.nodes.table import Node
from agent.off.empty import boards_against, held_against, work_against
from agent.off.order import STANDBY_W, Do, OffOrder, OffState, Seen, decide, empty_enough
from agent.off.record import FILE, load_orders, orders_bytes
from agent.off.telling import as_pull, tell_promise, tell_step
from agent.saying import Say
from gridpivot.clock import Clock
from gridpivot.vocabulary import EventKind, LeverName, LeverOutcome

log = structlog.get_logger("agent.off")
BEAT_S = 1.0
CALL_S = 60.0  # one conversation with a workload manager
COMMAND_S = 30.0  # a shutdown command
KEPT_ENDINGS = 50
# A request to shut down that ends so was not taken; any other end proves nothing.
_NEVER_TAKEN = (
    BmcOutcome.UNSUPPORTED,
    BmcOutcome.REFUSED,
    BmcOutcome.UNAUTHORISED,
    BmcOutcome.UNTRUSTED,
    LeverOutcome.UNSUPPORTED,
    LeverOutcome.NO_PERMISSION,
)
_CHARGED = (OffState.WAKING, OffState.STARTING)


@dataclass(slots=True)
class _Hands:
    """What is under way for one order."""

    task: asyncio.Task[None] | None = None
    renewed_s: float = float("-inf")


@dataclass(slots=True)
class OffDesk:
    """Nodes of a site that are off by a person's word. `bmcs`: by node, as the settings have them."""

    pools: NodePools
    bmcs: Mapping[str, PoolBmcSettings]
    ai: AiDesk
    state_dir: Path
    clock: Clock
    orders: dict[str, OffOrder] = field(default_factory=dict)  # by node
    endings: dict[str, str] = field(default_factory=dict)  # how the last order of a node ended
    durable: bool = True
    say: Say = lambda *_args, **_more: None
    _hands: dict[str, _Hands] = field(default_factory=dict)
    _kept: bytes = b""

    def __post_init__(self) -> None:
        for order in load_orders(self.state_dir / FILE, self.clock.now()):
            if order.node in self.bmcs and order.node in self.pools.by_name:
                order.on_wanted = order.on_wanted or order.state is OffState.CHECKING
                self.orders[order.node] = order
        self._mirror()
        for name, side in self.ai.sides.items():
            side.apart = partial(self.pulls_of, name)

    def pulls_of(self, pool: str) -> list[Pull]:
        """Orders of a pool as levers that were pulled."""
        return [as_pull(order) for order in self.orders.values() if order.pool == pool]

    # ---- what is known of a node -------------------------------------------------------------------------------------

    def pool_of(self, name: str) -> str:
        """The pool of a node of the settings."""
        return self.pools.pool_name(self.pools.by_name[name])

    def workload_of(self, name: str) -> Workload | None:
        """The workload manager of a node's pool."""
        side = self.ai.sides.get(self.pool_of(name))
        return None if side is None else side.workload

    def reader_of(self, node: Node) -> BmcReader:
        """Of a node of `bmcs`."""
        reader = self.pools.wall.reader(node)
        assert reader is not None
        return reader

    def boards_against(self, node: Node) -> str:
        """Why its GPUs cannot be said to rest; empty when they do."""
        table, i = self.pools.table, node.index
        if not self.pools.fresh(self.clock.now().monotonic_s)[i]:
            return "it does not report, so nobody can say that its GPUs rest"
        rows = [row for row in range(len(node.boards)) if not table.lost[i, row]]
        watts = [None if np.isnan(table.power_w[i, row]) else float(table.power_w[i, row]) for row in rows]
        return boards_against(watts, [float(table.max_w[i, row]) for row in rows])

    def seen(self, node: Node, order: OffOrder | None) -> Seen:
        """A node as it is now."""
        now_s, side = self.clock.now().monotonic_s, self.ai.sides.get(self.pool_of(node.name))
        sample = self.reader_of(node).fresh(now_s)
        fresh = bool(self.pools.fresh(now_s)[node.index])
        back = fresh and node.asked_sequence > 0 and node.applied_sequence == node.asked_sequence
        state = None if order is None else order.state
        return Seen(
            sample,
            self.pools.wall.is_off(node, now_s),
            node.connected,
            back,
            side is not None and side.power is not None and side.may_raise and self.ai.acts,
            state is OffState.WANTS_ROOM and self.pools.room_for(node),
            state is OffState.WAKING and self.pools.within(node),
        )

    # ---- the beat ----------------------------------------------------------------------------------------------------

    async def run(self, say: Say) -> None:
        """Until cancelled. What is off when we end stays off; what is held ends by itself."""
        self.say = say
        try:
            while True:
                for order in list(self.orders.values()):
                    self.turn(order)
                await self.keep()
                await asyncio.sleep(BEAT_S)
        finally:
            tasks = [hands.task for hands in self._hands.values() if hands.task is not None]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    def turn(self, order: OffOrder) -> None:
        """One look at an order, and the next step; a step that takes time goes on beside."""
        hands = self._hands.setdefault(order.node, _Hands())
        if hands.task is not None and not hands.task.done():
            return
        node, before = self.pools.by_name[order.node], order.state
        step = decide(order, self.seen(node, order), self.clock.now())
        if order.state is not before:
            self._mirror()
            self.pools.settle_of(node)
        match step:
            case Do.CHECK:
                hands.task = self._begin(self._check(order))
            case Do.SWITCH_ON:
                hands.task = self._begin(self._switch_on(order))
            case Do.FINISH:
                hands.task = self._begin(self._end(order, "its limits are read back, and it may be given work"))
            case Do.GIVE_UP:
                hands.task = self._begin(self._end(order, order.detail or "given up"))
            case Do.TELL_OFF | Do.TELL_SHORT | Do.TELL_UP | Do.TELL_LATE:
                tell_step(order, step, self.say)
            case _:
                self._look_after(order, hands)

    def _look_after(self, order: OffOrder, hands: _Hands) -> None:
        now_s = self.clock.now().monotonic_s
        if order.state is OffState.CHECKING:
            return
        if order.state in (OffState.STOPPING, OffState.STARTING):
            self.reader_of(self.pools.by_name[order.node]).hurry()
        if now_s - hands.renewed_s >= ORDER_S / 2:
            hands.renewed_s = now_s
            hands.task = self._begin(self._renew(order))

    def _begin(self, work: Coroutine[None, None, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(work)
        task.add_done_callback(_say_defect)
        return task

    def _mirror(self) -> None:
        """Have the pools know which nodes want room, and which are charged as if they ran."""
        for name in self.bmcs:
            node, order = self.pools.by_name.get(name), self.orders.get(name)
            if node is None:
                continue
            state = None if order is None else order.state
            wall = self.pools.wall
            (wall.coming.add if state is OffState.WANTS_ROOM else wall.coming.discard)(node.index)
            (wall.waking.add if state in _CHARGED else wall.waking.discard)(node.index)

    # ---- steps that take time ----------------------------------------------------------------------------------------

    def _order(self, order: OffOrder) -> Order:
        text = f"gridpivot node off {order.node}"
        return Order(order.order_id, text, self.clock.now().unix_s + ORDER_S)

    async def _check(self, order: OffOrder) -> None:
        """Hold it, read back that it is held and empty; the second time in ten seconds it is shut down."""
        order.looked_s = self.clock.now().monotonic_s
        workload, node = self.workload_of(order.node), self.pools.by_name[order.node]
        if workload is None:  # the settings named one when the order was given
            await self._end(order, "stays on: its pool has no workload manager now")
            return
        try:
            async with asyncio.timeout(CALL_S):
                steps = await workload.hold([order.node], self._order(order))
                work = await workload.observe(self.clock.now().monotonic_s)
        except (WorkloadRefused, TimeoutError) as error:
            order.detail = f"its workload manager: {error or 'no answer'}"  # tried again until the time is up
            empty_enough(order, False, order.looked_s)
            return
        bad = [step for step in steps if step.outcome not in (LeverOutcome.DONE, LeverOutcome.UNDER_WAY)]
        held = "; ".join(f"{step.outcome} {step.detail}".strip() for step in bad)
        why_not = held or work_against(work, order.node) or self.boards_against(node)
        if why_not:
            order.detail = f"stays on: {why_not}"
            await self._end(order, order.detail)
            return
        open_door = held_against(work, order.node)
        order.detail = open_door
        if empty_enough(order, not open_door, self.clock.now().monotonic_s):
            await self._shut_down(order, node)

    async def _shut_down(self, order: OffOrder, node: Node) -> None:
        reader, own, now_s = self.reader_of(node), self.bmcs[order.node], self.clock.now().monotonic_s
        sample = reader.fresh(now_s)
        if sample is None or not self.ai.acts:
            order.detail = "its BMC tells nothing now" if sample is None else "this site only watches now"
            return
        order.before_w, order.promised_s = sample.power_w, own.off_within_s
        order.promised_w = max(0.0, sample.power_w - STANDBY_W)
        order.state, order.commanded_s, order.detail = OffState.STOPPING, now_s, ""
        self._hands[order.node].renewed_s = now_s
        await self.keep()  # before anything is asked: who comes after us has to know
        tell_promise(order, self.say)
        try:
            if own.shutdown_command:
                await run_command(own.shutdown_command, COMMAND_S)
            else:
                await reader.shut_down()
        except (BmcTrouble, WorkloadRefused) as error:
            if error.outcome in _NEVER_TAKEN:
                await self._end(order, f"stays on: {error}")
                return
            order.detail = str(error)  # it may have been taken all the same: its wall power will tell
        reader.hurry()

    async def _switch_on(self, order: OffOrder) -> None:
        reader = self.reader_of(self.pools.by_name[order.node])
        try:
            await reader.switch_on()
            order.commanded_s, order.detail = self.clock.now().monotonic_s, ""
        except BmcTrouble as error:
            order.detail = str(error)
            order.state, order.tried_s = OffState.WANTS_ROOM, self.clock.now().monotonic_s  # again, and room anew
            self._mirror()
            log.warning("node not switched on", node=order.node, why=str(error))
        reader.hurry()

    async def _renew(self, order: OffOrder) -> None:
        """A hold for longer; a manager that does not answer, or does not hear the node, is asked again next time."""
        workload = self.workload_of(order.node)
        with contextlib.suppress(WorkloadRefused, TimeoutError):
            async with asyncio.timeout(CALL_S):
                if workload is not None:
                    await workload.hold([order.node], self._order(order))

    async def _end(self, order: OffOrder, how: str) -> None:
        """Give the node back to its workload manager and forget the order; what could not be given back ends by itself."""
        workload = self.workload_of(order.node)
        try:
            async with asyncio.timeout(CALL_S):
                if workload is not None:
                    await workload.release(order.order_id)
        except (WorkloadRefused, TimeoutError) as error:
            how = f"{how}; its hold ends by itself within {ORDER_S / 60.0:.0f} minutes ({error})"
        self.orders.pop(order.node, None)
        self._hands.pop(order.node, None)
        while len(self.endings) >= KEPT_ENDINGS:
            self.endings.pop(next(iter(self.endings)))
        self.endings[order.node] = how
        self._mirror()
        self.pools.settle_of(self.pools.by_name[order.node])
        key = (LeverName.NODE_OFF, LeverOutcome.DONE if order.commanded_s > float("-inf") else LeverOutcome.BLOCKED)
        self.ai.outcomes[key] = self.ai.outcomes.get(key, 0) + 1
        self.say(EventKind.LOCAL_RELEASE, f"order of node {order.node} has ended: {how}", order_id=order.order_id)
        await self.keep()

    async def keep(self) -> None:
        """On disk; a disk that refuses is said, and costs memory over a restart only."""
        content = orders_bytes(self.orders.values())
        if content == self._kept:
            return
        try:
            await asyncio.to_thread(replace_file, self.state_dir / FILE, content)
            self._kept, self.durable = content, True
        except OSError as error:
            if self.durable:
                log.error("node orders not kept", why=error.strerror or str(error))
            self.durable = False


def _say_defect(task: asyncio.Task[None]) -> None:
    """A defect in one conversation ends neither the desk nor the site's agent."""
    if not task.cancelled() and (error := task.exception()) is not None:
        log.error("node off", defect=repr(error))
