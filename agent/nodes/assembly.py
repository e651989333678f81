"""Puts a site agent's side of its nodes together: CA, registry, two ports, pools, what was last seen on disk."""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import grpc
import structlog

from agent.bmc.reader import BmcReader
from agent.local_control import Asker, Handler
from agent.nodes.authority import keep_boards, load_boards, open_authority, place_of, server_pair
from agent.nodes.enrolment import NodeEnrolment
from agent.nodes.pools import NodePools
from agent.nodes.registry import Registry
from agent.nodes.servicer import NodeServicer
from agent.nodes.told import told
from agent.settings import AgentSettings
from gridpivot.clock import Clock
from gridpivot.errors import GridpivotError
from gridpivot.link.credentials import (
    SERVER_OPTIONS,
    KeyPair,
    dynamic_operator_credentials,
    dynamic_session_credentials,
)
from gridpivot.v1 import enrolment_pb2_grpc, node_pb2_grpc

log = structlog.get_logger("agent.nodes")
GRACE_S = 1.0
MORE_LOOK_S = 10.0
SERVER_LOOK_S = 6 * 3600.0  # whether the server's certificate is due for another


@dataclass(slots=True)
class NodesSide:
    """What the composition root needs: pools with a face, and work to be awaited."""

    pools: NodePools
    settings: AgentSettings
    clock: Clock

    @property
    def handlers(self) -> dict[str, Handler]:
        """What the local control answers of nodes."""

        async def tell(_request: Mapping[str, Any], _asker: Asker) -> dict[str, Any]:
            return {"nodes": told(self.pools)}

        return {"nodes": tell}

    async def run(self) -> None:
        """Serve until cancelled; raises GridpivotError when a port cannot be had."""
        settings, pools = self.settings, self.pools
        place, now = place_of(settings), dt.datetime.now(dt.UTC)
        authority = await asyncio.to_thread(open_authority, place, now)
        pair = await asyncio.to_thread(server_pair, place, authority, now)
        registry = Registry(place.directory)
        servicer = NodeServicer(settings.site, pools, registry, self.clock)
        enrolment = NodeEnrolment(
            place, authority, registry, settings.nodes.certificate_days, self.clock, pools.by_name.__contains__
        )
        enrolment.on_issued = servicer.look
        servers: list[grpc.aio.Server] = []
        ca_pem, shown = authority.certificate_pem, [pair]

        def newest() -> KeyPair:
            return shown[-1]

        async def renew_server() -> None:
            while True:
                await asyncio.sleep(SERVER_LOOK_S)
                with contextlib.suppress(GridpivotError, OSError):
                    shown[:] = [await asyncio.to_thread(server_pair, place, authority, dt.datetime.now(dt.UTC))]

        for address, credentials in (
            (settings.nodes.listen, dynamic_session_credentials(ca_pem, pair, newest)),
            (settings.nodes.enrol_listen, dynamic_operator_credentials(pair, newest)),
        ):
            server = grpc.aio.server(options=list(SERVER_OPTIONS))
            enrolment_pb2_grpc.add_EnrolmentServiceServicer_to_server(enrolment, server)
            if not servers:
                node_pb2_grpc.add_NodeServiceServicer_to_server(servicer, server)
            try:
                bound = server.add_secure_port(address, credentials)
            except RuntimeError:
                bound = 0
            if not bound:
                raise GridpivotError(f"{address}: cannot be listened on; change [nodes], or stop what listens there")
            servers.append(server)
        seen = asyncio.Event()
        pools.on_boards = seen.set
        await servicer.look()
        for server in servers:
            await server.start()
        log.info("nodes served", sessions=settings.nodes.listen, enrolment=settings.nodes.enrol_listen, dial=place.host)
        parts = [
            asyncio.create_task(part) for part in (servicer.run(), pools.run(), self._remember(seen), renew_server())
        ]
        parts += [asyncio.create_task(reader.run()) for reader in pools.wall.readers]
        try:
            done, _ = await asyncio.wait(parts, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        finally:
            for task in parts:
                task.cancel()
            await asyncio.gather(*parts, return_exceptions=True)
            await servicer.shut_down()
            for server in servers:
                await server.stop(GRACE_S)

    async def more_gpus(self) -> str:
        """Waits until a pool has more GPUs than it was declared with, and their boards are on the disk; says which."""
        while True:
            await asyncio.sleep(MORE_LOOK_S)
            late = self.pools.late()
            if late:
                boards = {node.name: node.boards for node in self.pools.table.nodes if node.boards}
                await asyncio.to_thread(keep_boards, self.settings.state_dir / "nodes", boards)
                return f"pool {late[0]} has more GPUs than it was declared with"

    async def _remember(self, seen: asyncio.Event) -> None:
        """Keep boards as they were last seen; a disk that refuses is said, and costs memory over a restart only."""
        while True:
            await seen.wait()
            seen.clear()
            boards = {node.name: node.boards for node in self.pools.table.nodes if node.boards}
            with contextlib.suppress(OSError):
                await asyncio.to_thread(keep_boards, self.settings.state_dir / "nodes", boards)


def open_nodes(settings: AgentSettings, clock: Clock) -> NodesSide:
    """Pools of the settings that name nodes, as far as they are declared or were seen."""
    pools = [pool for pool in settings.gpu.pools if pool.nodes]
    known = load_boards(settings.state_dir / "nodes")
    bmcs = [BmcReader(one.node, one, clock) for pool in pools for one in pool.bmcs]
    return NodesSide(NodePools(pools, settings.nodes, known, clock, bmcs), settings, clock)
