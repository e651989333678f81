"""A Modbus controller of fans and switches: coils that are written, discrete inputs that prove what moved.

Coil n belongs to input n, which follows it after `lag_s` (a fan needs a moment) unless the coil is `stuck`.
"""

from __future__ import annotations

import asyncio
import time

from pymodbus.constants import ExcCodes
from pymodbus.server import ModbusTcpServer
from pymodbus.simulator import DataType, SimData, SimDevice

_READ_INPUTS = 2


class SimCoils:
    """`count` coils on a free port of 127.0.0.1."""

    def __init__(self, count: int = 4, lag_s: float = 0.0) -> None:
        self.on = [False] * count
        self.stuck: set[int] = set()
        self.writes: list[tuple[int, bool]] = []
        self.port = 0
        self._lag_s = lag_s
        self._changed_s = [float("-inf")] * count
        self._server: ModbusTcpServer | None = None

    def moves(self, number: int) -> bool:
        """What the input of a coil shows now."""
        settled = time.monotonic() - self._changed_s[number] >= self._lag_s
        return self.on[number] if settled and number not in self.stuck else False

    async def start(self) -> None:
        """Listen."""
        # The library packs sixteen bits to a register; one bit is asked for at a time.
        bits = [SimData(0, count=16 * len(self.on), values=False, datatype=DataType.BITS)]
        words = [SimData(0, count=1, values=0, datatype=DataType.REGISTERS)]
        device = SimDevice(1, (bits, bits, words, words), action=self._answer)
        self._server = ModbusTcpServer(device, address=("127.0.0.1", 0))
        await self._server.serve_forever(background=True)
        transport = self._server.transport
        assert isinstance(transport, asyncio.Server)
        self.port = transport.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        """Close."""
        if self._server is not None:
            await self._server.shutdown()  # type: ignore[no-untyped-call]

    async def _answer(
        self,
        function_code: int,
        start_address: int,
        address: int,
        count: int,
        registers: list[int],
        set_values: list[int] | list[bool] | None,
    ) -> ExcCodes | None:
        """Fill what is read; take what is written."""
        if set_values is not None:
            for offset, value in enumerate(set_values):
                self.on[address + offset] = bool(value)
                self._changed_s[address + offset] = time.monotonic()
                self.writes.append((address + offset, bool(value)))
            return None
        shown = self.moves(address) if function_code == _READ_INPUTS else self.on[address]
        bit = 1 << (address % 16)
        registers[address // 16] = registers[address // 16] & ~bit | (bit if shown else 0)
        return None
