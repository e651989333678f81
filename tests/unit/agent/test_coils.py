"""Coils over a real Modbus server: written, read back, proven by their input; unknown when nobody answers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest

from agent.coils import CoilSettings, ModbusCoils
from sim.coils import SimCoils

pytestmark = pytest.mark.unit


async def until(condition: Callable[[], bool], deadline_s: float = 10.0) -> None:
    async with asyncio.timeout(deadline_s):
        while not condition():
            await asyncio.sleep(0.01)


@asynccontextmanager
async def served(sim: SimCoils, **options: object) -> AsyncIterator[ModbusCoils]:
    await sim.start()
    given = {name: CoilSettings(host="127.0.0.1", port=sim.port, coil=n, **options) for n, name in enumerate("ABC")}  # type: ignore[arg-type]
    coils = ModbusCoils(given, beat_s=0.05)
    running = asyncio.create_task(coils.run())
    try:
        yield coils
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        await sim.stop()


async def test_a_coil_is_switched_and_shown_by_itself_where_it_has_no_input() -> None:
    sim = SimCoils()
    async with served(sim) as coils:
        await until(lambda: coils.state() == {"A": False, "B": False, "C": False})
        coils.ask("B", True)
        await until(lambda: coils.state()["B"] is True)
        assert sim.on == [False, True, False, False]
        assert sim.writes == [(1, True)]


async def test_the_input_proves_and_a_stuck_fan_never_counts_as_running() -> None:
    sim = SimCoils()
    sim.stuck.add(0)
    await sim.start()
    given = {n: CoilSettings(host="127.0.0.1", port=sim.port, coil=c, proof=c) for c, n in enumerate("AB")}
    coils = ModbusCoils(given, beat_s=0.05)
    running = asyncio.create_task(coils.run())
    coils.ask("A", True)
    coils.ask("B", True)
    await until(lambda: coils.state().get("B") is True)
    assert sim.on[0] and coils.state()["A"] is False
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    await sim.stop()


async def test_a_wish_that_stands_is_written_again_and_one_for_once_is_not() -> None:
    sim = SimCoils()
    sim.on[0] = sim.on[1] = True
    async with served(sim) as coils:
        coils.ask("A", False, once=True)
        coils.ask("B", False)
        await until(lambda: not sim.on[0] and not sim.on[1])
        await until(lambda: coils.state().get("A") is False)
        sim.on[0] = sim.on[1] = True  # a person at the switchboard
        await until(lambda: not sim.on[1])
        await until(lambda: coils.state().get("A") is True)
        assert sim.on[0]
        assert sim.writes.count((0, False)) == 1


async def test_an_inverted_coil_is_energised_to_open() -> None:
    sim = SimCoils()
    async with served(sim, inverted=True) as coils:
        await until(lambda: coils.state().get("A") is True)
        coils.ask("A", False, once=True)
        await until(lambda: coils.state()["A"] is False)
        assert sim.on[0] is True


async def test_nobody_there_is_unknown_and_counted(unused_tcp_port: int) -> None:
    coils = ModbusCoils({"A": CoilSettings(host="127.0.0.1", port=unused_tcp_port, coil=0)}, beat_s=0.01)
    running = asyncio.create_task(coils.run())
    await until(lambda: coils.errors["unreachable"] >= 2)
    assert coils.state() == {}
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


async def test_a_controller_that_goes_away_takes_its_proofs_with_it() -> None:
    sim = SimCoils()
    async with served(sim) as coils:
        await until(lambda: len(coils.state()) == 3)
        await sim.stop()
        await until(lambda: coils.state() == {})


def test_a_name_that_was_not_declared_is_an_error() -> None:
    with pytest.raises(KeyError):
        ModbusCoils({}).ask("C9", True)
