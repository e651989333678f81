"""A node's GPUs under its lease: fallbacks are on the disk first, what a lease allowed ends with it."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.gpu.nvml import NvmlReader
from agent.gpu.pools import NvmlPools
from agent.gpu.reading import GpuReading, Scan
from agent.gpu.worker import Worker
from agent.node.gpus import NodeGpus
from agent.settings import GpuSettings
from gridpivot.clock import Instant
from gridpivot.v1 import node_pb2 as pb

pytestmark = pytest.mark.unit


class Bench:
    """NvmlPools without a driver: a test says what each scan has read."""

    def __init__(self, place: Path) -> None:
        self.s, self.worker = 100.0, Worker("nvml")
        self.nvml = NvmlPools(self.worker, NvmlReader(None), (), GpuSettings(), self)
        self.gpus = NodeGpus(self.nvml, place, self)

    def now(self) -> Instant:
        return Instant(self.s, 1.7e9 + self.s)

    def scan(self, *stands_w: float | None) -> None:
        """None: lost."""
        self.s += 1.0
        self.nvml.take(
            Scan(
                tuple(
                    GpuReading(
                        f"GPU-{n}", limit_requested_w=w, limit_enforced_w=w, limit_min_w=200.0, limit_max_w=700.0
                    )
                    if w is not None
                    else GpuReading(f"GPU-{n}", lost=True)
                    for n, w in enumerate(stands_w)
                ),
                {},
                {},
            ),
            self.s,
        )

    async def take(self, sequence: int, *rows: tuple[float, float]) -> None:
        gpus = [pb.GpuLimit(row=n, limit_w=limit, fallback_w=fallback) for n, (limit, fallback) in enumerate(rows)]
        self.gpus.lease.renew(self.s, self.s)
        await self.gpus.take(pb.NodeLimits(sequence=sequence, gpus=gpus))


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    made = Bench(tmp_path)
    made.gpus.begin_session(15.0)
    yield made
    made.worker.close(1.0)


async def test_limits_count_as_applied_only_after_a_scan_that_began_with_them(bench: Bench) -> None:
    bench.scan(700.0)
    await bench.take(1, (600.0, 300.0))
    assert (bench.nvml.wanted_w, bench.gpus.applied_sequence) == ({"GPU-0": 600.0}, 0)
    bench.scan(600.0)
    assert bench.gpus.applied_sequence == 1
    await bench.take(2, (600.0, 300.0))
    assert bench.gpus.applied_sequence == 2, "what is held already"


async def test_new_process_knows_its_fallbacks_and_falls_back_before_it_hears_anybody(
    bench: Bench, tmp_path: Path
) -> None:
    bench.scan(700.0)
    await bench.take(1, (600.0, 300.0))
    again = Bench(tmp_path)
    again.scan(600.0)
    again.gpus.hold()
    assert again.nvml.wanted_w == {"GPU-0": 300.0}
    again.worker.close(1.0)


async def test_lease_that_comes_back_does_not_bring_back_what_it_allowed(bench: Bench) -> None:
    bench.scan(700.0)
    await bench.take(1, (600.0, 300.0))
    bench.s += 20.0
    bench.gpus.hold()
    assert bench.nvml.wanted_w == {"GPU-0": 300.0}
    bench.gpus.lease.renew(bench.s, bench.s)
    bench.gpus.hold()
    assert bench.nvml.wanted_w == {"GPU-0": 300.0}, "the site has to ask for more"


async def test_guard_is_told_of_no_board_that_is_lost_or_gone(bench: Bench) -> None:
    bench.scan(700.0, 700.0)
    await bench.take(1, (600.0, 300.0), (600.0, 300.0))
    assert bench.nvml.fallback_w == {"GPU-0": 300.0, "GPU-1": 300.0}
    bench.scan(600.0, None)
    bench.gpus.hold()
    assert bench.nvml.fallback_w == {"GPU-0": 300.0}


async def test_disk_that_refuses_lets_nothing_rise_and_is_said(bench: Bench, tmp_path: Path) -> None:
    bench.scan(400.0, 400.0)
    (tmp_path / "fallbacks.json.new").mkdir()  # the neighbour that is written first cannot be
    await bench.take(1, (600.0, 300.0), (250.0, 300.0))
    assert bench.nvml.wanted_w == {"GPU-0": 400.0, "GPU-1": 250.0}
    assert "nothing rises" in bench.gpus.trouble
    assert bench.gpus.lease.fallback_w == {"GPU-0": 300.0, "GPU-1": 300.0}, "this process still falls back"
