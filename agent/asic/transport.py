"""From a request to the bytes of its reply: cgminer's NUL, V3's length, HTTP with its logins, gRPC, all by a deadline.

Every failure leaves as `DeviceUnreachable` with one word: unreachable, refused, slow, garbled, unauthorised,
no_credentials, unsupported (the device does not know the path).
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from agent.asic import http
from agent.asic.family import ApiRequest, Auth, GrpcRequest, HttpRequest, Login, Port, Ports
from agent.asic.sockets import exchange
from gridpivot.errors import DeviceUnreachable
from gridpivot.vocabulary import Reason

_UNKNOWN_PATH = (404, 405, 501)


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where a device listens: host, API port, web port, and a third door of some families (0 = not said)."""

    host: str
    api_port: int = 0
    http_port: int = 0
    aux_port: int = 0

    def or_else(self, ports: Ports) -> Endpoint:
        """This endpoint with the family's port wherever none is given."""
        return Endpoint(self.host, self.api_port or ports.api, self.http_port or ports.web, self.aux_port or ports.aux)

    def port(self, which: Port) -> int:
        """Number of a port."""
        return {Port.API: self.api_port, Port.WEB: self.http_port, Port.AUX: self.aux_port}[which]


async def ask(endpoint: Endpoint, request: ApiRequest, deadline_s: float) -> bytes:
    """Reply to one API request, without its NUL or length; raises DeviceUnreachable."""
    port = endpoint.port(request.port)
    if not request.length_prefixed:
        data = await exchange(endpoint.host, port, request.payload, _has_nul, deadline_s)
        return data.split(b"\x00", 1)[0]
    framed = len(request.payload).to_bytes(4, "little") + request.payload
    data = await exchange(endpoint.host, port, framed, _has_length, deadline_s)
    length = int.from_bytes(data[:4], "little")
    if len(data) < 4 + length:
        raise DeviceUnreachable(Reason.GARBLED, f"{endpoint.host}: {len(data)} of {4 + length} announced bytes came")
    return data[4 : 4 + length]


def _has_nul(data: bytearray) -> bool:
    return b"\x00" in data


def _has_length(data: bytearray) -> bool:
    return len(data) >= 4 and len(data) >= 4 + int.from_bytes(data[:4], "little")


async def fetch(endpoint: Endpoint, request: HttpRequest, login: Login | None, deadline_s: float) -> bytes:
    """Body of one HTTP answer; a 401 is answered once with digest. The deadline covers both. Raises DeviceUnreachable."""
    started_s = asyncio.get_running_loop().time()
    first = (("Authorization", http.basic(login)),) if request.auth is Auth.BASIC and login is not None else ()
    answer = await _round(endpoint, request, first, deadline_s)
    if answer.status == 401 and request.auth is Auth.DIGEST:
        if login is None:
            raise DeviceUnreachable(Reason.NO_CREDENTIALS, f"{endpoint.host}: asks for a password, none is set")
        header = http.digest(answer.headers.get("www-authenticate", ""), request.method, request.path, login)
        if header is None:
            raise DeviceUnreachable(Reason.UNAUTHORISED, f"{endpoint.host}: asks for a scheme other than MD5 digest")
        left_s = max(0.05, deadline_s - (asyncio.get_running_loop().time() - started_s))
        answer = await _round(endpoint, request, (("Authorization", header),), left_s)
    if answer.status in (401, 403):
        raise DeviceUnreachable(
            Reason.UNAUTHORISED, f"{endpoint.host}: the password was not accepted (HTTP {answer.status})"
        )
    if answer.status in _UNKNOWN_PATH:
        raise DeviceUnreachable(Reason.UNSUPPORTED, f"{endpoint.host}: {request.path} answered HTTP {answer.status}")
    if not 200 <= answer.status < 300:
        raise DeviceUnreachable(Reason.GARBLED, f"{endpoint.host}: {request.path} answered HTTP {answer.status}")
    return answer.headers.get(request.header, "").encode("latin-1") if request.header else answer.body


async def _round(
    endpoint: Endpoint, request: HttpRequest, headers: tuple[tuple[str, str], ...], deadline_s: float
) -> http.Answer:
    payload = http.build(endpoint.host, request.method, request.path, request.body, request.headers + headers)
    data = await exchange(endpoint.host, endpoint.port(request.port), payload, http.is_whole, deadline_s)
    try:
        return http.parse(data)
    except ValueError as error:
        raise DeviceUnreachable(Reason.GARBLED, f"{endpoint.host}: not an HTTP answer ({error})") from None


async def call(endpoint: Endpoint, request: GrpcRequest, deadline_s: float) -> bytes:
    """Reply of one unary gRPC call as serialised bytes; raises DeviceUnreachable."""
    import grpc  # a slow import that sites without such miners need not pay for

    where = f"{endpoint.host}:{endpoint.port(request.port)}"
    words = {
        grpc.StatusCode.UNAUTHENTICATED: Reason.UNAUTHORISED,
        grpc.StatusCode.PERMISSION_DENIED: Reason.UNAUTHORISED,
        grpc.StatusCode.UNIMPLEMENTED: Reason.UNSUPPORTED,
        grpc.StatusCode.DEADLINE_EXCEEDED: Reason.SLOW,
        grpc.StatusCode.UNAVAILABLE: Reason.UNREACHABLE,
    }
    async with grpc.aio.insecure_channel(where) as channel:
        # No serialisers: bytes in, bytes out.
        unary: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(request.method)
        try:
            going = unary(request.body, timeout=deadline_s, metadata=request.metadata)
            reply: bytes = await going
            if request.header:
                reply = str(
                    grpc.aio.Metadata.from_tuple(tuple(await going.initial_metadata())).get(request.header, "")
                ).encode()
        except grpc.aio.AioRpcError as error:
            word = words.get(error.code(), Reason.GARBLED)
            raise DeviceUnreachable(word, f"{where}: {error.code().name.lower()} {error.details() or ''}") from None
    return reply
