"""The web server of simulated miners: one request per connection, answered by a method of the miner.

asyncio protocols rather than streams, for the same reason as the API port: thousands of machines share one loop.
"""

from __future__ import annotations

import asyncio
import hashlib
import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from sim.miners.fault import MAX_REQUEST_BYTES, WireFault

_REASONS = {200: "OK", 204: "No Content", 400: "Bad Request", 401: "Unauthorized", 403: "Forbidden", 404: "Not Found"}
_LENGTH = re.compile(rb"\r\ncontent-length:\s*(\d{1,7})\s*(?:\r\n|$)", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class WebRequest:
    """What came in; header names in lower case."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes


@dataclass(frozen=True, slots=True)
class WebAnswer:
    """What goes out."""

    body: bytes = b""
    status: int = 200
    headers: tuple[tuple[str, str], ...] = (("Content-Type", "application/json"),)


@runtime_checkable
class WebFace(Protocol):
    """A miner as its web port sees it."""

    fault: WireFault

    def web(self, request: WebRequest) -> WebAnswer:
        """Answer one request."""
        ...


class WebPort(asyncio.Protocol):
    """One connection."""

    def __init__(self, miner: WebFace) -> None:
        self._miner = miner
        self._data = bytearray()
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Remember the transport."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        """Answer once head and body are here."""
        self._data += data
        transport = self._transport
        if transport is None:
            return
        if len(self._data) > MAX_REQUEST_BYTES:
            transport.abort()
            return
        end = self._data.find(b"\r\n\r\n")
        if end < 0 or self._miner.fault is WireFault.SILENT:
            return
        head = bytes(self._data[:end])
        announced = _LENGTH.search(head + b"\r\n")
        length = int(announced.group(1)) if announced else 0
        if len(self._data) < end + 4 + length:
            return
        request = _request(head, bytes(self._data[end + 4 : end + 4 + length]))
        answer = WebAnswer(status=400) if request is None else self._miner.web(request)
        if self._miner.fault is WireFault.GARBAGE:
            answer = WebAnswer(b"<html>no miner here</html>")
        body = answer.body[: len(answer.body) // 2] if self._miner.fault is WireFault.TRUNCATED else answer.body
        lines = [f"HTTP/1.1 {answer.status} {_REASONS.get(answer.status, 'Status')}"]
        lines += [f"{name}: {value}" for name, value in answer.headers]
        lines += [f"Content-Length: {len(answer.body)}", "Connection: close", "", ""]
        transport.write("\r\n".join(lines).encode("latin-1") + body)
        transport.close()


def _request(head: bytes, body: bytes) -> WebRequest | None:
    first, *lines = head.decode("latin-1").split("\r\n")
    words = first.split(" ")
    if len(words) != 3:
        return None
    pairs = (line.partition(":") for line in lines)
    return WebRequest(words[0], words[1], {name.strip().lower(): value.strip() for name, _, value in pairs}, body)


class DigestGuard:
    """Digest authentication (RFC 2617, MD5, qop auth) with nonces that work once."""

    def __init__(self, realm: str, username: str, password: str) -> None:
        self._realm, self._username = realm, username
        self._secret = md5(f"{username}:{realm}:{password}")
        self._nonces: set[str] = set()
        self.refusals = 0

    def challenge(self) -> WebAnswer:
        """The 401 that asks for a login."""
        nonce = secrets.token_hex(16)
        self._nonces.add(nonce)
        asked = f'Digest realm="{self._realm}", nonce="{nonce}", qop="auth"'
        return WebAnswer(b"", 401, (("WWW-Authenticate", asked),))

    def admits(self, request: WebRequest) -> bool:
        """Whether the request's Authorization holds; a wrong password is counted."""
        header = request.headers.get("authorization", "")
        if not header:
            return False
        pairs = re.findall(r'(\w+)=(?:"([^"]*)"|([^\s,]+))', header)
        given = {name: quoted or bare for name, quoted, bare in pairs}
        if given.get("nonce") not in self._nonces or given.get("uri") != request.path:
            return False
        self._nonces.discard(given["nonce"])
        asked = md5(f"{request.method}:{request.path}")
        counted = f"{given['nonce']}:{given.get('nc', '')}:{given.get('cnonce', '')}:auth:{asked}"
        right = secrets.compare_digest(given.get("response", ""), md5(f"{self._secret}:{counted}"))
        self.refusals += not right
        return right and given.get("username") == self._username


def md5(text: str) -> str:
    """Hex digest, as digest authentication has it."""
    return hashlib.md5(text.encode(), usedforsecurity=False).hexdigest()
