"""A Modbus TCP meter that does not exist: watts and joules from a callable, with the delays and faults of real ones.

Registers (holding, device 1): 100-101 import power [W, int32], 110-113 import energy [Wh, uint64]; big word order.
`settings()` gives the `MeterSettings` that read it.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import Callable
from enum import StrEnum

from pymodbus.client import AsyncModbusTcpClient
from pymodbus.constants import ExcCodes
from pymodbus.server import ModbusTcpServer
from pymodbus.simulator import DataType, SimData, SimDevice

from agent.meter import MeterSettings

POWER_ADDRESS, ENERGY_ADDRESS = 100, 110
_FIRST, _COUNT = 100, 14
_SAMPLE_S, _KEPT_S = 0.1, 6.0


class MeterFault(StrEnum):
    """What can be wrong with the simulated meter."""

    NONE = "none"
    DEAD = "dead"  # takes connections and requests, never answers
    FROZEN = "frozen"  # answers the last values for ever
    REVERSED = "reversed"  # a CT the wrong way round


class SimMeter:
    """Modbus TCP server on 127.0.0.1. `read()` gives true (power [W], import energy [J]); `delay_s` 0 to 5."""

    def __init__(self, read: Callable[[], tuple[float, float]], delay_s: float = 0.0) -> None:
        self._read = read
        self.delay_s = delay_s
        self._fault = MeterFault.NONE
        self._history: deque[tuple[float, float, float]] = deque()
        self._shown = (0.0, 0.0)
        self._alive = asyncio.Event()
        self._alive.set()
        self._server: ModbusTcpServer | None = None
        self._sampler: asyncio.Task[None] | None = None
        self.port = 0

    @property
    def fault(self) -> MeterFault:
        """The fault in force."""
        return self._fault

    @fault.setter
    def fault(self, fault: MeterFault) -> None:
        self._fault = fault
        if fault is MeterFault.DEAD:
            self._alive.clear()
        else:
            self._alive.set()

    def settings(self, beat_s: float = 1.0, deadline_s: float = 1.0) -> MeterSettings:
        """Settings with which an agent reads this meter."""
        return MeterSettings(
            host="127.0.0.1",
            port=self.port,
            power_address=POWER_ADDRESS,
            power_type="int32",
            energy_address=ENERGY_ADDRESS,
            energy_type="uint64",
            energy_unit_j=3600.0,
            beat_s=beat_s,
            deadline_s=deadline_s,
        )

    async def start(self) -> None:
        """Listen on a free port."""
        self._sample()
        block = SimData(_FIRST, count=_COUNT, values=0, datatype=DataType.REGISTERS)
        self._server = ModbusTcpServer(SimDevice(1, [block], action=self._answer), address=("127.0.0.1", 0))
        await self._server.serve_forever(background=True)
        transport = self._server.transport
        assert isinstance(transport, asyncio.Server)
        self.port = transport.sockets[0].getsockname()[1]
        self._sampler = asyncio.create_task(self._keep_sampling(), name="sim-meter")

    async def stop(self) -> None:
        """Close the server and forget the faults."""
        self._alive.set()
        if self._sampler is not None:
            self._sampler.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._sampler
        if self._server is not None:
            await self._server.shutdown()  # type: ignore[no-untyped-call]

    async def _keep_sampling(self) -> None:
        while True:
            await asyncio.sleep(_SAMPLE_S)
            self._sample()

    def _sample(self) -> None:
        now_s = time.monotonic()
        self._history.append((now_s, *self._read()))
        while self._history[0][0] < now_s - _KEPT_S:
            self._history.popleft()

    def _delayed(self) -> tuple[float, float]:
        if self.delay_s <= 0:
            return self._read()
        shown_at_s = time.monotonic() - self.delay_s
        older = [entry for entry in self._history if entry[0] <= shown_at_s]
        _, power_w, energy_j = older[-1] if older else self._history[0]
        return power_w, energy_j

    async def _answer(
        self,
        function_code: int,
        start_address: int,
        address: int,
        count: int,
        registers: list[int],
        set_values: list[int] | list[bool] | None,
    ) -> ExcCodes | None:
        """Fill the registers just before they are read; writes are refused."""
        await self._alive.wait()
        if set_values is not None:
            return ExcCodes.ILLEGAL_FUNCTION
        if self._fault is not MeterFault.FROZEN:
            power_w, energy_j = self._delayed()
            self._shown = (-power_w if self._fault is MeterFault.REVERSED else power_w, energy_j)
        power_w, energy_j = self._shown
        put = AsyncModbusTcpClient.convert_to_registers
        kinds = AsyncModbusTcpClient.DATATYPE
        at = POWER_ADDRESS - start_address
        registers[at : at + 2] = put(round(power_w), kinds.INT32)
        at = ENERGY_ADDRESS - start_address
        registers[at : at + 4] = put(int(energy_j // 3600), kinds.UINT64)
        return None
