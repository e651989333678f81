"""The only sockets of the ASIC side: one bounded exchange over TCP, whole by its deadline or a word why not.

Whatever a device does (silence, a byte a second, ten megabytes, a slammed door), the caller gets bytes or
`DeviceUnreachable` with one of: unreachable, refused, slow, garbled.

Streams and transports cost more than everything else in a poll, so exchanges are plain sockets in one epoll, and that
epoll is one file descriptor of the event loop: a pass handles a bounded handful, then everybody else has a turn.
docs/performance.md tells what was measured.
"""

from __future__ import annotations

import asyncio
import errno
import select
import socket
import struct
import weakref
from collections.abc import Callable

from gridpivot.errors import DeviceUnreachable
from gridpivot.vocabulary import Reason

MAX_REPLY_BYTES = 1 << 20
_CHUNK = 1 << 16
_PER_PASS = 32  # exchanges served before the event loop has its turn: about 3 ms
_CHECK_S = 0.05  # how often deadlines are looked at
_CONNECTING = (0, errno.EINPROGRESS)
_NOT_YET = (errno.EAGAIN, errno.ENOTCONN, errno.EINTR)
_RESET = struct.pack("ii", 1, 0)  # close at once: thousands of knocks leave nothing waiting behind
_READ, _WRITE = select.EPOLLIN | select.EPOLLRDHUP, select.EPOLLOUT

Whole = Callable[[bytearray], bool]


class _Flight:
    """One exchange under way."""

    __slots__ = ("data", "deadline_s", "done", "max_bytes", "payload", "sent", "sock", "where", "whole")

    def __init__(
        self,
        sock: socket.socket,
        where: str,
        payload: bytes,
        whole: Whole,
        max_bytes: int,
        deadline_s: float,
        done: asyncio.Future[bytes],
    ) -> None:
        self.sock, self.where, self.payload, self.whole = sock, where, payload, whole
        self.max_bytes, self.deadline_s, self.done = max_bytes, deadline_s, done
        self.data = bytearray()
        self.sent = -1  # bytes that have left; -1 = no connection yet


class _Engine:
    """Every flight of one event loop."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop: asyncio.AbstractEventLoop = weakref.proxy(loop)  # a strong one would keep both for ever
        self._epoll = select.epoll()
        self._flights: dict[int, _Flight] = {}
        self._timer: asyncio.TimerHandle | None = None
        loop.add_reader(self._epoll.fileno(), self._pass)

    def start(self, family: int, address: tuple[str, int], flight: _Flight) -> None:
        """Connect; on loopback and short lines the payload often leaves at once."""
        sock = flight.sock
        code = sock.connect_ex(address)
        if code not in _CONNECTING:
            self._fail(flight, OSError(code, errno.errorcode.get(code, "")))
            return
        fd = sock.fileno()
        self._flights[fd] = flight
        self._epoll.register(fd, _READ | _WRITE)
        if self._timer is None:
            self._timer = self._loop.call_later(_CHECK_S, self._check)

    def drop(self, flight: _Flight) -> None:
        """Forget a flight: ended, or its caller is gone."""
        fd = flight.sock.fileno()
        if fd >= 0 and self._flights.pop(fd, None) is not None:
            self._epoll.unregister(fd)
        flight.sock.close()

    def _pass(self) -> None:
        for fd, events in self._epoll.poll(0, _PER_PASS):
            flight = self._flights.get(fd)
            if flight is None:
                continue
            try:
                if events & _WRITE or flight.sent < 0:
                    self._send(fd, flight)
                if events & ~_WRITE:
                    self._receive(flight)
            except OSError as error:
                self._fail(flight, error)

    def _send(self, fd: int, flight: _Flight) -> None:
        if flight.sent < 0:
            code = flight.sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            if code:
                raise OSError(code, errno.errorcode.get(code, ""))
        try:
            flight.sent = max(0, flight.sent) + flight.sock.send(flight.payload[max(0, flight.sent) :])
        except OSError as error:
            if error.errno in _NOT_YET:
                return
            raise
        if flight.sent >= len(flight.payload):
            self._epoll.modify(fd, _READ)

    def _receive(self, flight: _Flight) -> None:
        try:
            chunk = flight.sock.recv(_CHUNK)
        except OSError as error:
            if error.errno in _NOT_YET:
                return
            raise
        if chunk:
            flight.data += chunk
            if len(flight.data) > flight.max_bytes:
                told = f"{flight.where}: reply longer than {flight.max_bytes} bytes"
                self._end(flight, DeviceUnreachable(Reason.GARBLED, told))
                return
            if not flight.whole(flight.data):
                return
        if flight.data:
            self._end(flight, None)
        else:
            told = f"{flight.where}: closed without a reply; restarting?"
            self._end(flight, DeviceUnreachable(Reason.UNREACHABLE, told))

    def _check(self) -> None:
        now_s = self._loop.time()
        for flight in [f for f in self._flights.values() if f.deadline_s <= now_s]:
            word, told = (
                (Reason.UNREACHABLE, "no connection") if flight.sent < 0 else (Reason.SLOW, "no complete reply")
            )
            self._end(flight, DeviceUnreachable(word, f"{flight.where}: {told} by the deadline"))
        self._timer = self._loop.call_later(_CHECK_S, self._check) if self._flights else None

    def _fail(self, flight: _Flight, error: OSError) -> None:
        if error.errno == errno.ECONNREFUSED:
            told = f"{flight.where}: connection refused; is the miner's API running?"
            self._end(flight, DeviceUnreachable(Reason.REFUSED, told))
        elif flight.data:
            self._end(flight, None)  # slammed behind its words; whether they are whole is for the parser to say
        else:
            name = errno.errorcode.get(error.errno or 0, type(error).__name__)
            self._end(flight, DeviceUnreachable(Reason.UNREACHABLE, f"{flight.where}: {name}"))

    def _end(self, flight: _Flight, error: DeviceUnreachable | None) -> None:
        self.drop(flight)
        if flight.done.done():
            return
        if error is None:
            flight.done.set_result(bytes(flight.data))
        else:
            flight.done.set_exception(error)

    def close(self) -> None:
        """Give the epoll back; flights left behind end as cancelled."""
        for flight in list(self._flights.values()):
            self.drop(flight)
            flight.done.cancel()
        self._epoll.close()


_engines: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, _Engine] = weakref.WeakKeyDictionary()


def _engine_of(loop: asyncio.AbstractEventLoop) -> _Engine:
    engine = _engines.get(loop)
    if engine is None:
        engine = _engines[loop] = _Engine(loop)
    return engine


async def exchange(
    host: str, port: int, payload: bytes, whole: Whole, deadline_s: float, max_bytes: int = MAX_REPLY_BYTES
) -> bytes:
    """Send `payload` and return what came until `whole` or the close; raises DeviceUnreachable."""
    loop = asyncio.get_running_loop()
    engine = _engine_of(loop)
    ends_s = loop.time() + deadline_s
    family, address = _numeric(host, port) or await _resolved(loop, host, port, deadline_s)
    sock = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
    flight = _Flight(sock, f"{host}:{port}", payload, whole, max_bytes, ends_s, loop.create_future())
    try:
        engine.start(family, address, flight)
        return await flight.done
    finally:
        engine.drop(flight)


def _numeric(host: str, port: int) -> tuple[int, tuple[str, int]] | None:
    """Family and address of a host given by number; None for a name."""
    if host.replace(".", "").isdigit():
        return socket.AF_INET, (host, port)
    return (socket.AF_INET6, (host, port)) if ":" in host else None


async def _resolved(
    loop: asyncio.AbstractEventLoop, host: str, port: int, deadline_s: float
) -> tuple[int, tuple[str, int]]:
    """The first address of a name; raises DeviceUnreachable."""
    try:
        async with asyncio.timeout(deadline_s):
            found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, TimeoutError):
        raise DeviceUnreachable(Reason.UNREACHABLE, f"{host}:{port}: the name has no address") from None
    family, _, _, _, address = found[0]
    return family, (str(address[0]), port)


async def is_open(host: str, port: int, deadline_s: float) -> bool:
    """Whether something accepts a connection there; nothing is sent, the connection is reset."""
    loop = asyncio.get_running_loop()
    sock = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM)
    sock.setblocking(False)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
    done: asyncio.Future[bool] = loop.create_future()
    fd = -1
    try:
        code = sock.connect_ex((host, port))
        if code == 0:
            return True
        if code != errno.EINPROGRESS:
            return False
        fd = sock.fileno()
        loop.add_writer(fd, _resolve, done)
        async with asyncio.timeout(deadline_s):
            await done
        return sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == 0
    except (TimeoutError, OSError):
        return False
    finally:
        if fd >= 0:
            loop.remove_writer(fd)
        sock.close()


def _resolve(done: asyncio.Future[bool]) -> None:
    if not done.done():
        done.set_result(True)
