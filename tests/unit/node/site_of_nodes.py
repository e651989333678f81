"""A site's pools over nodes without sockets: nodes that report as real ones do, on a clock that a test moves."""

from collections.abc import Callable, Sequence

from agent.bmc.reader import BmcReader
from agent.gpu.reading import GpuReading
from agent.node.report import boards, report
from agent.nodes.pools import NodePools
from agent.nodes.reports import Board, read_boards, read_report
from agent.nodes.table import Node
from agent.settings import GpuPoolSettings, NodesSettings
from gridpivot.clock import Instant

LEASE_S = 15.0
HOST_W = 100.0


class HandClock:
    def __init__(self) -> None:
        self.s = 1000.0

    def now(self) -> Instant:
        return Instant(self.s, 1_700_000_000.0 + self.s)


class FakeNode:
    """GPUs that take what they are told at the next report."""

    def __init__(self, site: "Site", name: str, gpus: int, guarded_s: float | None) -> None:
        self.site, self.name, self.guarded_s = site, name, guarded_s
        self.node: Node = site.pools.by_name[name]
        self.limit_w = {f"{name}-{n}": 700.0 for n in range(gpus)}
        self.lock_mhz: dict[str, int] = {}
        self.draw_ratio = 0.9
        self.obeys = True
        self.sequence = self.applied = 0

    def readings(self) -> list[GpuReading]:
        return [
            GpuReading(
                uuid,
                power_w=self.draw_ratio * watts,
                limit_requested_w=watts,
                limit_enforced_w=watts,
                limit_min_w=200.0,
                limit_max_w=700.0,
                limit_default_w=700.0,
                clock_event_reasons=0,
                sm_clock_hz=1e6 * (self.lock_mhz.get(uuid) or 1980),
            )
            for uuid, watts in self.limit_w.items()
        ]

    def come(self) -> None:
        self.sequence = self.applied = 0
        self.site.pools.admit(self.node, read_boards(boards(self.readings())), "test", self.guarded_s)
        self.report()

    def take(self) -> None:
        """Hold what is asked now, and say that it was read back."""
        limits = self.site.pools.limits_of(self.node)
        for gpu in limits.gpus:
            if gpu.HasField("limit_w") and self.obeys:
                self.limit_w[f"{self.name}-{gpu.row}"] = gpu.limit_w
            if gpu.HasField("clock_max_mhz") and self.obeys:
                self.lock_mhz[f"{self.name}-{gpu.row}"] = gpu.clock_max_mhz
        self.applied = limits.sequence
        word = "ok" if self.obeys else "no_permission"
        self.site.pools.judge(self.node, {gpu.row: word for gpu in limits.gpus})
        asked = [gpu.row for gpu in limits.gpus if gpu.HasField("clock_max_mhz")]
        self.site.pools.table.judge_clocks(self.node, {} if self.obeys else dict.fromkeys(asked, word))
        self.report()

    def report(self, host: tuple[float, str] | None = None) -> None:
        self.sequence += 1
        message = report(self.readings(), self.sequence, self.applied, 0, round(1000 * self.site.clock.s), host)
        self.site.pools.take(self.node, read_report(message, len(self.limit_w)))

    def go(self) -> None:
        self.site.pools.part(self.node)


class Site:
    """One pool of four nodes with four GPUs each, unless said otherwise."""

    def __init__(
        self, names: tuple[str, ...] = ("a", "b", "c", "d"), known: dict[str, tuple[Board, ...]] | None = None,
        gpus_per_node: int | None = 4, bmcs: Callable[[HandClock], Sequence[BmcReader]] = lambda clock: (),
    ) -> None:  # fmt: skip
        self.clock = HandClock()
        pool = GpuPoolSettings(name="train", nodes=names, gpus_per_node=gpus_per_node, host_w_per_gpu=HOST_W)
        settings = NodesSettings(lease_s=LEASE_S, beat_s=2.0)
        self.pools = NodePools([pool], settings, known or {}, self.clock, bmcs(self.clock))

    def node(self, name: str, gpus: int = 4, guarded_s: float | None = 20.0) -> FakeNode:
        made = FakeNode(self, name, gpus, guarded_s)
        made.come()
        return made

    def set_limit(self, wall_w: float) -> None:
        self.pools.set_limit(0, wall_w, self.clock.now())

    def hold(self, wall_w: float) -> None:
        self.pools.hold([wall_w], self.clock.now())

    def settle(self) -> None:
        self.pools.settle_moved(self.clock.now())

    @property
    def reading(self):
        (found,) = self.pools.read(self.clock.now())
        return found
