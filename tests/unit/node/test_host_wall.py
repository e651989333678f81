"""A node's own power at the wall: GPUs as they are now, the host's share as its BMC or its kernel last measured it."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from agent.bmc.reader import BmcReader, BmcSample
from agent.bmc.settings import BmcSettings
from agent.gpu.reading import GpuReading
from agent.node.wall import HostWall
from agent.settings import GpuSettings
from tests.unit.node.site_of_nodes import HandClock

pytestmark = pytest.mark.unit


def boards(*watts: float | None) -> list[GpuReading]:
    return [GpuReading(f"GPU-{n}", power_w=w) for n, w in enumerate(watts)]


class Host:
    """A host with a BMC whose readings a test sets, and node reports every two seconds."""

    def __init__(self) -> None:
        self.clock = HandClock()
        own = BmcSettings(url="https://bmc.example", username="u", password_file=Path("p"))
        self.bmc = BmcReader("a", own, self.clock)
        self.wall = HostWall(GpuSettings(), self.bmc, self.clock)

    def says(self, watts: float) -> None:
        self.bmc._sample = BmcSample(watts, True, self.clock.s)

    def tell(self, *watts: float | None) -> tuple[float, str] | None:
        self.clock.s += 2.0
        return self.wall.told(boards(*watts))


def test_the_bmcs_figure_follows_the_gpus_between_two_looks() -> None:
    host = Host()
    assert host.tell(500.0, 500.0) is None, "nothing measured yet"
    host.says(1800.0)
    assert host.tell(500.0, 500.0) == (1800.0, "bmc")
    assert host.tell(700.0, 700.0) == (2200.0, "bmc"), "a step of the GPUs is seen before the BMC sees it"


def test_a_silent_bmc_tells_nothing_after_a_while() -> None:
    host = Host()
    host.tell(500.0, 500.0)
    host.says(1800.0)
    host.tell(500.0, 500.0)
    host.clock.s += host.bmc.settings.stale_s
    assert host.tell(500.0, 500.0) is None


def test_with_a_gpu_that_tells_no_power_the_host_tells_none() -> None:
    host = Host()
    host.tell(500.0, 500.0)
    host.says(1800.0)
    assert host.tell(500.0, None) is None


def test_a_file_of_a_minute_ago_is_set_beside_the_gpus_of_a_minute_ago(tmp_path: Path) -> None:
    clock, file = HandClock(), tmp_path / "watts"
    wall = HostWall(GpuSettings(host_power_file=file, host_power_source="pdu"), None, clock)
    for _ in range(10):
        clock.s += 2.0
        wall.told(boards(300.0, 300.0))
    for _ in range(10):
        clock.s += 2.0
        wall.told(boards(700.0, 700.0))
    file.write_text("1400")
    os.utime(file, (time.time() - 30.0, time.time() - 30.0))
    clock.s += 2.0
    told = wall.told(boards(700.0, 700.0))
    assert told is not None
    assert told == (pytest.approx(2200.0, abs=1.0), "pdu")
