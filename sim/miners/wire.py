"""What all wire-level miners share: a TCP port that answers one JSON request per connection, as cgminer does.

Built on asyncio protocols rather than streams: two hundred miners polled every two seconds must cost next to nothing.
"""

from __future__ import annotations

import asyncio
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, Protocol

import orjson

from gridpivot.curves import MinerClass
from sim.miners.fault import MAX_REQUEST_BYTES, WireFault
from sim.miners.machine import Machine
from sim.miners.web import WebFace, WebPort

DESCRIPTION = "cgminer 4.11.1"


class Answering(Protocol):
    """A miner as its port sees it."""

    fault: WireFault
    terminator: bytes

    def answer(self, request: dict[str, Any]) -> bytes | None:
        """Reply to one request; None closes the connection without a word."""
        ...


class ApiPort(asyncio.Protocol):
    """One connection: read a JSON request, write the reply, close."""

    def __init__(self, miner: Answering) -> None:
        self._miner = miner
        self._buffer = b""
        self._transport: asyncio.Transport | None = None
        self._feeding: asyncio.Task[None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Remember the transport."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        """Answer as soon as the request is whole."""
        self._buffer += data
        transport = self._transport
        if transport is None or len(self._buffer) > MAX_REQUEST_BYTES:
            if transport is not None:
                transport.abort()
            return
        try:
            request = orjson.loads(self._buffer.strip(b"\x00\r\n "))
        except orjson.JSONDecodeError:
            return
        fault = self._miner.fault
        if fault is WireFault.SILENT:
            return
        if fault in (WireFault.HUGE, WireFault.ENDLESS):
            self._feeding = asyncio.create_task(self._feed(transport, 160 if fault is WireFault.HUGE else 10**9))
            return
        if fault is WireFault.TRICKLE:
            self._feeding = asyncio.create_task(self._trickle(transport))
            return
        reply = self._miner.answer(request) if isinstance(request, dict) else None
        if fault is WireFault.GARBAGE:
            reply = b"<html>no miner here</html>"
        if reply is not None:
            half = fault is WireFault.TRUNCATED
            transport.write(reply[: len(reply) // 2] if half else reply + self._miner.terminator)
        transport.close()

    async def _feed(self, transport: asyncio.Transport, chunks: int) -> None:
        for _ in range(chunks):
            if transport.is_closing():
                return
            transport.write(b'{"x":"' + b"y" * 65_530)
            await asyncio.sleep(0.001)
        transport.close()

    async def _trickle(self, transport: asyncio.Transport) -> None:
        for letter in b'{"STATUS":[{"STATUS":"S"}]}':
            if transport.is_closing():
                return
            transport.write(bytes((letter,)))
            await asyncio.sleep(1.0)

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop feeding."""
        if self._feeding is not None:
            self._feeding.cancel()


class WireMiner(ABC):
    """Base of the three firmware families: a machine, a port, a clock."""

    family = ""
    terminator = b"\x00"
    factory_password = "admin"  # noqa: S105 public knowledge

    def __init__(
        self, machine: Machine, mac: str, *, password: str = "", clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.machine = machine
        self.mac = mac
        self.password = password or self.factory_password
        self.clock = clock
        self.fault = WireFault.NONE
        self.requests = 0
        self.host = ""
        self.api_port = 0
        self.http_port = 0
        self.aux_port = 0
        self._servers: list[asyncio.Server] = []
        self._open: set[asyncio.BaseTransport] = set()

    @property
    def kind(self) -> MinerClass:
        """The machine's class."""
        return self.machine.kind

    async def start(self, host: str = "127.0.0.1", api_port: int = 0, http_port: int = 0, aux_port: int = 0) -> None:
        """Listen; port 0 takes a free one."""
        loop = asyncio.get_running_loop()
        self.host = host
        self.api_port = await self._listen(lambda: self.api_protocol(), api_port)
        if isinstance(self, WebFace):
            face = self
            self.http_port = await self._listen(lambda: WebPort(face), http_port)
        await self.start_aux(loop, aux_port)

    def api_protocol(self) -> asyncio.Protocol:
        """What speaks on the API port."""
        return ApiPort(self)

    async def start_aux(self, loop: asyncio.AbstractEventLoop, aux_port: int) -> None:  # noqa: B027 - most have none
        """Families with a third door listen here and set `aux_port`."""

    async def _listen(self, make: Callable[[], asyncio.Protocol], port: int) -> int:
        server = await asyncio.get_running_loop().create_server(lambda: self._counted(make()), self.host, port)
        self._servers.append(server)
        taken: int = server.sockets[0].getsockname()[1]
        return taken

    def _counted(self, port: asyncio.Protocol) -> asyncio.Protocol:
        """The same port, its connection remembered while it is open: a server's `close` leaves connections standing."""
        begun, ended = port.connection_made, port.connection_lost
        mine: list[asyncio.BaseTransport] = []

        def connection_made(transport: asyncio.BaseTransport) -> None:
            mine.append(transport)
            self._open.add(transport)
            begun(transport)

        def connection_lost(exc: Exception | None) -> None:
            self._open.difference_update(mine)
            ended(exc)

        vars(port).update(connection_made=connection_made, connection_lost=connection_lost)
        return port

    async def stop(self) -> None:
        """Close every port, and every connection that a client left open."""
        for server in self._servers:
            server.close()
        self._servers.clear()
        for transport in tuple(self._open):
            if isinstance(transport, asyncio.WriteTransport):
                transport.abort()
        await asyncio.sleep(0)  # their connection_lost runs

    @abstractmethod
    def answer(self, request: dict[str, Any]) -> bytes | None:
        """Reply to one API request."""


def status(code: int, message: str, letter: str = "S", description: str = DESCRIPTION) -> list[dict[str, Any]]:
    """The STATUS section of a cgminer reply."""
    return [{"STATUS": letter, "When": int(time.time()), "Code": code, "Msg": message, "Description": description}]
