"""Family other reads and commands a machine through pyasic-rs as its own family would, and sees when it goes away."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

from agent.asic.conversation import Line
from agent.asic.family import Login, Memory
from agent.asic.registry import FAMILIES
from agent.asic.transport import Endpoint
from gridpivot.errors import DeviceUnreachable
from gridpivot.vocabulary import DeviceState, Mode, Reason
from sim.miners.antminer import SimAntminer
from sim.miners.auradine import SimAuradine
from sim.miners.fault import WireFault
from sim.miners.wire import WireMiner

pytestmark = pytest.mark.system


def line(miner: WireMiner, deadline_s: float = 10.0) -> Line:
    login = Login("root" if miner.family == "antminer" else "admin", miner.password)
    return Line(FAMILIES["other"], Endpoint(miner.host), login, Memory(), deadline_s, Counter())


async def test_it_reads_what_the_family_of_its_own_reads(met: Any, own: Any, rust_library: Any) -> None:
    miner = await met(SimAuradine, "Auradine AT1500", "127.21.6.1", (4028, 8080, 0), (150.0, 3400.0))
    ours, others = await own(miner), await line(miner).read(slow=True)
    assert others.hashrate_hs == pytest.approx(ours.hashrate_hs)
    assert (others.power_w, others.mac, others.serial) == (ours.power_w, ours.mac, ours.serial)
    assert (others.state, others.mode) == (DeviceState.HASHING, Mode.NORMAL)
    assert (others.pool_url, others.board_serials) == (ours.pool_url, ours.board_serials)


async def test_it_sleeps_wakes_and_limits_where_the_library_can(met: Any, own: Any, rust_library: Any) -> None:
    miner = await met(SimAuradine, "Auradine AT1500", "127.21.6.2", (4028, 8080, 0), (150.0, 3400.0))
    talk = line(miner)
    assert (await talk.carry_out(Mode.SLEEP, 0.0)).accepted
    assert miner.machine.mode is Mode.SLEEP
    assert (await talk.carry_out(Mode.NORMAL, 0.0)).accepted
    assert miner.machine.mode is Mode.NORMAL
    assert (await talk._drive(talk.family.limit_power(2400.0, talk.memory, talk.login, 0.0))).accepted
    assert (await own(miner)).power_limit_w == 2400.0


async def test_what_the_library_cannot_do_is_unsupported(met: Any, rust_library: Any) -> None:
    miner = await met(SimAntminer, "Antminer S19 Pro", "127.21.6.3", (4028, 80, 0))
    talk = line(miner)
    outcome = await talk._drive(talk.family.limit_power(2400.0, talk.memory, talk.login, 0.0))
    assert outcome.reason is Reason.UNSUPPORTED


async def test_a_machine_that_went_away_is_unreachable_though_the_library_calls_it_mining(
    met: Any, rust_library: Any
) -> None:
    miner = await met(SimAntminer, "Antminer S19 Pro", "127.21.6.4", (4028, 80, 0))
    assert (await line(miner).read(slow=False)).state is DeviceState.HASHING
    foreign = await rust_library(miner)
    await miner.stop()
    assert (await foreign.get_data()).is_mining  # what must not be inherited
    with pytest.raises(DeviceUnreachable) as caught:
        await line(miner).read(slow=False)
    assert caught.value.reason == Reason.UNREACHABLE


async def test_a_machine_that_only_accepts_is_not_called_mining(met: Any, rust_library: Any) -> None:
    miner = await met(SimAntminer, "Antminer S19 Pro", "127.21.6.5", (4028, 80, 0))
    await line(miner).read(slow=False)
    miner.fault = WireFault.SILENT
    with pytest.raises(DeviceUnreachable) as caught:
        await line(miner, 1.0).read(slow=False)
    assert caught.value.reason == Reason.SLOW
