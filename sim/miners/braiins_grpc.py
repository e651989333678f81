"""The gRPC side of a simulated Braiins machine: generic handlers over bytes, no generated classes.

Field numbers from the vendor's public proto files; pyasic's generated client is what proves them in the tests.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Protocol

import grpc

from agent.asic.families.protowire import Fields, decode, encode, integer, message, text
from gridpivot.curves import MinerClass
from gridpivot.vocabulary import Mode
from sim.miners.fault import WireFault
from sim.miners.machine import Machine

_SERVICE = "/braiins.bos.v1."
EFFICIENCY_STEPS = (Mode.LOW, Mode.NORMAL, Mode.TURBO)


class Host(Protocol):
    """The machine as its gRPC port sees it."""

    machine: Machine
    mac: str
    fault: WireFault
    firmware: str
    target_w: int
    tokens: set[str]
    quick_ramping: tuple[int, int] | None
    clock: Callable[[], float]

    @property
    def kind(self) -> MinerClass:
        """Class of the machine."""
        ...

    @property
    def paused(self) -> bool:
        """Whether mining is paused."""
        ...

    def login(self, username: str, password: str) -> str | None:
        """A token, None for a wrong login."""
        ...

    def pause(self) -> None:
        """Pause mining."""
        ...

    def resume(self) -> None:
        """Resume mining."""
        ...

    def set_target(self, watts: int) -> bool:
        """Take a power target [W], False out of range."""
        ...


class BraiinsGrpc(grpc.GenericRpcHandler):
    """Serves one machine."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self._server: grpc.aio.Server | None = None

    async def start(self, address: str, port: int) -> int:
        """Listen; returns the port taken."""
        self._server = grpc.aio.server(options=(("grpc.so_reuseport", 0),))
        self._server.add_generic_rpc_handlers((self,))
        taken = self._server.add_insecure_port(f"{address}:{port}")
        await self._server.start()
        return taken

    async def stop(self) -> None:
        """Close the port."""
        if self._server is not None:
            await self._server.stop(None)
            self._server = None

    def service(self, details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler[bytes, bytes] | None:
        """Handler of a method, None for one that is not served."""
        name = str(details.method).removeprefix(_SERVICE)
        if name == "AuthenticationService/Login":
            return grpc.unary_unary_rpc_method_handler(self._login)
        act = getattr(self, "_" + name.split("/")[-1], None)
        if act is None or not str(details.method).startswith(_SERVICE):
            return None
        metadata = dict(details.invocation_metadata)
        return grpc.unary_unary_rpc_method_handler(self._guarded(act, str(metadata.get("authorization", ""))))

    def _guarded(self, act: Callable[[Fields], bytes | None], token: str) -> Callable[[bytes, Any], Awaitable[bytes]]:
        async def answer(body: bytes, context: Any) -> bytes:
            if token not in self._host.tokens:
                await context.abort(grpc.StatusCode.UNAUTHENTICATED, "log in first")
            if self._host.fault is WireFault.GARBAGE:
                return b"\xff\xff"
            reply = act(decode(body))
            if reply is None:
                await context.abort(grpc.StatusCode.INVALID_ARGUMENT, "out of range")
            return reply or b""

        return answer

    async def _login(self, body: bytes, context: Any) -> bytes:
        fields = decode(body)
        token = self._host.login(text(fields, 1) or "", text(fields, 2) or "")
        if token is None:
            await context.abort(grpc.StatusCode.UNAUTHENTICATED, "invalid login")
        await context.send_initial_metadata((("authorization", token),))
        return encode(((1, token or ""), (2, 3600)))

    # -- methods ---------------------------------------------------------------------------------------------------

    def _PauseMining(self, _: Fields) -> bytes:  # noqa: N802 the wire's own names, as all below
        already = self._host.paused
        self._host.pause()
        return encode(((1, already),))

    def _ResumeMining(self, _: Fields) -> bytes:  # noqa: N802
        already = not self._host.paused
        self._host.resume()
        return encode(((1, already),))

    def _SetPowerTarget(self, asked: Fields) -> bytes | None:  # noqa: N802
        watts = integer(message(asked, 2), 1)
        if watts is None or integer(asked, 1) not in (1, 2, 3) or not self._host.set_target(watts):
            return None
        return encode(((1, _power(self._host.target_w)),))

    def _SetQuickRamping(self, asked: Fields) -> bytes:  # noqa: N802
        self._host.quick_ramping = (integer(asked, 2) or 0, integer(asked, 3) or 0)
        return encode(((1, self._host.quick_ramping[0]), (2, self._host.quick_ramping[1])))

    def _GetTunerState(self, _: Fields) -> bytes:  # noqa: N802
        return encode(((1, 2), (2, encode(((2, _power(self._host.target_w)),)))))

    def _GetActivePerformanceMode(self, _: Fields) -> bytes:  # noqa: N802
        target = encode(((1, _power(self._host.target_w)),))
        return encode(((2, encode(((1, target),))),))

    def _GetMinerEfficiencyProfile(self, _: Fields) -> bytes:  # noqa: N802
        points = [self._host.kind.modes[mode] for mode in EFFICIENCY_STEPS if mode in self._host.kind.modes]
        rows = (
            encode(
                (
                    (1, 1),
                    (2, _power(round(point.power_w))),
                    (3, _power(round(point.power_w))),
                    (7, encode(((1, point.hashrate_hs / 1e12),))),
                )
            )
            for point in points
        )
        return encode(tuple((1, row) for row in rows))

    def _GetMinerStatus(self, _: Fields) -> bytes:  # noqa: N802
        return encode(((1, self._status()),))

    def _status(self) -> int:
        return 3 if self._host.paused else 2

    def _GetMinerDetails(self, _: Fields) -> bytes:  # noqa: N802
        host = self._host
        uptime_s = host.machine.uptime_s(host.clock())
        sticker = encode(((1, host.kind.modes[Mode.NORMAL].hashrate_hs / 1e9),))
        return encode(
            (
                (1, "sim"),
                (2, encode(((1, 1), (3, host.kind.model), (4, host.kind.model)))),
                (5, encode(((1, host.firmware), (3, True)))),
                (6, "sim"),
                (7, host.mac.lower()),
                (9, sticker),
                (10, uptime_s),
                (11, uptime_s),
                (12, self._status()),
                (16, "SIMSERIAL"),
            )
        )

    def _GetMinerStats(self, _: Fields) -> bytes:  # noqa: N802
        host = self._host
        now_s = host.clock()
        rate = encode(((1, host.machine.hashrate_hs(now_s) / 1e9),))
        shares = encode(((1, host.machine.accepted_shares(now_s)),))
        watts = _power(int(host.machine.reported_power_w(now_s)))
        return encode(
            ((1, shares), (2, encode(((1, encode(((1, rate), (4, rate)))), (2, rate)))), (3, encode(((1, watts),))))
        )

    def _GetCoolingState(self, _: Fields) -> bytes:  # noqa: N802
        hot = encode(((1, self._host.machine.temp_c(self._host.clock())),))
        fans = tuple((1, encode(((1, n), (2, 5880), (3, 1.0)))) for n in range(4))
        return encode((*fans, (2, encode(((2, 1), (3, hot))))))

    def _GetHashboards(self, _: Fields) -> bytes:  # noqa: N802
        now_s = self._host.clock()
        rate = encode(((1, self._host.machine.hashrate_hs(now_s) / 3e9),))
        hot = encode(((1, self._host.machine.temp_c(now_s)),))
        chips = encode(((1, 110),))
        stats = encode(((1, encode(((1, rate),))), (2, rate)))
        rows = (
            encode(((1, str(n)), (2, True), (3, chips), (6, encode(((3, hot),))), (7, hot), (8, stats)))
            for n in (1, 2, 3)
        )
        return encode(tuple((1, row) for row in rows))

    def _GetLocateDeviceStatus(self, _: Fields) -> bytes:  # noqa: N802
        return b""

    def _GetPoolGroups(self, _: Fields) -> bytes:  # noqa: N802
        shares = encode(((1, self._host.machine.accepted_shares(self._host.clock())),))
        pool = encode(
            (
                (1, "p"),
                (2, "stratum+tcp://pool.example:3333"),
                (3, "site.worker"),
                (4, True),
                (5, True),
                (6, True),
                (7, shares),
            )
        )
        return encode(((1, encode(((1, "group"), (2, encode(((1, 1),))), (4, pool)))),))


def _power(watts: int) -> bytes:
    return encode(((1, watts),))
