"""The site meter over Modbus TCP: a register map from settings, one newest sample, faults counted and never hidden.

A read that fails leaves the last sample where it is: its age tells. A value outside all sense (not finite, beyond a
gigawatt, the "no value" mark of a signed register) is refused and counted. Whether the meter is believed is the
governor's decision, not this module's.
"""

from __future__ import annotations

import asyncio
import collections
import logging
import math
import time
from fractions import Fraction
from typing import Literal

from pydantic import Field
from pymodbus.client import AsyncModbusTcpClient
from pymodbus.exceptions import ModbusException

from agent.backends import MeterSample
from agent.energy import HIGHEST_J, Counter
from gridpivot.settings import Section

# The library writes a line to stderr at every failed connection; `errors` counts them and the governor says it once.
logging.getLogger("pymodbus").setLevel(logging.CRITICAL)

MAX_POWER_W = 1e9
MAX_BACKOFF_S = 10.0
RegisterType = Literal["int16", "uint16", "int32", "uint32", "int64", "uint64", "float32", "float64"]
_DATATYPES = {
    "int16": AsyncModbusTcpClient.DATATYPE.INT16,
    "uint16": AsyncModbusTcpClient.DATATYPE.UINT16,
    "int32": AsyncModbusTcpClient.DATATYPE.INT32,
    "uint32": AsyncModbusTcpClient.DATATYPE.UINT32,
    "int64": AsyncModbusTcpClient.DATATYPE.INT64,
    "uint64": AsyncModbusTcpClient.DATATYPE.UINT64,
    "float32": AsyncModbusTcpClient.DATATYPE.FLOAT32,
    "float64": AsyncModbusTcpClient.DATATYPE.FLOAT64,
}
_NO_VALUE = {"int16": -(2**15), "int32": -(2**31), "int64": -(2**63)}  # SunSpec's mark in signed registers


class MeterSettings(Section):
    """Where the meter is and what its registers mean. `power_scale_w` is watts per count; negative turns a CT around.

    `energy_unit_j` is joules per count of the import counter (3,600,000 for kWh, 3,600 for Wh).
    """

    host: str
    port: int = Field(default=502, ge=1, le=65_535)
    device_id: int = Field(default=1, ge=0, le=255)
    table: Literal["holding", "input"] = "holding"
    power_address: int = Field(ge=0, le=65_535)
    power_type: RegisterType = "int32"
    power_scale_w: float = 1.0
    energy_address: int | None = Field(default=None, ge=0, le=65_535)
    energy_type: RegisterType = "uint64"
    energy_unit_j: float = Field(default=3600.0, gt=0)
    energy_rollover_counts: int | None = Field(default=None, gt=0, le=2**64)  # none = where the type ends
    word_order: Literal["big", "little"] = "big"
    beat_s: float = Field(default=1.0, ge=0.1, le=60)
    deadline_s: float = Field(default=1.0, gt=0, le=30)

    def counter(self, most_w: float) -> Counter:
        """The import counter for the ledger, of a site that draws at most `most_w`. Floats never roll over."""
        counts = self.energy_rollover_counts
        if counts is None and "int" in self.energy_type:
            bits = int(self.energy_type.lstrip("uint"))
            counts = 2**bits if self.energy_type.startswith("u") else 2 ** (bits - 1)
        modulus_j = None if counts is None else round(Fraction(self.energy_unit_j) * counts)
        register = f"{self.host}:{self.port}/{self.device_id}/{self.table}/{self.energy_address}"
        register += f"/{self.energy_type}/{self.word_order}/{self.energy_unit_j:.12g}"
        return Counter(math.ceil(self.energy_unit_j), modulus_j, min(most_w, MAX_POWER_W), register)


class BadValue(ValueError):
    """A register that holds no usable value."""


class ModbusMeter:
    """Implements `agent.backends.Meter`. `run()` must be awaited by the service."""

    def __init__(self, settings: MeterSettings) -> None:
        self.settings = settings
        self.errors: collections.Counter[str] = collections.Counter()  # unreachable, slow, refused, bad_value
        self.samples = 0
        self.connects = 0
        self._newest: MeterSample | None = None

    def newest(self) -> MeterSample | None:
        """Newest good sample, None before the first."""
        return self._newest

    async def run(self) -> None:
        """Read at the beat until cancelled; a broken connection is made anew with back-off."""
        failures = 0
        while True:
            if await self._session():
                failures = 0
            failures += 1
            await asyncio.sleep(min(MAX_BACKOFF_S, self.settings.beat_s * 2.0 ** min(failures - 1, 8)))

    async def _session(self) -> bool:
        """One connection, read until it fails; whether it gave any sample."""
        given = self.settings
        client = AsyncModbusTcpClient(
            given.host, port=given.port, timeout=given.deadline_s, retries=0, reconnect_delay=0, name="site-meter"
        )
        before = self.samples
        try:
            async with asyncio.timeout(given.deadline_s):
                connected = await client.connect()
            if not connected:
                self.errors["unreachable"] += 1
                return False
            self.connects += 1
            await self._read_at_beat(client)
        except TimeoutError:
            self.errors["slow" if client.connected else "unreachable"] += 1
        except (ModbusException, OSError) as error:
            self.errors["slow" if "No response" in str(error) else "unreachable"] += 1
        finally:
            client.close()
        return self.samples > before

    async def _read_at_beat(self, client: AsyncModbusTcpClient) -> None:
        loop = asyncio.get_running_loop()
        due_s = loop.time()
        while True:
            started_s = time.monotonic()
            try:
                async with asyncio.timeout(self.settings.deadline_s * 1.5):
                    power_w, energy_j = await self._read(client)
            except BadValue:
                self.errors["bad_value"] += 1
            else:
                self._newest = MeterSample(power_w, started_s, energy_j)
                self.samples += 1
            due_s = max(due_s + self.settings.beat_s, loop.time())
            await asyncio.sleep(due_s - loop.time())

    async def _read(self, client: AsyncModbusTcpClient) -> tuple[float, int | None]:
        given = self.settings
        count = await self._register(client, given.power_address, given.power_type)
        power_w = count * given.power_scale_w
        if not math.isfinite(power_w) or abs(power_w) > MAX_POWER_W:
            raise BadValue(f"power of {power_w} W")
        if given.energy_address is None:
            return power_w, None
        try:
            return power_w, await self._read_counter(client, given.energy_address)
        except BadValue:  # a counter that cannot be read must not take the power away
            self.errors["bad_value"] += 1
            return power_w, None

    async def _read_counter(self, client: AsyncModbusTcpClient, address: int) -> int:
        counts = await self._register(client, address, self.settings.energy_type)
        if not math.isfinite(counts) or counts < 0:
            raise BadValue(f"energy counter of {counts}")
        energy_j = round(Fraction(counts) * Fraction(self.settings.energy_unit_j))
        if energy_j > HIGHEST_J:
            raise BadValue(f"energy counter of {energy_j} J")
        return energy_j

    async def _register(self, client: AsyncModbusTcpClient, address: int, kind: RegisterType) -> float:
        datatype = _DATATYPES[kind]
        read = client.read_holding_registers if self.settings.table == "holding" else client.read_input_registers
        answer = await read(address, count=datatype.value[1], device_id=self.settings.device_id)
        if answer.isError():
            self.errors["refused"] += 1
            raise BadValue(f"exception answer for register {address}")
        value = client.convert_from_registers(answer.registers, datatype, word_order=self.settings.word_order)
        if not isinstance(value, (int, float)) or value == _NO_VALUE.get(kind):
            raise BadValue(f"no value in register {address}")
        return value
