"""Thousands of simulated miners behind shared ports: told apart by address, absent ones reset, holes swallow SYNs."""

from __future__ import annotations

from collections import Counter

import pytest

from agent.asic.conversation import Line
from agent.asic.family import Memory
from agent.asic.registry import FAMILIES
from agent.asic.transport import Endpoint
from gridpivot.errors import DeviceUnreachable
from gridpivot.vocabulary import Mode, Reason
from sim.miners.fleet import WireMiners
from sim.miners.swarm import Swarm, address

pytestmark = pytest.mark.unit


def test_addresses_skip_the_ends_of_every_24() -> None:
    assert [address(n) for n in (0, 253, 254, 10_999)] == ["127.20.0.1", "127.20.0.254", "127.20.1.1", "127.20.43.78"]
    assert len({address(n) for n in range(12_000)}) == 12_000


async def test_miners_are_told_apart_by_the_address_that_was_called() -> None:
    async with WireMiners(300, {"s21-luxos": 1.0}, shared_ports=True) as fleet:
        inventory = fleet.inventory()
        for row in (0, 255, 299):
            endpoint = inventory.endpoints[row]
            line = Line(FAMILIES["luxos"], endpoint, None, Memory(), 2.0, Counter())
            assert (await line.read(slow=True)).mac == fleet.miners[row].mac
        assert (await line.carry_out(Mode.SLEEP, 0.0)).accepted
        assert [m.machine.mode for m in fleet.miners].count(Mode.SLEEP) == 1


async def test_nobody_at_an_address_is_a_reset_and_a_hole_is_silence() -> None:
    fleet = WireMiners(3, {"s21-luxos": 1.0})
    swarm = Swarm(fleet.miners, holes=[1])
    async with swarm:
        port = fleet.miners[0].api_port

        async def reason(host: str) -> str:
            line = Line(FAMILIES["luxos"], Endpoint(host, port), None, Memory(), 0.3, Counter())
            with pytest.raises(DeviceUnreachable) as caught:
                await line.read(slow=False)
            return f"{caught.value.reason}: {caught.value}"

        assert "ECONNRESET" in await reason("127.20.200.1")
        said = await reason(fleet.miners[1].host)
        assert said.startswith(Reason.UNREACHABLE) and "no connection" in said
