"""The only sockets of this package: one bounded request and reply over TCP, or over HTTP with digest authentication.

Whatever a device does (silence, a reply that never ends, ten megabytes, a slammed door), the caller gets bytes within
the deadline or `DeviceUnreachable` with one word: unreachable, refused, slow, garbled, unauthorised.
"""

from __future__ import annotations

import asyncio
import errno
import hashlib
import re
import secrets
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass

from agent.asic.family import Login
from gridpivot.errors import DeviceUnreachable
from gridpivot.vocabulary import Reason

MAX_REPLY_BYTES = 1 << 20
_CHUNK = 1 << 16


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where a device listens: host, API port and web port."""

    host: str
    api_port: int = 4028
    http_port: int = 80


@asynccontextmanager
async def _connected(
    host: str, port: int, deadline_s: float
) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """A connection whose whole use ends by the deadline; every failure leaves as DeviceUnreachable."""
    writer: asyncio.StreamWriter | None = None
    where = f"{host}:{port}"
    try:
        async with asyncio.timeout(deadline_s):
            reader, writer = await asyncio.open_connection(host, port, limit=_CHUNK)
            yield reader, writer
    except TimeoutError:
        word, told = (Reason.UNREACHABLE, "no connection") if writer is None else (Reason.SLOW, "no complete reply")
        raise DeviceUnreachable(word, f"{where}: {told} within {deadline_s:g} s") from None
    except ConnectionRefusedError:
        raise DeviceUnreachable(Reason.REFUSED, f"{where}: connection refused; is the miner's API running?") from None
    except OSError as error:
        name = errno.errorcode.get(error.errno or 0, type(error).__name__)
        raise DeviceUnreachable(Reason.UNREACHABLE, f"{where}: {name}") from None
    finally:
        if writer is not None:
            writer.transport.abort()


async def ask(endpoint: Endpoint, payload: bytes, deadline_s: float, *, max_bytes: int = MAX_REPLY_BYTES) -> bytes:
    """Send one API request and return the reply without its NUL; ends at the NUL or when the device closes.

    Raises DeviceUnreachable.
    """
    async with _connected(endpoint.host, endpoint.api_port, deadline_s) as (reader, writer):
        writer.write(payload)
        chunks: list[bytes] = []
        size = 0
        while chunk := await reader.read(_CHUNK):
            size += len(chunk)
            if size > max_bytes:
                raise DeviceUnreachable(Reason.GARBLED, f"{endpoint.host}: reply longer than {max_bytes} bytes")
            end = chunk.find(b"\x00")
            if end >= 0:
                chunks.append(chunk[:end])
                break
            chunks.append(chunk)
        if not chunks:
            raise DeviceUnreachable(Reason.UNREACHABLE, f"{endpoint.host}: closed without a reply; restarting?")
        return b"".join(chunks)


@dataclass(frozen=True, slots=True)
class _Answer:
    status: int
    headers: Mapping[str, str]
    body: bytes


async def fetch(
    endpoint: Endpoint,
    method: str,
    path: str,
    body: bytes,
    login: Login | None,
    deadline_s: float,
    *,
    max_bytes: int = MAX_REPLY_BYTES,
) -> bytes:
    """Body of one HTTP request; a 401 is answered once with digest credentials. The deadline covers both rounds.

    Raises DeviceUnreachable.
    """
    started_s = asyncio.get_running_loop().time()
    answer = await _exchange(endpoint, method, path, body, "", deadline_s, max_bytes)
    if answer.status == 401:
        if login is None:
            raise DeviceUnreachable(Reason.NO_CREDENTIALS, f"{endpoint.host}: asks for a password, none is set")
        header = authorisation(answer.headers.get("www-authenticate", ""), method, path, login)
        if header is None:
            raise DeviceUnreachable(Reason.UNAUTHORISED, f"{endpoint.host}: asks for a scheme other than MD5 digest")
        left_s = max(0.05, deadline_s - (asyncio.get_running_loop().time() - started_s))
        answer = await _exchange(endpoint, method, path, body, header, left_s, max_bytes)
    if answer.status in (401, 403):
        raise DeviceUnreachable(
            Reason.UNAUTHORISED, f"{endpoint.host}: the password was not accepted (HTTP {answer.status})"
        )
    if answer.status != 200:
        raise DeviceUnreachable(Reason.GARBLED, f"{endpoint.host}: {path} answered HTTP {answer.status}")
    return answer.body


async def _exchange(
    endpoint: Endpoint, method: str, path: str, body: bytes, authorization: str, deadline_s: float, max_bytes: int
) -> _Answer:
    head = [f"{method} {path} HTTP/1.1", f"Host: {endpoint.host}", "Connection: close", "Accept: application/json"]
    if authorization:
        head.append(f"Authorization: {authorization}")
    if method != "GET":
        head += ["Content-Type: application/json", f"Content-Length: {len(body)}"]
    async with _connected(endpoint.host, endpoint.http_port, deadline_s) as (reader, writer):
        writer.write("\r\n".join([*head, "", ""]).encode("ascii") + body)
        try:
            return await _answer(reader, max_bytes)
        except (asyncio.IncompleteReadError, asyncio.LimitOverrunError, ValueError) as error:
            raise DeviceUnreachable(
                Reason.GARBLED, f"{endpoint.host}: not an HTTP answer ({type(error).__name__})"
            ) from None


async def _answer(reader: asyncio.StreamReader, max_bytes: int) -> _Answer:
    raw = await reader.readuntil(b"\r\n\r\n")
    first, *lines = raw.decode("latin-1").split("\r\n")
    version, code, *_ = first.split(" ", 2)
    if not version.startswith("HTTP/1."):
        raise ValueError("not HTTP/1")
    headers = {
        name.strip().lower(): value.strip() for name, found, value in (line.partition(":") for line in lines) if found
    }
    if headers.get("transfer-encoding", "").lower() == "chunked":
        body = await _chunked(reader, max_bytes)
    elif "content-length" in headers:
        length = int(headers["content-length"])
        if not 0 <= length <= max_bytes:
            raise ValueError("length out of bounds")
        body = await reader.readexactly(length)
    else:
        body = await _until_closed(reader, max_bytes)
    return _Answer(int(code), headers, body)


async def _chunked(reader: asyncio.StreamReader, max_bytes: int) -> bytes:
    body = bytearray()
    while True:
        size = int((await reader.readline()).split(b";")[0], 16)
        if size < 0 or len(body) + size > max_bytes:
            raise ValueError("chunks out of bounds")
        if size == 0:
            return bytes(body)
        body += await reader.readexactly(size)
        await reader.readexactly(2)


async def _until_closed(reader: asyncio.StreamReader, max_bytes: int) -> bytes:
    body = bytearray()
    while chunk := await reader.read(_CHUNK):
        body += chunk
        if len(body) > max_bytes:
            raise ValueError("body out of bounds")
    return bytes(body)


def authorisation(challenge: str, method: str, path: str, login: Login, cnonce: str | None = None) -> str | None:
    """Authorization header for a digest challenge (RFC 2617, MD5, qop auth or none); None for any other scheme."""
    scheme, _, rest = challenge.partition(" ")
    fields = {name.lower(): quoted or bare for name, quoted, bare in re.findall(r'(\w+)=(?:"([^"]*)"|([^\s,]+))', rest)}
    if scheme.lower() != "digest" or fields.get("algorithm", "MD5").upper() != "MD5" or "nonce" not in fields:
        return None
    realm, nonce = fields.get("realm", ""), fields["nonce"]
    secret = _md5(f"{login.username}:{realm}:{login.password}")
    request = _md5(f"{method}:{path}")
    parts = {"username": login.username, "realm": realm, "nonce": nonce, "uri": path}
    header = ", ".join(f'{name}="{value}"' for name, value in parts.items())
    if "auth" in [word.strip() for word in fields.get("qop", "").split(",")]:
        client = cnonce or secrets.token_hex(8)
        response = _md5(f"{secret}:{nonce}:00000001:{client}:auth:{request}")
        header += f', qop=auth, nc=00000001, cnonce="{client}"'
    else:
        response = _md5(f"{secret}:{nonce}:{request}")
    if "opaque" in fields:
        header += f', opaque="{fields["opaque"]}"'
    return f'Digest {header}, response="{response}"'


def _md5(text: str) -> str:
    return hashlib.md5(text.encode(), usedforsecurity=False).hexdigest()
