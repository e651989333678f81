"""What is known of every GPU of every node, as columns (node, row), and what each may draw. Pure: no clock, no socket.

`in_force_w` is the highest limit that can be in force on a GPU: what was read back, or more where a higher one is on
its way. A node holds its lease from moments of its own that came back to it, so that no lease outlives
`heard_at_s + lease_s`; a guard, where there is one, makes the fallback good within `guarded_after_s` of that.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from agent.gpu.accounting import HELD_RATIO, HELD_RATIO_UNFLAGGED, UNKNOWN_MIN_RATIO, WORKS_FROM
from agent.gpu.outcomes import LimitOutcome
from agent.nodes.reports import Board, NodeReading
from agent.settings import MOST_GPUS
from gridpivot.link.gpu_columns import Bools, Floats

NO_LIMIT_W = np.inf
TAKEN = frozenset({LimitOutcome.OK, LimitOutcome.UNCHANGED, LimitOutcome.CLAMPED})


@dataclass(slots=True)
class Node:
    """One host. Moments are monotonic [s]; -inf = never."""

    name: str
    index: int
    expected: int  # GPUs
    boards: tuple[Board, ...] = ()
    agent_version: str = ""
    connected: bool = False
    heard_at_s: float = float("-inf")
    reported_at_s: float = float("-inf")
    guarded_after_s: float | None = None  # None = nobody enforces fallbacks but the node's process itself
    echo_monotonic_ms: int = 0
    asked_sequence: int = 0  # of this session
    applied_sequence: int = 0
    report_sequence: int = 0
    host_power_w: float | None = None
    host_power_source: str = ""
    outcomes: dict[str, str] = field(default_factory=dict)  # by uuid

    @property
    def gpu_count(self) -> int:
        """GPUs that are charged: those that are expected, or those that were seen if they are more."""
        return max(self.expected, len(self.boards))


class NodeTable:
    """Nodes in the order of the settings; row i of a node is GPU i of its hello."""

    def __init__(self, nodes: Sequence[Node], most_w: Sequence[float]) -> None:
        """`most_w`: what a GPU draws at most of which no node has told [W], by node."""
        shape = (len(nodes), MOST_GPUS)
        self.nodes = tuple(nodes)
        self._most_w = tuple(most_w)
        self.used: Bools = np.zeros(shape, bool)  # expected or seen
        self.told: Bools = np.zeros(shape, bool)
        self.lost: Bools = np.zeros(shape, bool)
        self.held: Bools = np.zeros(shape, bool)
        self.refused: Bools = np.zeros(shape, bool)  # its last limit was not taken
        self.power_w: Floats = np.full(shape, np.nan)
        self.min_w: Floats = np.full(shape, np.nan)
        self.max_w: Floats = np.full(shape, np.nan)
        self.settable: Bools = np.zeros(shape, bool)  # tells a range
        self.asked_w: Floats = np.full(shape, np.nan)
        self.on_its_way_w: Floats = np.full(shape, np.nan)  # highest asked since all was read back
        self.in_force_w: Floats = np.zeros(shape)
        self.fallback_asked_w: Floats = np.full(shape, np.nan)
        self.clock_asked_mhz: Floats = np.full(shape, np.nan)  # 0 = let go; NaN = nobody has asked
        self.sm_clock_hz: Floats = np.full(shape, np.nan)
        self.works: Bools = np.zeros(shape, bool)  # as far as utilisation is told
        self.clock_refused: dict[tuple[int, int], str] = {}  # (node, row) -> word
        self.fallback_in_force_w: Floats = np.full(shape, NO_LIMIT_W)
        for node, watts in zip(self.nodes, most_w, strict=True):
            self._lay_out(node, watts)

    def _lay_out(self, node: Node, most_w: float) -> None:
        """Rows of a node by its boards; what they may draw is unknown, and so the most."""
        i = node.index
        self.used[i] = np.arange(MOST_GPUS) < node.gpu_count
        self.told[i] = self.settable[i] = self.lost[i] = self.held[i] = self.refused[i] = False
        self.max_w[i], self.min_w[i] = most_w, UNKNOWN_MIN_RATIO * most_w
        for row, board in enumerate(node.boards):
            self.told[i, row] = True
            default_w = most_w if board.limit_default_w is None else board.limit_default_w
            self.max_w[i, row] = default_w if board.limit_max_w is None else board.limit_max_w
            if board.limit_min_w is not None and board.limit_max_w is not None:
                self.min_w[i, row] = board.limit_min_w
                self.settable[i, row] = True
        self.power_w[i] = self.asked_w[i] = self.on_its_way_w[i] = self.fallback_asked_w[i] = np.nan
        self.in_force_w[i] = np.where(self.used[i], self.max_w[i], 0.0)
        self.fallback_in_force_w[i] = NO_LIMIT_W

    # -- what nodes say ----------------------------------------------------------------------------------------------

    def admit(
        self, node: Node, boards: tuple[Board, ...], version: str, guarded_after_s: float | None, now_s: float
    ) -> None:
        """A session begins: nothing of it has been asked, and nothing applied."""
        if boards != node.boards:
            node.boards = boards
            self._lay_out(node, self._most_w[node.index])
        node.agent_version, node.guarded_after_s = version, guarded_after_s
        node.connected, node.heard_at_s = True, now_s
        node.asked_sequence = node.applied_sequence = node.report_sequence = 0
        self.asked_w[node.index] = self.fallback_asked_w[node.index] = np.nan
        node.echo_monotonic_ms = 0

    def part(self, node: Node) -> None:
        """Its session has ended."""
        node.connected = False

    def switched_off(self, node: Node) -> None:
        """It is off, and its limits are gone with it: when it comes back its boards are at their most.

        Fallbacks stay: the node keeps them on its disk and holds them from its start, whoever hears it.
        """
        i = node.index
        self.in_force_w[i] = np.where(self.used[i], self.max_w[i], 0.0)
        self.power_w[i] = self.asked_w[i] = self.on_its_way_w[i] = np.nan
        self.held[i] = False
        node.guarded_after_s = None  # a guard that does not run holds nothing

    def heard(self, node: Node, monotonic_ms: int, now_s: float) -> None:
        """A sign of life, which goes back as an echo."""
        node.heard_at_s = now_s
        node.echo_monotonic_ms = max(node.echo_monotonic_ms, monotonic_ms)

    def take(self, node: Node, reading: NodeReading, now_s: float) -> bool:
        """The newest report; True when what the node may draw, or what can be set on it, has changed.

        A report older than the one before it changes nothing.
        """
        if reading.sequence <= node.report_sequence:
            return False
        node.report_sequence, node.reported_at_s = reading.sequence, now_s
        node.applied_sequence = min(reading.limits_sequence, node.asked_sequence)
        node.host_power_w, node.host_power_source = reading.host_power_w, reading.host_power_source
        i, rows = node.index, slice(len(reading.lost))
        power_w = reading.column("power_w")
        enforced_w, requested_w = reading.column("limit_enforced_w"), reading.column("limit_requested_w")
        before_w, before_lost = self.in_force_w[i].copy(), self.lost[i].copy()
        self.power_w[i, rows], self.lost[i, rows] = power_w, reading.lost
        read_w = np.where(np.isnan(enforced_w), requested_w, enforced_w)
        known = ~np.isnan(read_w) & ~reading.lost
        caught_up = node.applied_sequence == node.asked_sequence
        if caught_up:
            self.on_its_way_w[i] = np.nan
            self.clock_asked_mhz[i][self.clock_asked_mhz[i] == 0] = np.nan  # let go, and no more our business
        # What is on its way may be in force by now: until the last of it was read back the highest counts.
        most_w = np.fmax(read_w, self.on_its_way_w[i, rows])
        self.in_force_w[i, rows] = np.where(known, most_w, self.in_force_w[i, rows])
        asked_fallback_w = self.fallback_asked_w[i]
        if caught_up and node.asked_sequence:
            self.fallback_in_force_w[i] = np.where(
                np.isnan(asked_fallback_w), self.fallback_in_force_w[i], asked_fallback_w
            )
        util = reading.column("util_ratio")
        self.sm_clock_hz[i, rows] = reading.column("sm_clock_hz")
        self.works[i, rows] = ~reading.lost & (np.isnan(util) | (util > WORKS_FROM))
        flagless = np.isnan(reading.column("clock_event_reasons"))
        near = power_w >= np.where(flagless, HELD_RATIO_UNFLAGGED, HELD_RATIO) * read_w
        self.held[i, rows] = reading.throttled_by_power | near
        moved = np.abs(self.in_force_w[i] - before_w).max(initial=0.0) > 0.5
        return bool(moved or (self.lost[i] != before_lost).any())

    def judge(self, node: Node, outcomes: dict[int, str]) -> bool:
        """What became of limits, by row; True when a GPU now takes limits that did not, or the other way round."""
        before = self.refused[node.index].copy()
        for row, outcome in outcomes.items():
            if row < len(node.boards):
                self.refused[node.index, row] = outcome not in TAKEN
                node.outcomes[node.boards[row].uuid] = outcome
        return bool((before != self.refused[node.index]).any())

    def judge_clocks(self, node: Node, refused: Mapping[int, str]) -> None:
        """Locks that were not taken, by row; the others were."""
        mine = {key: word for key, word in self.clock_refused.items() if key[0] != node.index}
        self.clock_refused = mine | {(node.index, row): word for row, word in refused.items() if row < len(node.boards)}

    # -- what is asked of nodes ----------------------------------------------------------------------------------------

    def ask(self, node: Node, limits_w: Floats, fallbacks_w: Floats) -> bool:
        """Limits and fallbacks of a node's rows [W, NaN = none]; True when they differ from those before.

        What is asked counts as in force from now on, where that is more.
        """
        i = node.index
        same = np.array_equal(limits_w, self.asked_w[i], equal_nan=True)
        if same and np.array_equal(fallbacks_w, self.fallback_asked_w[i], equal_nan=True):
            return False
        self.asked_w[i], self.fallback_asked_w[i] = limits_w, fallbacks_w
        self.on_its_way_w[i] = np.fmax(self.on_its_way_w[i], limits_w)
        self.in_force_w[i] = np.fmax(self.in_force_w[i], limits_w)
        raised = np.isfinite(self.fallback_in_force_w[i]) & ~np.isnan(fallbacks_w)
        self.fallback_in_force_w[i] = np.where(
            raised, np.fmax(self.fallback_in_force_w[i], fallbacks_w), self.fallback_in_force_w[i]
        )
        node.asked_sequence += 1
        return True

    def ask_clock(self, node: Node, mhz: float) -> bool:
        """Lock all clocks of a node [MHz, 0 = let go]; True when that is new."""
        i = node.index
        if (self.clock_asked_mhz[i] == mhz).all():
            return False
        self.clock_asked_mhz[i] = mhz
        node.asked_sequence += 1
        return True

    # -- what they may draw ----------------------------------------------------------------------------------------------

    def fresh(self, now_s: float, stale_s: float) -> Bools:
        """Nodes whose report is recent."""
        return np.array([node.connected and now_s - node.reported_at_s <= stale_s for node in self.nodes], bool)

    def allowed_w(self, now_s: float, lease_s: float) -> Floats:
        """What each GPU may draw [W]: its limit; its fallback once a silent node's lease and its guard's have run out.

        Where nobody is known to enforce the fallback the limit counts for ever: a process that was killed lowers nothing.
        """
        fallen = np.array(
            [
                not node.connected
                and node.guarded_after_s is not None
                and now_s - node.heard_at_s > lease_s + node.guarded_after_s
                for node in self.nodes
            ],
            bool,
        )
        lower = fallen[:, None] & self.told & ~self.lost
        return np.where(lower, np.minimum(self.in_force_w, self.fallback_in_force_w), self.in_force_w)
