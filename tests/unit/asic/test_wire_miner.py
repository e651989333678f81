"""A simulated machine that is stopped leaves nothing open, whatever its clients left behind."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import time

import pytest

from gridpivot.curves import miner_class
from sim.miners.machine import Machine
from sim.miners.vnish import SimVNish

pytestmark = pytest.mark.unit


async def test_stopped_machine_closes_connections_that_clients_left_open():
    kind = miner_class("s21pro", "vnish", "Antminer S21 Pro", shed_s=1, wake_s=2)
    miner = SimVNish(Machine(kind, 3, now_s=time.monotonic()), "02:00:00:00:00:0A")
    await miner.start()
    left = [await asyncio.open_connection("127.0.0.1", port) for port in (miner.api_port, miner.http_port)]
    left[1][1].write(b"GET / HT")  # half a request
    async with asyncio.timeout(5):
        while len(miner._open) < 2:
            await asyncio.sleep(0)
        await miner.stop()
        for reader, writer in left:
            with contextlib.suppress(ConnectionResetError):
                assert await reader.read() == b""
            writer.close()
            with contextlib.suppress(ConnectionResetError):
                await writer.wait_closed()
    assert not miner._open
    gc.collect()  # a transport left open would warn here, and a warning is an error
