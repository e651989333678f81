"""8: observe and shadow send nothing that commands: every byte to every miner is counted, whatever provokes the governor.

What a stage sends is compared with what a poller sends that nobody can command at all: the same requests, byte for byte
in kind and number per poll. In stage full the same provocation does send more, or the count would prove nothing.
"""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from agent.asic.poller import AsicPoller
from agent.asic.settings import AsicSettings
from agent.backends import MeterSample
from agent.equipment import NoPools
from agent.governor.state import Policy
from agent.hardware import Beats, Hardware
from agent.site import SiteAgent
from gridpivot.clock import SystemClock
from gridpivot.vocabulary import Stage
from sim.miners.fleet import EVERY_FAMILY, WireMiners
from sim.miners.web import WebPort
from sim.miners.wire import ApiPort

pytestmark = [pytest.mark.unit, pytest.mark.slow]

CLOCK = SystemClock()
COUNT = 40
POLLS = 5 * COUNT


class Meter:
    """Shows twice the ceiling: whoever may shed, sheds."""

    def __init__(self, power_w: float) -> None:
        self.power_w = power_w

    def newest(self) -> MeterSample:
        return MeterSample(self.power_w, CLOCK.now().monotonic_s)


class Bytes:
    """What every miner was sent: bytes, and the modes that it was told to take."""

    def __init__(self, miners: WireMiners, monkeypatch: pytest.MonkeyPatch) -> None:
        self.total = 0
        self.modes: list[str] = []
        for port in (ApiPort, WebPort):
            monkeypatch.setattr(port, "data_received", self._counting(port.data_received))
        for miner in miners.miners:
            command = miner.machine.command

            def told(mode, now_s, *, restart=False, command=command):
                self.modes.append(mode.value)
                command(mode, now_s, restart=restart)

            miner.machine.command = told

    def _counting(self, received):
        def data_received(port, data: bytes) -> None:
            self.total += len(data)
            received(port, data)

        return data_received


async def polled(poller: AsicPoller, polls: int) -> None:
    async with asyncio.timeout(40):
        while poller._polls < polls:
            await asyncio.sleep(0.02)


def poller_of(miners: WireMiners, *, acts: bool) -> AsicPoller:
    settings = AsicSettings(beat_s=1.0, slow_beat_s=3600.0, prepare_per_s=50.0)
    return AsicPoller(miners.inventory(), settings, miners.logins(), prepares=acts)


async def bytes_of_reading(monkeypatch: pytest.MonkeyPatch) -> float:
    """Bytes a poll of a poller that nobody commands."""
    async with WireMiners(COUNT, EVERY_FAMILY, seed=3) as miners:
        with monkeypatch.context() as patched:
            counted, poller = Bytes(miners, patched), poller_of(miners, acts=False)
            task = asyncio.create_task(poller.run())
            await polled(poller, POLLS)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            return counted.total / poller._polls


@pytest.mark.parametrize("stage", [Stage.OBSERVE, Stage.SHADOW, Stage.FULL])
async def test_only_stages_that_act_send_anything_but_reads(stage: Stage, tmp_path: Path, monkeypatch) -> None:
    reading = await bytes_of_reading(monkeypatch)
    async with WireMiners(COUNT, EVERY_FAMILY, seed=3) as miners:
        counted, acts = Bytes(miners, monkeypatch), stage is Stage.FULL
        poller = poller_of(miners, acts=acts)
        true_w = miners.true_power_w()
        policy = Policy(ceiling_w=0.6 * true_w, protection_w=0.65 * true_w, stage=stage, meter_wait_s=1.0)
        hardware, site = Hardware(poller, NoPools(), Meter(1.05 * true_w)), poller.inventory.site
        agent = SiteAgent("falcon-1", policy, site, hardware, None, {}, tmp_path, CLOCK, Beats(0.2, 1.0, 5.0))
        agent.by_hand.orders.give("l1", "shed", 0.1 * true_w, None, "ann", "", CLOCK.now())
        tasks = [asyncio.create_task(poller.run()), asyncio.create_task(agent.run())]
        try:
            await polled(poller, POLLS)
            sent = counted.total / poller._polls
            assert agent.counters.ticks_total > 10
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
    if acts:
        assert "sleep" in counted.modes and agent.state.commands_total > 0
        assert sent > 1.05 * reading
    else:
        assert counted.modes == [] and agent.state.commands_total == 0
        assert sent == pytest.approx(reading, rel=0.03)
        assert poller.counters["commands"] == {}
