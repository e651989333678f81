"""AI pools over nodes: implements `agent.backends.Pools` and `Fallbacks`. Holds the table; sessions bring and fetch.

A wanted limit or fallback of a pool becomes limits of GPUs as soon as hosts can take them: at once for what falls, and
for what rises when the rest of the pool has read back enough. A host that is silent is charged what it may draw, and
what it may draw is not given to others; a host that comes gets its share without anybody asking.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import structlog

from agent.backends import ClockState, PoolReading
from agent.bmc.reader import BmcReader
from agent.nodes.declared import declare, more_than_declared
from agent.nodes.limits import node_clocks, node_limits
from agent.nodes.reports import Board, NodeReading
from agent.nodes.sharing import capped_w, shared_out_w, steady_w
from agent.nodes.table import Node, NodeTable
from agent.nodes.wall import NodeWall
from agent.settings import GpuPoolSettings, NodesSettings
from gridpivot.clock import Clock, Instant
from gridpivot.link.gpu_columns import Bools, Floats
from gridpivot.v1 import node_pb2 as pb

log = structlog.get_logger("agent.nodes")
STALE_BEATS = 3.0
GOVERNOR_DEAD_S = 10.0  # a governor that has not held fallbacks for so long renews no lease
LOOK_S = 0.2  # how long what a host said waits before it may move others
SETTLE_S = 5.0  # a silent host's lease that ran out is noticed within this
FALLBACK_STEP_RATIO = 0.01
ROOM_RATIO = 0.9  # of what a node may draw that is to come back


class NodePools:
    """Pools in the order of the settings. `run()` must be awaited by the service."""

    def __init__(
        self,
        pools: Sequence[GpuPoolSettings],
        settings: NodesSettings,
        known: Mapping[str, tuple[Board, ...]],
        clock: Clock,
        bmcs: Sequence[BmcReader] = (),
    ) -> None:
        """`known`: boards of nodes as they were last seen, by node; `bmcs`: of nodes, by name."""
        self.settings, self._clock = settings, clock
        self._pools = tuple(pools)
        nodes: list[Node] = []
        self._rows: list[np.ndarray] = []  # nodes of each pool
        self._pool_of: list[int] = []
        most_w: list[float] = []
        for number, pool in enumerate(self._pools):
            first = len(nodes)
            for name in pool.nodes:
                boards = known.get(name, ())
                nodes.append(Node(name, len(nodes), pool.gpus_per_node or len(boards), boards))
                self._pool_of.append(number)
                most_w.append(pool.gpu_max_w)
            self._rows.append(np.arange(first, len(nodes)))
        self.table = NodeTable(nodes, most_w)
        self.by_name = {node.name: node for node in self.table.nodes}
        self.wall = NodeWall(self.table, [self._pools[n].host_w_per_gpu for n in self._pool_of], bmcs)
        self._off: set[int] = set()
        # A pool of which nothing is known yet is none; its nodes may come, so that the next start knows them.
        self._shown = [n for n in range(len(self._pools)) if self.table.used[self._rows[n]].any()]
        self.declared = tuple(declare(self._pools[n], self.table, self._rows[n]) for n in self._shown)
        self.missing = [
            f"node {node.name}: never seen, and its pool does not say gpus_per_node: it is not counted before it comes"
            for node in nodes
            if not node.gpu_count
        ]
        self._wanted_w: list[float | None] = [None] * len(self._pools)
        self._fallback_w: list[float | None] = [None] * len(self._pools)
        self._node_cap_w = np.full(len(nodes), np.nan)  # fallback of each by the plan, at the wall
        self._held_at_s: float | None = None  # None = this site only watches
        self._stirred = asyncio.Event()
        self._moved: set[int] = set()
        self.changed: dict[str, Callable[[], None]] = {}  # told when a node's limits have changed
        self.on_boards: Callable[[], None] = lambda: None
        self.node_counters: dict[str, dict[str, int]] = {"reports": {}, "sessions": {}, "limits": {}}

    @property
    def node_pools(self) -> NodePools:
        """For metrics: which of a site's sources of pools has nodes."""
        return self

    def late(self) -> list[str]:
        """Pools that have more GPUs by now than they were declared with."""
        used = {pool.name: int(self.table.used[rows].sum()) for pool, rows in zip(self._pools, self._rows, strict=True)}
        return more_than_declared(self.declared, used)

    def now_s(self) -> float:
        """The present moment [monotonic s]."""
        return self._clock.now().monotonic_s

    def fresh(self, now_s: float) -> Bools:
        """Nodes whose report is recent."""
        return self.table.fresh(now_s, STALE_BEATS * self.settings.beat_s)

    # -- the Pools face ----------------------------------------------------------------------------------------------

    def read(self, now: Instant) -> Sequence[PoolReading]:
        """Newest reading per pool; power is None while no node of the pool tells it. Nothing silent counts zero."""
        table, wall, now_s = self.table, self.wall, now.monotonic_s
        fresh, off = self.fresh(now_s), wall.off(now_s)
        self._note_off(off, now_s)
        allowed_w = self.allowed_w(now_s, off)
        tells = fresh[:, None] & table.told & ~table.lost & ~np.isnan(table.power_w)
        draw_w = np.where(tells, table.power_w, allowed_w)
        held = tells & table.held
        more_w = np.where(held, np.maximum(table.max_w - draw_w, 0.0), 0.0).sum(axis=1)
        known_w = np.where(tells, table.power_w, 0.0).sum(axis=1)
        node_w, measured = wall.node_w(draw_w.sum(axis=1), known_w, fresh, now_s)
        present = (fresh[:, None] & table.told & ~table.lost).sum(axis=1)
        limit_w = allowed_w.sum(axis=1) + wall.hosts_w(now_s)
        readings = []
        for rows in (self._rows[n] for n in self._shown):
            telling = bool(tells[rows].any() or measured[rows].any())
            power_w = float(node_w[rows].sum())
            at_s = min((table.nodes[i].reported_at_s for i in rows if fresh[i]), default=now_s)
            readings.append(
                PoolReading(
                    power_w if telling else None,
                    float(limit_w[rows].sum()),
                    power_w + float(more_w[rows].sum()) if telling else None,
                    int(present[rows].sum()),
                    at_s,
                    by_hosts=bool(measured[rows].all()),
                    comes_w=sum(wall.comes_w(table.nodes[i], now_s) for i in rows if i in wall.coming),
                )
            )
        return readings

    def allowed_w(self, now_s: float, off: Bools) -> Floats:
        """What each GPU may draw [W]; `off`: nodes that the wall says are."""
        table = self.table
        return np.where(table.used, self.wall.allowed_w(table.allowed_w(now_s, self.settings.lease_s), off), 0.0)

    def _note_off(self, off: Bools, now_s: float) -> None:
        """A node that went off leaves its share to others; one that is off no more has it back at once."""
        found = {int(i) for i in np.flatnonzero(off)}
        for i in found - self._off:
            self.table.switched_off(self.table.nodes[i])
        moved, self._off = found ^ self._off, found
        for pool in {self._pool_of[i] for i in moved}:
            self._settle(pool, now_s)

    def set_limit(self, pool: int, limit_w: float, now: Instant) -> None:
        """Ask for enforced limits that allow at most `limit_w` at the wall; what can go out now goes out now."""
        self._wanted_w[self._shown[pool]] = limit_w
        self._settle(self._shown[pool], now.monotonic_s)

    # -- the ClockLocks face -----------------------------------------------------------------------------------------

    def lock_clocks(self, pool: int, mhz: int | None, now: Instant) -> None:
        """Lock the clocks of a pool's GPUs; None lets them go. A node that comes later is told too."""
        for i in self._rows[self._shown[pool]]:
            node = self.table.nodes[i]
            if self.table.ask_clock(node, float(mhz or 0)) and node.connected:
                self.changed.get(node.name, lambda: None)()

    def clocks(self, pool: int) -> ClockState:
        """How the locks of a pool stand."""
        fresh = self.fresh(self.now_s())
        return node_clocks(self.table, self._rows[self._shown[pool]], fresh)

    # -- the Fallbacks face ------------------------------------------------------------------------------------------

    def hold(self, fallback_w: Sequence[float], now: Instant) -> None:
        """The governor lives, and without it each pool falls back to this [W at the wall]."""
        self._held_at_s = now.monotonic_s
        for pool, declared, wall_w in zip(self._shown, self.declared, fallback_w, strict=True):
            step_w = FALLBACK_STEP_RATIO * declared.max_w
            steady = steady_w(self._fallback_w[pool], wall_w, step_w)
            if steady != self._fallback_w[pool]:
                self._fallback_w[pool] = steady
                self._settle(pool, now.monotonic_s)

    def cap_fallbacks(self, by_pool: Mapping[str, Mapping[str, float]], now: Instant) -> None:
        """What the plan lets each node fall back to [W at the wall]; what the site derives may be lower, and stays so."""
        for pool, declared in zip(self._shown, self.declared, strict=True):
            named = by_pool.get(declared.name, {})
            caps_w = np.array([named.get(self.table.nodes[i].name, np.nan) for i in self._rows[pool]])
            step_w = FALLBACK_STEP_RATIO * declared.max_w / max(1, len(declared.nodes))
            caps_w = np.floor(caps_w / step_w) * step_w  # or every plan would reach every host
            if not np.array_equal(caps_w, self._node_cap_w[self._rows[pool]], equal_nan=True):
                self._node_cap_w[self._rows[pool]] = caps_w
                self._settle(pool, now.monotonic_s)

    # -- for a node that is to come back -------------------------------------------------------------------------------

    def pool_name(self, node: Node) -> str:
        """Of the node's pool."""
        return self._pools[self._pool_of[node.index]].name

    def room_for(self, node: Node) -> bool:
        """Whether what the pool was given, and does not draw, covers the most that a node may draw which is off."""
        given_w, power_w = self._wanted_w[self._pool_of[node.index]], self._reading_of(node).power_w
        return (
            given_w is not None and power_w is not None and given_w - power_w >= self.wall.comes_w(node, self.now_s())
        )

    def within(self, node: Node) -> bool:
        """Whether limits of the node's pool, as read back and with all that is charged, are inside what it was given."""
        given_w = self._wanted_w[self._pool_of[node.index]]
        return given_w is not None and self._reading_of(node).limit_w <= given_w + 1.0

    def _reading_of(self, node: Node) -> PoolReading:
        return self.read(self._clock.now())[self._shown.index(self._pool_of[node.index])]

    def settle_of(self, node: Node) -> None:
        """Share out a node's pool as of now."""
        self._settle(self._pool_of[node.index], self.now_s())

    # -- sharing out ---------------------------------------------------------------------------------------------------

    def _settle(self, pool: int, now_s: float) -> None:
        """Limits of every GPU of a pool as of now, to the sessions whose node has others."""
        table, rows = self.table, self._rows[pool]
        live = np.array([table.nodes[i].connected for i in rows], bool)[:, None]
        takes = live & table.told[rows] & ~table.lost[rows] & table.settable[rows]
        off = self.wall.off(now_s)
        allowed_w = self.allowed_w(now_s, off)[rows]
        host_w = float(self.wall.hosts_w(now_s)[rows].sum())
        limits_w = self._share(self._wanted_w[pool], pool, takes, allowed_w, host_w)
        fallback_most_w = np.minimum(table.fallback_in_force_w[rows], table.max_w[rows])
        # A silent host without a guard has no fallback that counts; one that is off has its own on its disk.
        keeps = live | off[rows][:, None]
        left_w = np.where(keeps & ~table.lost[rows], fallback_most_w, allowed_w)
        fallbacks_w = self._share(self._fallback_w[pool], pool, takes, left_w, host_w)
        hosts_w = np.array([table.nodes[i].gpu_count * self._pools[pool].host_w_per_gpu for i in rows])
        fallbacks_w = capped_w(fallbacks_w, table.min_w[rows], self._node_cap_w[rows] - hosts_w)
        for place, i in enumerate(rows):
            node = table.nodes[i]
            if node.connected and table.ask(node, limits_w[place], fallbacks_w[place]):
                self.changed.get(node.name, lambda: None)()

    def _share(self, wall_w: float | None, pool: int, takes: np.ndarray, in_force_w: Floats, host_w: float) -> Floats:
        """A pool's watts as limits by (node, row), NaN where there is none to set."""
        table, rows = self.table, self._rows[pool]
        if wall_w is None:
            return np.full(takes.shape, np.nan)
        bounds_w = table.min_w[rows], table.max_w[rows]
        return shared_out_w(wall_w - host_w, takes, table.used[rows], table.refused[rows], in_force_w, bounds_w)

    def echo_of(self, node: Node) -> int:
        """What renews a node's lease [ms of its own clock]; 0 renews nothing: sessions live, but the governor does not."""
        dead = self._held_at_s is not None and self.now_s() - self._held_at_s > GOVERNOR_DEAD_S
        return 0 if dead else node.echo_monotonic_ms

    def limits_of(self, node: Node) -> pb.NodeLimits:
        """All that a node is to hold, with the echo that renews its lease."""
        return node_limits(self.table, node, self.echo_of(node), self.settings.lease_s)

    # -- what sessions bring -------------------------------------------------------------------------------------------

    def admit(self, node: Node, boards: tuple[Board, ...], version: str, guarded_after_s: float | None) -> None:
        """A node's session begins."""
        fresh = boards != node.boards
        self.table.admit(node, boards, version, guarded_after_s, self._clock.now().monotonic_s)
        if fresh:
            self.on_boards()
        self._stir(node)

    def part(self, node: Node) -> None:
        """A node's session has ended: its share stays its own until it is known to draw less."""
        self.table.part(node)
        self._stir(node)

    def take(self, node: Node, reading: NodeReading) -> None:
        """A report."""
        now_s = self._clock.now().monotonic_s
        self.table.heard(node, reading.monotonic_ms, now_s)
        moved = self.table.take(node, reading, now_s)
        if self.wall.take(node, now_s) or moved:
            self._stir(node)
        self._count("reports", "taken")

    def judge(self, node: Node, outcomes: Mapping[int, str]) -> None:
        """What became of limits."""
        for row, outcome in outcomes.items():
            uuid = node.boards[row].uuid if row < len(node.boards) else ""
            if outcome != node.outcomes.get(uuid):
                self._count("limits", outcome)
        if self.table.judge(node, dict(outcomes)):
            log.warning("gpu limits", node=node.name, outcomes=sorted(set(outcomes.values())))
            self._stir(node)

    def heard(self, node: Node, monotonic_ms: int) -> None:
        """A heartbeat."""
        self.table.heard(node, monotonic_ms, self.now_s())

    def count_session(self, word: str) -> None:
        """A session begun, refused or ended, by word."""
        self._count("sessions", word)

    def count_bad(self) -> None:
        """A report that was refused."""
        self._count("reports", "refused")

    def _count(self, what: str, word: str) -> None:
        self.node_counters[what][word] = self.node_counters[what].get(word, 0) + 1

    def _stir(self, node: Node) -> None:
        self._moved.add(self._pool_of[node.index])
        self._stirred.set()

    async def run(self) -> None:
        """Share out anew when nodes came, went, or read back what others waited for; until cancelled."""
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(SETTLE_S):
                    await self._stirred.wait()
            await asyncio.sleep(LOOK_S)
            self.settle_moved(self._clock.now())

    def settle_moved(self, now: Instant) -> None:
        """Share out pools of which a node has moved, or is silent: its lease may have run out."""
        moved, self._moved = self._moved, set()
        moved |= {self._pool_of[node.index] for node in self.table.nodes if not node.connected}
        self._stirred.clear()
        for pool in sorted(moved):
            self._settle(pool, now.monotonic_s)
