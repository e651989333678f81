"""Feeds behind URLs, against a real server on loopback: what reads, and every way in which an answer can be bad."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from datetime import datetime

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from controller.markets.book import MarketBook
from controller.markets.http_json import fetch, header, rows_of
from controller.markets.polling import MarketPoller
from controller.markets.settings import HttpFeedSettings, MarketSettings, RegionPrice
from gridpivot.clock import Instant
from gridpivot.errors import FeedFailed, SettingsError
from gridpivot.vocabulary import PriceRung

pytestmark = pytest.mark.unit

NOW = Instant(1000.0, datetime.fromisoformat("2024-08-20T23:50:00+00:00").timestamp())
NESTED = {
    "response": {
        "data": [
            {"at": "2024-08-20T23:30:00Z", "spp": {"price": "121.13"}},
            {"at": "2024-08-20T23:45:00Z", "spp": {"price": 190.43}},
        ]
    }
}


class Clock:
    def now(self) -> Instant:
        return NOW


class Server:
    """Answers each path with raw bytes, or not at all; keeps the requests it got."""

    def __init__(self) -> None:
        self.answers: dict[str, bytes | None] = {}
        self.asked: list[str] = []

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        request = (await reader.readuntil(b"\r\n\r\n")).decode()
        self.asked.append(request)
        answer = self.answers[request.split()[1]]
        if answer is None:
            await reader.read()  # until the client gives up
        else:
            writer.write(answer)
        writer.close()

    def reply(self, path: str, body: bytes, status: str = "200 OK", more: str = "") -> str:
        head = f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\nConnection: close\r\n{more}\r\n"
        self.answers[path] = head.encode() + body
        return self.url(path)

    def url(self, path: str) -> str:
        return f"http://127.0.0.1:{self.port}{path}"


@pytest.fixture
async def server(monkeypatch) -> AsyncIterator[Server]:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    made = Server()
    listening = await asyncio.start_server(made.serve, "127.0.0.1", 0)
    made.port = listening.sockets[0].getsockname()[1]
    yield made
    listening.close()
    await listening.wait_closed()


async def body_of(settings: HttpFeedSettings) -> bytes:
    async with httpx.AsyncClient() as client:
        return await fetch(client, settings, header(settings))


def mapped(url="http://h/p", **more):
    return HttpFeedSettings(url=url, rows="response.data", time_field="at", value_field="spp.price", **more)


async def test_rows_are_found_by_the_mapping(server):
    settings = mapped(server.reply("/p", json.dumps(NESTED).encode()))
    rows = rows_of(await body_of(settings), settings)
    assert rows == [(NOW.unix_s - 1200.0, 121.13), (NOW.unix_s - 300.0, 190.43)]


@pytest.mark.parametrize(
    ("answer", "mapping"),
    [
        ([["2024-08-20T23:45Z", 4.2], ["2024-08-21T00:00Z", None]], {"time_field": "0", "value_field": "1"}),
        ([1_724_197_500_000, 4.2], {"time_field": "0", "value_field": "1"}),
        ({"time": 1_724_197_500, "price": 4.2}, {}),
        (
            {"pages": [{"x": 0}, {"time": "2024-08-20T18:45:00", "price": "4.2"}]},
            {"rows": "pages.-1", "time_zone": "America/Chicago"},
        ),
        ({"time": 1_724_197_500, "price": 0.0042}, {"price_unit": "usd_per_kwh"}),
    ],
)
def test_shapes_that_sites_publish_read_the_same(answer, mapping):
    settings = HttpFeedSettings.model_validate({"url": "http://h/p", **mapping})
    assert rows_of(json.dumps(answer).encode(), settings) == [(1_724_197_500.0, pytest.approx(4.2))]


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"<html>busy</html>", "not JSON"),
        (b"\xff\xfe\x00", "not JSON"),
        (b"[" * 100_000, "not JSON"),
        (b'{"response": {}}', "no data on the way to the rows 'response.data'"),
        (b'{"response": {"data": []}}', "none of 0 rows has 'at'"),
        (b'{"response": {"data": [{"at": "soon", "spp": {"price": 3}}]}}', "'soon' is not a time"),
        (b'{"response": {"data": [{"at": "2024-08-20T18:45:00", "spp": {"price": 3}}]}}', "has no zone"),
    ],
)
def test_answer_without_usable_rows_is_refused_with_what_to_correct(body, said):
    with pytest.raises(FeedFailed) as refused:
        rows_of(body, mapped())
    assert said in str(refused.value) and str(refused.value).startswith("http://h/p") and "\n" not in str(refused.value)


@given(
    st.recursive(
        st.none() | st.booleans() | st.floats() | st.text(),
        lambda inner: (
            st.lists(inner) | st.dictionaries(st.sampled_from(["response", "data", "at", "spp", "price"]), inner)
        ),
    )
)
def test_no_answer_does_anything_but_give_rows_or_be_refused(answer):
    try:
        rows = rows_of(json.dumps(answer).encode(), mapped())
    except FeedFailed:
        return
    assert all(isinstance(at, float) and isinstance(price, float) for at, price in rows)


async def test_server_that_fails_or_sends_elsewhere_is_said_with_its_status(server):
    for status, more in (("500 Oops", ""), ("302 Found", "Location: http://127.0.0.1:1/\r\n"), ("401 No", "")):
        with pytest.raises(FeedFailed, match=rf"answered {status[:3]}; check the URL"):
            await body_of(mapped(server.reply("/p", b"[]", status, more)))


async def test_server_that_says_nothing_is_left_after_the_deadline(server):
    server.answers["/p"] = None
    with pytest.raises(FeedFailed, match=r"no answer within 0\.1 s"):
        await body_of(mapped(server.url("/p"), deadline_s=0.1))


async def test_huge_answer_is_cut_off_whatever_it_says_of_its_length(server):
    url = server.reply("/p", b"[" + b"1," * 400_000 + b"1]")
    with pytest.raises(FeedFailed, match="answer is over 1000 bytes"):
        await body_of(mapped(url, max_bytes=1000))


async def test_nobody_listening_and_garbage_instead_of_http_are_said(server):
    server.answers["/p"] = b"\x00\x01garbage\r\n\r\n"
    for url in (server.url("/p"), "http://127.0.0.1:1/p"):
        with pytest.raises(FeedFailed, match="check the URL and the network"):
            await body_of(mapped(url))


async def test_secret_header_comes_from_a_private_file_or_the_environment(server, tmp_path, monkeypatch):
    key = tmp_path / "key"
    key.write_text("s3cret\n")
    key.chmod(0o644)
    url = server.reply("/p", b"[]")
    settings = mapped(url, header_name="X-Api-Key", header_file=key)
    with pytest.raises(SettingsError, match="chmod 600"):
        await body_of(settings)
    key.chmod(0o600)
    await body_of(settings)
    monkeypatch.setenv("PRICE_KEY", "fr0m-env")
    await body_of(mapped(url, header_name="X-Api-Key", header_env="PRICE_KEY"))
    assert [
        "x-api-key: " + key in asked.lower() for asked, key in zip(server.asked, ("s3cret", "fr0m-env"), strict=True)
    ] == [True, True]
    monkeypatch.delenv("PRICE_KEY")
    with pytest.raises(SettingsError, match="PRICE_KEY is not set"):
        header(mapped(url, header_name="X-Api-Key", header_env="PRICE_KEY"))


def test_what_may_be_secret_in_a_url_is_not_in_its_name():
    assert HttpFeedSettings(url="https://me:pw@h.example/p?key=s3cret").title == "https://h.example/p"


def test_header_without_its_source_is_refused():
    for half in (
        {"header_name": "X-Key"},
        {"header_env": "K"},
        {"header_name": "X", "header_env": "K", "header_file": "f"},
    ):
        with pytest.raises(ValidationError, match="exactly one of header_file and header_env"):
            mapped(**half)


async def test_book_takes_what_arrives_keeps_it_through_failures_and_counts_nonsense(server):
    url = server.reply("/p", json.dumps(NESTED).encode())
    source = RegionPrice(http=mapped(url), usd_per_mwh=45.0)
    hashprice = HttpFeedSettings(url=server.reply("/h", b'{"time": 1724150000, "price": 43.5}'))
    book = MarketBook(MarketSettings(regions={"r": source}, hashprice_http=hashprice), ["r"], NOW)
    assert (book.usd_per_mwh("r", NOW)[0], book.price_rung("r", NOW)) == (45.0, PriceRung.ASSUMED)
    poller = MarketPoller(book, Clock())
    await poller.poll_once()
    assert book.usd_per_mwh("r", NOW) == (190.43, 300.0) and book.source("r", NOW) == url
    assert book.price_rung("r", NOW) is PriceRung.FRESH
    assert book.hashprice(NOW) == (43.5, NOW.unix_s - 1_724_150_000.0)

    server.reply("/p", b"", "503 Busy")
    await poller.poll_once()
    assert book.usd_per_mwh("r", NOW)[0] == 190.43
    assert poller.health[url].trouble.startswith(f"{url}: answered 503")

    worse = {"response": {"data": [{"at": "2024-08-21T00:00:00Z", "spp": {"price": 9e9}}]}}
    server.reply("/p", json.dumps(worse).encode())
    await poller.poll_once()
    assert book.refusals() == {"r": 1} and "check its unit" in poller.health[url].trouble

    server.reply("/p", json.dumps(NESTED).encode())
    await poller.poll_once()
    assert poller.health[url].trouble == "" and (poller.health[url].good, poller.health[url].failed) == (2, 2)
