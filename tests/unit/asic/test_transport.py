"""Sockets that misbehave end in one word within the deadline; digest authentication as RFC 2617 computes it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from agent.asic.family import ApiRequest, HttpRequest, Login
from agent.asic.http import digest
from agent.asic.transport import Endpoint, ask, fetch
from gridpivot.errors import DeviceUnreachable
from gridpivot.vocabulary import Reason

pytestmark = pytest.mark.unit
Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
Serve = Callable[[Handler], Awaitable[int]]


def says(data: bytes) -> Handler:
    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(4096)
        writer.write(data)
        await writer.drain()

    return handle


async def endless(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while True:
        writer.write(b"x" * 100)
        await writer.drain()
        await asyncio.sleep(0.01)


async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.read()


async def reason(call: Awaitable[bytes]) -> str:
    with pytest.raises(DeviceUnreachable) as caught:
        await call
    return caught.value.reason


@pytest.mark.parametrize("reply", [b'{"a":1}\x00', b'{"a":1}', b'{"a":1}\x00trailing'])
async def test_reply_ends_at_the_nul_or_when_the_device_closes(reply: bytes, serve: Serve) -> None:
    port = await serve(says(reply))
    assert await ask(Endpoint("127.0.0.1", port), ApiRequest("x", b"{}"), 2.0) == b'{"a":1}'


async def test_nul_ends_the_reply_though_the_device_keeps_the_line_open(serve: Serve) -> None:
    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"{}\x00")
        await reader.read()

    port = await serve(handle)
    assert await ask(Endpoint("127.0.0.1", port), ApiRequest("x", b"{}"), 5.0) == b"{}"


async def test_closed_port_is_refused(unused_tcp_port: int) -> None:
    assert await reason(ask(Endpoint("127.0.0.1", unused_tcp_port), ApiRequest("x", b"{}"), 1.0)) == Reason.REFUSED


async def test_silence_is_slow_at_the_deadline(serve: Serve) -> None:
    started_s = time.monotonic()
    assert await reason(ask(Endpoint("127.0.0.1", await serve(silent)), ApiRequest("x", b"{}"), 0.2)) == Reason.SLOW
    assert time.monotonic() - started_s < 1.5


async def test_a_reply_that_never_ends_is_slow_at_the_deadline(serve: Serve) -> None:
    assert await reason(ask(Endpoint("127.0.0.1", await serve(endless)), ApiRequest("x", b"{}"), 0.3)) == Reason.SLOW


async def test_ten_megabytes_are_garbled(serve: Serve) -> None:
    port = await serve(says(b"x" * 10_000_000))
    assert await reason(ask(Endpoint("127.0.0.1", port), ApiRequest("x", b"{}"), 5.0)) == Reason.GARBLED


async def test_closing_without_a_word_is_unreachable(serve: Serve) -> None:
    assert (
        await reason(ask(Endpoint("127.0.0.1", await serve(says(b""))), ApiRequest("x", b"{}"), 2.0))
        == Reason.UNREACHABLE
    )


def test_digest_equals_the_example_of_rfc_2617() -> None:
    challenge = (
        'Digest realm="testrealm@host.com", qop="auth,auth-int", '
        'nonce="dcd98b7102dd2f0e8b11d0f600bfb0c093", opaque="5ccc069c403ebaf9f0171e9517f40e41"'
    )
    login = Login("Mufasa", "Circle Of Life")
    header = digest(challenge, "GET", "/dir/index.html", login, cnonce="0a4f113b")
    assert header is not None
    assert 'response="6629fae49393a05397450978507c4ef1"' in header
    assert "Circle" not in header


@pytest.mark.parametrize(
    "challenge", ["", 'Basic realm="x"', 'Digest realm="x"', 'Digest nonce="n", algorithm=SHA-256']
)
def test_other_schemes_are_not_answered(challenge: str) -> None:
    assert digest(challenge, "GET", "/", Login("u", "p")) is None


def web(answer: bytes) -> Handler:
    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)
        await writer.drain()

    return handle


def get(port: int, **options: Any) -> Awaitable[bytes]:
    return fetch(Endpoint("127.0.0.1", http_port=port), HttpRequest("x", "GET", "/x"), Login("u", "p"), 1.0, **options)


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\n{\r\n1\r\n}\r\n0\r\n\r\n",
        b"HTTP/1.0 200 OK\r\n\r\n{}",
    ],
)
async def test_bodies_by_length_by_chunks_and_by_closing(answer: bytes, serve: Serve) -> None:
    assert await get(await serve(web(answer))) == b"{}"


@pytest.mark.parametrize(
    ("answer", "word"),
    [
        (b"HTTP/1.1 401 no\r\nContent-Length: 0\r\n\r\n", Reason.UNAUTHORISED),
        (
            b'HTTP/1.1 401 no\r\nWWW-Authenticate: Digest realm="r", nonce="n"\r\nContent-Length: 0\r\n\r\n',
            Reason.UNAUTHORISED,
        ),
        (b"HTTP/1.1 500 no\r\nContent-Length: 0\r\n\r\n", Reason.GARBLED),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 99999999\r\n\r\n", Reason.GARBLED),
        (b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n", Reason.GARBLED),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\nshort", Reason.GARBLED),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", Reason.GARBLED),
        (b"SSH-2.0-OpenSSH\r\n\r\n", Reason.GARBLED),
        (b"\r\n\r\n", Reason.GARBLED),
        (b"x" * 200_000, Reason.GARBLED),
        (b"", Reason.UNREACHABLE),
    ],
)
async def test_a_web_server_that_misbehaves_is_one_word(answer: bytes, word: Reason, serve: Serve) -> None:
    assert await reason(get(await serve(web(answer)))) == word


async def test_an_endless_body_is_garbled(serve: Serve) -> None:
    port = await serve(web(b"HTTP/1.1 200 OK\r\n\r\n" + b"x" * 3_000_000))
    assert await reason(get(port)) == Reason.GARBLED


async def test_challenge_without_a_password_is_no_credentials(serve: Serve) -> None:
    port = await serve(web(b'HTTP/1.1 401 no\r\nWWW-Authenticate: Digest realm="r", nonce="n"\r\n\r\n'))
    call = fetch(Endpoint("127.0.0.1", http_port=port), HttpRequest("x", "GET", "/x"), None, 1.0)
    assert await reason(call) == Reason.NO_CREDENTIALS
