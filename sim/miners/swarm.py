"""Thousands of wire-level miners behind one port each of API and web: every miner has a loopback address of its own.

One listener per port on the loopback interface alone tells miners apart by the address that was called, so 11,000
machines need two sockets rather than 22,000. Absent addresses answer as absent ones do: `holes` drop every SYN.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address

from sim.miners.web import WebFace, WebPort
from sim.miners.wire import WireMiner

FIRST = "127.20.0.1"
BACKLOG = 4096


def address(number: int, first: str = FIRST) -> str:
    """Address of miner `number`; last octets 0 and 255 are left out, as a real subnet plan would."""
    start = IPv4Address(first)
    return str(start + number // 254 * 256 + number % 254)


@dataclass(slots=True)
class _Switch(asyncio.Protocol):
    """Hands a connection to the protocol of the miner whose address was called; nobody there is a reset."""

    choose: Callable[[str], asyncio.Protocol | None]
    chosen: asyncio.Protocol | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Switch the transport over to the chosen protocol, for good."""
        assert isinstance(transport, asyncio.Transport)
        called: str = transport.get_extra_info("sockname")[0]
        self.chosen = self.choose(called)
        if self.chosen is None:
            transport.abort()
            return
        transport.set_protocol(self.chosen)
        self.chosen.connection_made(transport)


class Swarm:
    """Miners by address; `async with` listens and closes. Ports of 0 take free ones, alike for all.

    `exact` listens on every miner's address alone, so that other addresses refuse as empty ones do: a socket each.
    """

    def __init__(
        self, miners: Sequence[WireMiner], first: str = FIRST, holes: Sequence[int] = (), *, exact: bool = False
    ) -> None:
        self.miners = list(miners)
        self._by_host = {}
        for number, miner in enumerate(self.miners):
            miner.host = address(number, first)
            self._by_host[miner.host] = miner
        self._holes = [self.miners[number].host for number in holes]
        self._exact = exact
        self._servers: list[asyncio.Server] = []
        self._plugs: list[socket.socket] = []

    async def start(self, api_port: int = 0, http_port: int = 0) -> None:
        """Listen on the loopback interface."""
        loop = asyncio.get_running_loop()
        if self._exact:
            for miner in self.miners:
                self._servers.append(await loop.create_server(miner.api_protocol, miner.host, api_port))
            api = api_port
        else:
            api = await self._listen(api_port, self._api)
        has_web = any(isinstance(miner, WebFace) for miner in self.miners)
        web = await self._listen(http_port, self._web) if has_web else 0
        for miner in self.miners:
            miner.api_port, miner.http_port = api, web if isinstance(miner, WebFace) else 0
        for host in self._holes:
            self._plug(host, api)

    async def stop(self) -> None:
        """Close everything."""
        for server in self._servers:
            server.close()
        for plug in self._plugs:
            plug.close()
        self._servers.clear()
        self._plugs.clear()

    async def __aenter__(self) -> Swarm:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    def _api(self, host: str) -> asyncio.Protocol | None:
        miner = self._by_host.get(host)
        return None if miner is None else miner.api_protocol()

    def _web(self, host: str) -> asyncio.Protocol | None:
        miner = self._by_host.get(host)
        return WebPort(miner) if isinstance(miner, WebFace) else None

    async def _listen(self, port: int, choose: Callable[[str], asyncio.Protocol | None]) -> int:
        listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b"lo")  # loopback alone, whatever the address
        listener.bind(("", port))
        loop = asyncio.get_running_loop()
        self._servers.append(await loop.create_server(lambda: _Switch(choose), sock=listener, backlog=BACKLOG))
        taken: int = listener.getsockname()[1]
        return taken

    def _plug(self, host: str, port: int) -> None:
        """Drop every SYN to host:port: a listener whose queue of one is full and never emptied."""
        listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        listener.bind((host, port))
        listener.listen(0)
        filler = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        filler.connect((host, port))
        self._plugs += [listener, filler]
