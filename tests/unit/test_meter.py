"""The Modbus meter against a real Modbus server on loopback."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from pymodbus.client import AsyncModbusTcpClient
from pymodbus.server import ModbusTcpServer
from pymodbus.simulator import DataType, SimData, SimDevice

from agent.meter import MeterSettings, ModbusMeter
from sim.meter import MeterFault, SimMeter

pytestmark = pytest.mark.unit


async def until(condition: Callable[[], bool], deadline_s: float = 8.0) -> None:
    async with asyncio.timeout(deadline_s):
        while not condition():
            await asyncio.sleep(0.01)


class Site:
    """True power and energy of a pretended site."""

    def __init__(self) -> None:
        self.power_w, self.energy_j = 1_234_567.0, 7_200_000_000.0

    def read(self) -> tuple[float, float]:
        return self.power_w, self.energy_j


@asynccontextmanager
async def metered(site: Site, **changes: object) -> AsyncIterator[tuple[SimMeter, ModbusMeter]]:
    server = SimMeter(site.read)
    await server.start()
    settings = server.settings(beat_s=0.1, deadline_s=0.3).model_copy(update=changes)
    meter = ModbusMeter(settings)
    task = asyncio.create_task(meter.run())
    try:
        yield server, meter
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await server.stop()


async def test_power_and_energy_are_read_in_watts_and_joules() -> None:
    async with metered(Site()) as (_, meter):
        before = time.monotonic()
        await until(lambda: meter.newest() is not None)
        sample = meter.newest()
        assert sample is not None
        assert (sample.power_w, sample.import_energy_j) == (1_234_567.0, 7_200_000_000)
        assert before <= sample.read_at_s <= time.monotonic()


async def test_dead_meter_keeps_its_old_sample_and_recovers() -> None:
    site = Site()
    async with metered(site) as (server, meter):
        await until(lambda: meter.newest() is not None)
        server.fault = MeterFault.DEAD
        await until(lambda: sum(meter.errors.values()) > 0)
        stale = meter.newest()
        assert stale is not None
        await until(lambda: sum(meter.errors.values()) > 1)
        assert meter.newest() == stale
        site.power_w = 5.0
        server.fault = MeterFault.NONE
        await until(lambda: (s := meter.newest()) is not None and s.power_w == 5.0)
        assert meter.connects >= 2


async def test_frozen_and_reversed_faults_show_on_the_wire() -> None:
    site = Site()
    async with metered(site) as (server, meter):
        await until(lambda: meter.newest() is not None)
        server.fault = MeterFault.FROZEN
        site.power_w = 10.0
        read = meter.samples
        await until(lambda: meter.samples > read + 2)
        frozen = meter.newest()
        assert frozen is not None and frozen.power_w == 1_234_567.0
        server.fault = MeterFault.REVERSED
        await until(lambda: (s := meter.newest()) is not None and s.power_w == -10.0)


async def test_meter_delay_shows_old_power() -> None:
    site = Site()
    async with metered(site) as (server, meter):
        server.delay_s = 0.6
        site.power_w = 7.0
        changed_s = time.monotonic()
        await until(lambda: (s := meter.newest()) is not None and s.power_w == 7.0)
        assert time.monotonic() - changed_s >= 0.5


async def test_power_beyond_a_gigawatt_is_refused_and_counted() -> None:
    async with metered(Site(), power_scale_w=1000.0) as (_, meter):
        await until(lambda: meter.errors["bad_value"] > 0)
        assert meter.newest() is None


async def test_missing_register_is_an_answer_not_a_crash() -> None:
    async with metered(Site(), power_address=9000) as (_, meter):
        await until(lambda: meter.errors["refused"] > 1)
        assert meter.newest() is None


async def test_no_value_mark_is_refused() -> None:
    site = Site()
    site.power_w = -(2.0**31)
    async with metered(site) as (_, meter):
        await until(lambda: meter.errors["bad_value"] > 0)
        assert meter.newest() is None


async def test_closed_port_is_unreachable_with_backoff(unused_tcp_port: int) -> None:
    meter = ModbusMeter(MeterSettings(host="127.0.0.1", port=unused_tcp_port, power_address=1, beat_s=0.1))
    task = asyncio.create_task(meter.run())
    await until(lambda: meter.errors["unreachable"] >= 2)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert meter.newest() is None


KINDS = AsyncModbusTcpClient.DATATYPE


@pytest.mark.parametrize(
    ("kind", "datatype", "order", "raw", "scale_w", "watts"),
    [
        ("float32", KINDS.FLOAT32, "big", 1500.5, 1000.0, 1_500_500.0),
        ("float32", KINDS.FLOAT32, "little", -2.5, 1.0, -2.5),
        ("uint16", KINDS.UINT16, "big", 65_000, 10.0, 650_000.0),
        ("int16", KINDS.INT16, "big", -7, -100.0, 700.0),  # a CT the wrong way round, turned in the settings
        ("uint32", KINDS.UINT32, "little", 70_000, 1.0, 70_000.0),
    ],
)
@pytest.mark.parametrize("table", ["holding", "input"])
async def test_register_types_word_orders_and_scales(
    kind: str, datatype: Any, order: Any, raw: float, scale_w: float, watts: float, table: str
) -> None:
    registers = AsyncModbusTcpClient.convert_to_registers(raw, datatype, word_order=order)
    block = [SimData(40, values=registers, datatype=DataType.REGISTERS)]
    server = ModbusTcpServer(SimDevice(9, block), address=("127.0.0.1", 0))
    await server.serve_forever(background=True)
    settings = MeterSettings.model_validate(
        {
            "host": "127.0.0.1",
            "port": server.transport.sockets[0].getsockname()[1],  # type: ignore[union-attr]
            "device_id": 9,
            "table": table,
            "power_address": 40,
            "power_type": kind,
            "word_order": order,
            "power_scale_w": scale_w,
            "beat_s": 0.1,
        }
    )
    meter = ModbusMeter(settings)
    task = asyncio.create_task(meter.run())
    try:
        await until(lambda: meter.newest() is not None)
        sample = meter.newest()
        assert sample is not None and sample.power_w == pytest.approx(watts)
        assert sample.import_energy_j is None
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await server.shutdown()


async def test_a_float_that_is_not_finite_is_refused() -> None:
    registers = AsyncModbusTcpClient.convert_to_registers(float("nan"), KINDS.FLOAT32)
    server = ModbusTcpServer(
        SimDevice(1, [SimData(0, values=registers, datatype=DataType.REGISTERS)]), address=("127.0.0.1", 0)
    )
    await server.serve_forever(background=True)
    port = server.transport.sockets[0].getsockname()[1]  # type: ignore[union-attr]
    meter = ModbusMeter(MeterSettings(host="127.0.0.1", port=port, power_address=0, power_type="float32", beat_s=0.1))
    task = asyncio.create_task(meter.run())
    await until(lambda: meter.errors["bad_value"] > 0)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    await server.shutdown()
    assert meter.newest() is None
