"""Coils and discrete inputs over Modbus TCP: fans that are switched and proven, feeders that can be opened.

One background task per controller reads every proof at a beat and writes what was asked, newest wish per coil first
and again until it reads back. What cannot be read is unknown, which for air means: does not move.
"""

from __future__ import annotations

import asyncio
import itertools
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pydantic import Field
from pymodbus.client import AsyncModbusTcpClient
from pymodbus.exceptions import ModbusException

from gridpivot.settings import Section

BEAT_S = 1.0
MAX_BACKOFF_S = 10.0


class CoilSettings(Section):
    """Where one coil is, and the discrete input that proves its effect (none: the coil read back has to do)."""

    host: str
    port: int = Field(default=502, ge=1, le=65_535)
    device_id: int = Field(default=1, ge=0, le=255)
    coil: int = Field(ge=0, le=65_535)
    proof: int | None = Field(default=None, ge=0, le=65_535)
    inverted: bool = False  # the coil is energised to stop or to open
    deadline_s: float = Field(default=1.0, gt=0, le=30)


@dataclass(slots=True)
class _Wish:
    on: bool
    once: bool  # forgotten when it has been seen: what a person does afterwards stands


class ModbusCoils:
    """Named coils; `state` is what proofs show (None = not known), `ask` wants one on or off. `run()` must be awaited."""

    def __init__(self, coils: Mapping[str, CoilSettings], beat_s: float = BEAT_S) -> None:
        self._coils = dict(coils)
        self._beat_s = beat_s
        self._state: dict[str, bool] = {}
        self._wishes: dict[str, _Wish] = {}
        self.errors: Counter[str] = Counter()  # by word: unreachable, slow, refused
        self.writes = 0

    def state(self) -> Mapping[str, bool]:
        """What is proven now; a name that is missing is unknown."""
        return self._state

    def ask(self, name: str, on: bool, *, once: bool = False) -> None:
        """Want one on or off, for good or until it is seen `once`; returns at once. Raises KeyError for an unknown name."""
        if name not in self._coils:
            raise KeyError(name)
        wish = self._wishes.get(name)
        if wish is None or wish.on != on:
            self._wishes[name] = _Wish(on, once)

    async def run(self) -> None:
        """Read and write until cancelled."""
        keyed = sorted(self._coils, key=self._where)
        async with asyncio.TaskGroup() as group:
            for _, names in itertools.groupby(keyed, key=self._where):
                group.create_task(self._serve(list(names)))

    def _where(self, name: str) -> tuple[str, int]:
        return self._coils[name].host, self._coils[name].port

    async def _serve(self, names: Sequence[str]) -> None:
        """One controller: a connection, kept while it answers."""
        failures = 0
        given = self._coils[names[0]]
        while True:
            client = AsyncModbusTcpClient(
                given.host, port=given.port, timeout=given.deadline_s, retries=0, reconnect_delay=0, name="coils"
            )
            try:
                async with asyncio.timeout(given.deadline_s):
                    connected = await client.connect()
                while connected:
                    await self._round(client, names)
                    failures = 0
                    await asyncio.sleep(self._beat_s)
                self.errors["unreachable"] += 1
            except TimeoutError:
                self.errors["slow"] += 1
            except (ModbusException, OSError) as error:
                self.errors["slow" if "No response" in str(error) else "unreachable"] += 1
            finally:
                client.close()
            for name in names:
                self._state.pop(name, None)
            failures += 1
            await asyncio.sleep(min(MAX_BACKOFF_S, self._beat_s * 2.0 ** min(failures - 1, 8)))

    async def _round(self, client: AsyncModbusTcpClient, names: Sequence[str]) -> None:
        for name in names:
            given, wish = self._coils[name], self._wishes.get(name)
            async with asyncio.timeout(given.deadline_s * 3):
                held = await self._bit(client, name, given.coil, coil=True)
                if wish is not None and held is not None and held != (wish.on != given.inverted):
                    answer = await client.write_coil(given.coil, wish.on != given.inverted, device_id=given.device_id)
                    self.writes += 1
                    if answer.isError():
                        self.errors["refused"] += 1
                    held = await self._bit(client, name, given.coil, coil=True)
                if wish is not None and wish.once and held == (wish.on != given.inverted):
                    self._wishes.pop(name, None)
                if given.proof is None:
                    shown = None if held is None else held != given.inverted
                else:
                    shown = await self._bit(client, name, given.proof, coil=False)
            if shown is None:
                self._state.pop(name, None)
            else:
                self._state[name] = shown

    async def _bit(self, client: AsyncModbusTcpClient, name: str, address: int, *, coil: bool) -> bool | None:
        read = client.read_coils if coil else client.read_discrete_inputs
        answer = await read(address, count=1, device_id=self._coils[name].device_id)
        if answer.isError():
            self.errors["refused"] += 1
            return None
        return bool(answer.bits[0])
