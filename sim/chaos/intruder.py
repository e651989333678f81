"""Somebody with a valid certificate and bad intentions: speaks the session protocol to the controller by hand.

In: requests, as spoilt as the caller likes. Out: what was acknowledged, or how the controller ended the session.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections.abc import AsyncIterator
from typing import Any

import grpc

from gridpivot.link.codec import KIND_OF
from gridpivot.link.credentials import KeyPair, client_credentials
from gridpivot.v1 import session_pb2 as wire
from gridpivot.v1 import session_pb2_grpc
from gridpivot.v1 import telemetry_pb2 as pb

DEADLINE_S = 15.0
LANE_OF = {
    pb.SiteEvent: wire.LANE_EVENTS,
    pb.Inventory: wire.LANE_EVENTS,
    pb.SiteRollup: wire.LANE_SITE,
    pb.DeviceReport: wire.LANE_DEVICES,
}
NO_LIMIT = (("grpc.max_send_message_length", -1), ("grpc.max_receive_message_length", -1))


def hello_of(site: str) -> wire.Hello:
    """What an agent would say; a spool of its own each time."""
    now_ms = round(time.time() * 1000)
    return wire.Hello(
        site=site,
        boot_id=os.urandom(16),
        agent_version="chaos",
        instance_id=site.encode().ljust(16, b"\0")[:16],
        wall_clock_unix_ms=now_ms,
        monotonic_ms=round(time.monotonic() * 1000),
        spool=[wire.LaneRange(lane=lane, first_seq=1) for lane in wire.Lane.values() if lane],
    )


class Session:
    """One stream. `goaway` is the controller's word, `broken` what gRPC said, each "" while it lives."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream
        self.welcomed = self.ended = False
        self.goaway = self.broken = ""
        self._through: dict[int, int] = {}
        self._also: set[tuple[int, int]] = set()
        self._seq: dict[int, int] = {}
        self._news = asyncio.Event()

    async def read(self) -> None:
        """Take what comes, until the end."""
        try:
            while isinstance(response := await self._stream.read(), wire.SessionResponse):
                self._take(response)
                self._news.set()
        except grpc.aio.AioRpcError as error:
            self.broken = f"{error.code().name}: {error.details()}"
        finally:
            self.ended = True
            self._news.set()

    def _take(self, response: wire.SessionResponse) -> None:
        match response.WhichOneof("kind"):
            case "welcome":
                self.welcomed = True
            case "goaway":
                self.goaway = response.goaway.code
            case "acks":
                for ack in response.acks.lanes:
                    self._through[ack.lane] = max(ack.through_seq, self._through.get(ack.lane, 0))
                    self._also.update((ack.lane, seq) for seq in ack.also_seqs)
            case _:
                pass

    def acked(self, lane: int, seq: int) -> bool:
        """Whether the controller says that it has the record."""
        return seq <= self._through.get(lane, 0) or (lane, seq) in self._also

    async def send(self, request: wire.SessionRequest) -> None:
        """One message; a stream that has ended takes nothing and says nothing."""
        with contextlib.suppress(grpc.aio.AioRpcError, asyncio.InvalidStateError):
            async with asyncio.timeout(DEADLINE_S):
                await self._stream.write(request)

    async def put(self, message: Any, payload: bytes) -> tuple[int, int]:
        """A record with the next number; returns its lane and number."""
        lane = LANE_OF[type(message)]
        seq = self._seq[lane] = self._seq.get(lane, 0) + 1
        record = wire.LaneRecord(seq=seq, kind=KIND_OF[type(message)], payload=payload)
        await self.send(wire.SessionRequest(batch=wire.LaneBatch(lane=lane, records=[record])))
        return lane, seq

    async def settled(self, lane: int, seq: int) -> str:
        """Wait until a record is acknowledged ("acked") or the session ends (its last word); raises TimeoutError."""
        return await self.until(lambda: self.acked(lane, seq), f"record {seq} of lane {lane}")

    async def until(self, condition: Any, what: str = "an answer") -> str:
        """Wait for something, or for the end."""
        try:
            async with asyncio.timeout(DEADLINE_S):
                while not condition() and not self.ended:
                    self._news.clear()
                    await self._news.wait()
        except TimeoutError:
            raise TimeoutError(f"{what}: neither taken nor refused within {DEADLINE_S:.0f} s") from None
        return "acked" if condition() else self.goaway or self.broken or "closed"


@contextlib.asynccontextmanager
async def session(
    port: int, ca_pem: bytes, pair: KeyPair | None, hello: wire.Hello, *, wait: bool = True
) -> AsyncIterator[Session]:
    """A stream that has said hello; with `wait` also welcomed or ended."""
    credentials = client_credentials(ca_pem, pair)
    async with grpc.aio.secure_channel(f"127.0.0.1:{port}", credentials, options=list(NO_LIMIT)) as channel:
        stream = session_pb2_grpc.SessionServiceStub(channel).Session()
        found = Session(stream)
        reader = asyncio.create_task(found.read())
        try:
            await found.send(wire.SessionRequest(hello=hello))
            if wait:
                await found.until(lambda: found.welcomed)
            yield found
        finally:
            stream.cancel()
            reader.cancel()
            await asyncio.gather(reader, return_exceptions=True)
